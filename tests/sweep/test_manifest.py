"""sweep.toml: written, read back, and compared with a later call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.config import SweepConfig
from pipeline.errors import SweepError
from pipeline.search.space.parser import parse_space
from pipeline.storage.summary_file import FidEvaluator
from pipeline.sweep.manifest import (
    DataFacts,
    Manifest,
    SweepFacts,
    check_same_code,
    check_same_evaluator,
    check_same_images,
    check_same_request,
    manifest_of,
    raised_limits,
    read_manifest,
)
from pipeline.sweep.request import Request

SPACE = parse_space("[search]\nlr_g = { float = [1e-4, 1e-2], log = true }")
FACTS = SweepFacts(
    data=DataFacts(
        source="digits", fingerprint="f", size=8, channels=1, classes=["0", "1"], train=9, held_out=3
    ),
    evaluator=FidEvaluator(extractor="pixels", hash="h", samples=100),
    code={"mine": "c0ffee"},
)
OLD = """# Written by gansweep: one resolved sweep.

[sweep]
name = "s"
trials = 7

[data]
source = "digits"
fingerprint = "f"

[evaluator]
extractor = "pixels"
hash = "h"
samples = 100

[registry]
name = "s"

[space.fixed]

[space.search]
lr_g = { float = [0.0001, 0.01], log = true }
"""


def request(out: Path, **changes: object) -> Request:
    config = SweepConfig(name="s", **changes)  # type: ignore[arg-type]
    return Request(SPACE, config, out, "s", storage="", tracking_uri="")


def stored(out: Path, facts: SweepFacts = FACTS, **changes: object) -> Manifest:
    asked = request(out, **changes)
    asked.paths.root.mkdir(parents=True)
    asked.paths.config.write_text(manifest_of(asked, facts, "postgresql://me:secret@host/db").to_toml())
    manifest = read_manifest(asked.paths)
    assert manifest is not None
    return manifest


def test_it_reads_back_as_it_was_written_but_for_passwords(tmp_path: Path) -> None:
    manifest = stored(tmp_path, trials=3)
    assert (manifest.config.trials, manifest.space, manifest.facts) == (3, SPACE, FACTS)
    assert manifest.registry.tracking_uri == "postgresql://***@host/db"
    assert "secret" not in (tmp_path / "s" / "sweep.toml").read_text()


def test_a_sweep_without_own_code_has_no_such_table(tmp_path: Path) -> None:
    manifest = stored(tmp_path, dataclasses.replace(FACTS, code={}))
    assert "[code]" not in (tmp_path / "s" / "sweep.toml").read_text()
    assert manifest.facts.code == {}


def test_what_an_earlier_version_did_not_write_has_its_default(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "sweep.toml").write_text(OLD)
    manifest = read_manifest(request(tmp_path).paths)
    assert manifest is not None
    assert (manifest.config.trials, manifest.config.seed, manifest.registry.promote) == (7, 0, "champion")
    assert (manifest.config.second_extractor, manifest.config.second_opinion) == ("auto", "report")
    check_same_request(manifest, request(tmp_path, trials=9))


@pytest.mark.parametrize("text", ["", "[sweep", "[sweep]\nname = 's'\n", "[data]\n"])
def test_a_damaged_one_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "sweep.toml").write_text(text)
    with pytest.raises(SweepError, match=r"sweep\.toml cannot be read"):
        read_manifest(request(tmp_path).paths)


def test_a_folder_with_other_files_is_refused_and_an_empty_one_is_new(tmp_path: Path) -> None:
    paths = request(tmp_path).paths
    assert read_manifest(paths) is None
    paths.root.mkdir()
    paths.lock.touch()
    assert read_manifest(paths) is None
    (paths.root / "notes.txt").touch()
    with pytest.raises(SweepError, match="holds other files"):
        read_manifest(paths)


def test_how_much_is_searched_may_change_and_what_may_not(tmp_path: Path) -> None:
    manifest = stored(tmp_path)
    check_same_request(manifest, request(tmp_path, trials=99, concurrency=1, space="elsewhere.toml"))
    with pytest.raises(SweepError, match=r"other values of sweep\.seed, sweep\.sampler"):
        check_same_request(manifest, request(tmp_path, seed=1, sampler="random"))
    with pytest.raises(SweepError, match=r"other values of sweep\.metrics"):
        check_same_request(manifest, request(tmp_path, metrics="mine:sharpness"))
    other = dataclasses.replace(request(tmp_path), space=SPACE.override({}).override({"beta1": 0.1}))
    with pytest.raises(SweepError, match=r"fixed\.beta1"):
        check_same_request(manifest, other)
    with pytest.raises(SweepError, match="another study: .*leave out --storage"):
        check_same_request(manifest, dataclasses.replace(request(tmp_path), storage="postgresql://db/x"))


def test_other_images_evaluator_or_code_are_named() -> None:
    check_same_images(FACTS, "f", has_copies=False)
    check_same_evaluator(FACTS, "h")
    with pytest.raises(SweepError, match=r"another data\.fingerprint, of digits "):
        check_same_images(FACTS, "g", has_copies=False)
    with pytest.raises(SweepError, match=r"another evaluator\.hash "):
        check_same_evaluator(FACTS, "i")
    with pytest.raises(SweepError, match=r"another code "):
        check_same_code(FACTS, {})


@pytest.mark.parametrize(
    ("before", "now", "raised"),
    [
        ({"trials": 4}, {"trials": 4}, False),
        ({"trials": 4}, {"trials": 5}, True),
        ({"time_budget_sec": 60}, {"time_budget_sec": 90}, True),
        ({"time_budget_sec": 60}, {"time_budget_sec": 0}, True),
        ({"time_budget_sec": 60}, {"time_budget_sec": 30}, False),
        ({"gpu_hours": 0}, {"gpu_hours": 1}, False),
        ({"target_fid": 9}, {"target_fid": 5}, True),
        ({"until_plateau": 1}, {"until_plateau": 0}, True),
        ({"until_plateau": 1}, {"until_plateau": 2}, False),
        ({"until_plateau": 0}, {"until_plateau": 1}, False),
    ],
)
def test_a_raised_limit(before: dict[str, float], now: dict[str, float], raised: bool) -> None:
    assert raised_limits(SweepConfig(**before), SweepConfig(**now)) is raised  # type: ignore[arg-type]
