"""`register` on a sweep's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from registry_store import TinyGenerator

from pipeline.config import SweepConfig, SweepPaths
from pipeline.serving.models import register
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator


@pytest.mark.mlflow
@pytest.mark.parametrize("field", ["extractor", "data"])
def test_a_sweep_is_registered_without_running_code_that_it_names(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fid is then not measured again."""
    monkeypatch.chdir(tmp_path)
    paths = SweepPaths(tmp_path / "sweep")
    metadata = ModelMetadata(fid=3.0, n=100, extractor="mine:run", evaluator="abc")
    pack_generator(TinyGenerator(0, 0), paths.packed, metadata)
    config = SweepConfig(name="sweep", **{field: "mine:run"})
    rows = [f"{key} = {json.dumps(value)}" for key, value in config.to_dict().items()]
    paths.config.write_text("\n".join(["[sweep]", *rows]))
    for folder in (tmp_path, paths.code):
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text("raise SystemExit('the code of the sweep was run')")
    done = register(str(paths.root), tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert (done.name, done.version, done.alias) == ("sweep", 1, "champion")
