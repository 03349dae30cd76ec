"""What a model claims: read from every version of its files and from the tags of a registered version."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import SCHEMA, ModelMetadata, text_of
from pipeline.tracking.registry.registered_model import sha256_of

FIRST_VERSION: dict[str, Any] = {
    "trial": 4,
    "trial_seed": 17,
    "search_seed": 0,
    "kimg": 20,
    "params": {"loss": "hinge", "lr_g": 0.001},
    "balance": 0.5,
    "auc": 0.75,
    "overfit": 0.5,
    "fid": 39.5,
    "fid_low": 38.5,
    "fid_high": 40.5,
    "fid_mean": 39.5,
    "fid_std": None,
    "search_fid": 38.0,
    "fresh_fid": 39.0,
    "gap": 1.0,
    "n": 5000,
    "extractor": "classifier",
    "evaluator": "6fcf531bbe9c7bd1",
    "kid": 1.5,
    "collapse": "ok",
    "class_counts": {"0": 3, "1": 2},
    "notes": ["few images"],
    "verdicts": [],
    "withhold": [],
    "seconds": 1.5,
    "device": "cpu",
    "gpu_hours": 0.0,
    "sweep": "old",
    "data": "digits",
    "fingerprint": "7dafdb729673bd01",
    "class_names": ["a", "b", "c"],
    "label_shares": [0.0, 1.0, 0.0],
    "space": "07777ba5bbb0ef6d",
    "python": "3.11.7",
    "git.commit": "75b37f1",
    "git.dirty": "false",
}
"""The facts of a generator that was packed before they had a `schema`."""

FULL = ModelMetadata(
    fid=3.0,
    fid_low=2.0,
    n=100,
    evaluator="e",
    trial=1,
    params={"lr_g": 1e-3},
    class_names=("a", "b"),
    label_shares=(0.5, 0.5),
    run_id="r",
    withhold=("copies",),
    others={"kid": 1.5, "git.commit": "c"},
)


def test_the_first_version_is_read_into_attributes() -> None:
    found = ModelMetadata.from_json(FIRST_VERSION)
    assert found.schema == 1
    assert found.interval == (38.5, 40.5)
    assert (found.trial, found.params["loss"]) == (4, "hinge")
    assert (found.class_names, found.others["git.commit"]) == (("a", "b", "c"), "75b37f1")
    assert found.others["class_counts"] == {"0": 3, "1": 2}
    assert found.withhold == ()


@pytest.mark.parametrize("key", FIRST_VERSION)
def test_every_key_of_the_first_version_keeps_its_value(key: str) -> None:
    assert ModelMetadata.from_json(FIRST_VERSION).to_json()[key] == FIRST_VERSION[key]


def test_a_generator_packed_by_the_first_version_loads_and_samples_the_same(
    packing: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "packed"
    folder.mkdir()
    for name in ("generator.pt2", "generator.safetensors"):
        (folder / name).write_bytes((packing() / name).read_bytes())
    shape = json.loads((packing() / "facts.json").read_text())["generator"]
    (folder / "facts.json").write_text(json.dumps({"format": 1, "generator": shape, "facts": FIRST_VERSION}))
    names = ("generator.pt2", "generator.safetensors", "facts.json")
    (folder / "files.json").write_text(json.dumps({name: sha256_of(folder / name) for name in names}))
    old = LoadedGenerator(folder)
    assert old.metadata == ModelMetadata.from_json(FIRST_VERSION)
    images, labels = old.sample(9, seed=3)
    assert labels is not None
    assert set(labels) == {1}  # by label_shares
    assert np.array_equal(images, LoadedGenerator(packing()).sample(9, seed=3, label=1)[0])


def test_json_gives_the_same_metadata_again() -> None:
    values = json.loads(json.dumps(FULL.to_json(), allow_nan=False))
    assert values["schema"] == SCHEMA
    assert ModelMetadata.from_json(values) == FULL


def test_nothing_is_missing_without_keys_and_unknown_keys_are_kept() -> None:
    empty = ModelMetadata.from_json({})
    assert empty == ModelMetadata(schema=1)
    later = ModelMetadata.from_json({"schema": 99, "perplexity": {"mean": 2.0}})
    assert later.to_json()["perplexity"] == {"mean": 2.0}
    assert later.schema == 99


@pytest.mark.parametrize(
    ("values", "fid"),
    [
        ({"fid": "39.5"}, 39.5),
        ({"fid": "NaN"}, None),
        ({"fid": math.inf}, None),
        ({"fid": "none"}, None),
        ({"fid": [1]}, None),
        ({"fid": True}, None),
    ],
)
def test_a_number_is_read_from_text_too_and_else_unknown(values: dict[str, Any], fid: float | None) -> None:
    assert ModelMetadata.from_json(values).fid == fid


def test_a_reason_to_withhold_is_never_lost() -> None:
    assert ModelMetadata.from_json({"withhold": "copies"}).withhold == ("copies",)


def test_the_interval_of_a_fid_without_one_is_the_fid() -> None:
    assert ModelMetadata(fid=3.0).interval == (3.0, 3.0)
    assert ModelMetadata(fid=3.0, fid_low=2.0, fid_high=6.0).interval == (2.0, 6.0)


def test_numbers_that_json_cannot_hold_are_none() -> None:
    found = ModelMetadata(fid=math.nan, others={"kid": math.inf, "by_class": {"a": math.nan}}).to_json()
    assert (found["fid"], found["kid"], found["by_class"]) == (None, None, {"a": None})


@pytest.mark.parametrize(
    ("value", "text"),
    [(1 / 3, "0.3333"), (20, "20"), ([], "none"), (["a", "b"], "a; b"), ({"a": 0.5, "b": [1]}, "a=0.5, b=1")],
)
def test_a_value_for_people(value: object, text: str) -> None:
    assert text_of(value) == text
