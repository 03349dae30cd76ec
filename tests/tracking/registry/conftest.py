"""Packed generators, and a registry on a real MLflow server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow_server import Server
from registry_store import FACTS, Store, TinyGenerator, measured, pixel_evaluator

from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator


@pytest.fixture(scope="package")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """packing(classes, seed): the folder of a packed TinyGenerator, packed once."""
    done: dict[tuple[int, int], Path] = {}

    def packed(classes: int = 3, seed: int = 0) -> Path:
        if (classes, seed) not in done:
            folder = tmp_path_factory.mktemp("packed") / "generator"
            done[classes, seed] = pack_generator(
                TinyGenerator(classes, seed), folder, ModelMetadata.from_json(FACTS)
            )
        return done[classes, seed]

    return packed


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory, packing: Callable[..., Path]) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("registry")
    server = Server(folder)
    try:
        server.start()
        facts = measured(packing())
        (packing() / "card").mkdir()
        (packing() / "card" / "README.md").write_text("# a card\n")
        store = Store(folder, server.uri, packing, facts={"evaluator": facts["evaluator"]})
        facts["run_id"] = store.client().create_run("0").info.run_id
        first = store.add(0, facts["fid"], verify=True, facts=facts, evaluator=pixel_evaluator())
        second = store.add(1, facts["fid"] / 2)
        yield dataclasses.replace(store, first=first, second=second)
    finally:
        server.kill()
