"""Loading generators from a registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from registry_store import Store

from pipeline.errors import RegistryError
from pipeline.serving.models import load_generator
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.promote import register_version

pytestmark = pytest.mark.mlflow


def test_loading_by_alias_and_by_version_gives_the_packed_bytes(store: Store) -> None:
    for model, seed in (("models:/gan/1", 0), ("models:/gan/2", 1), ("models:/gan@champion", 1)):
        images, _ = store.load(model).sample(40, seed=9)
        assert np.array_equal(images, LoadedGenerator(store.packing(3, seed)).sample(40, seed=9)[0])
    assert store.load("models:/gan/1").metadata.trial == 7


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/gan@best", r"aliases: .*champion.*; versions: 1, 2"),
        ("models:/gan/99", r"aliases: .*champion.*; versions: 1, 2"),
        ("models:/none@champion", "not in the registry; models in it: .*gan"),
        ("gan", "gan is no address.*models:/NAME@ALIAS"),
        ("models:/gan/latest", "models:/NAME@ALIAS"),
    ],
)
def test_an_unknown_model_is_refused_with_those_that_exist(store: Store, model: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        store.load(model)


def test_a_model_that_gansweep_did_not_register_is_refused(store: Store) -> None:
    store.add(0, name="foreign-made")
    store.client().delete_model_version_tag("foreign-made", "1", "gansweep.files")
    with pytest.raises(RegistryError, match="gansweep has not registered models:/foreign-made/1"):
        store.load("models:/foreign-made/1")


@pytest.mark.parametrize("all_files", [False, True])
def test_files_altered_in_the_registry_are_refused(store: Store, all_files: bool) -> None:
    """Also where all of them were exchanged consistently: the registry's tags hold their hash."""
    name = f"altered-{all_files}"
    store.add(0, name=name)
    model = store.version(1, name).source.removeprefix("models:/")
    (folder,) = (store.folder / "artifacts").glob(f"*/models/{model}/**/generator")
    other = store.packing(3, 1)
    for path in other.iterdir() if all_files else [other / "generator.pt2"]:
        shutil.copy(path, folder)
    with pytest.raises(RegistryError, match="altered"):
        store.load(f"models:/{name}/1")


def test_a_missing_store_or_dead_server_raises_at_once(tmp_path: Path, packing: Callable[..., Path]) -> None:
    with pytest.raises(RegistryError, match="cannot be read"):
        load_generator("models:/gan@champion", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(RegistryError, match="tracking server does not answer"):
        register_version(packing(), ModelMetadata(), tracking_uri="http://127.0.0.1:9", name="gan")
