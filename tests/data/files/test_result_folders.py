"""Folders of results: those that a sweep, MLflow or `sample` made, and the user's own of the same names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.config import SWEEP_HEAD
from pipeline.data.files.result_folders import maker_of

RUN = "6c3eb5c580e84a6fbeb57111b0e40db6"
EXPORT = {"dataset": 1, "identity": "0" * 16, "portion": 512, "done": 0}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def maker(folder: Path) -> str:
    _, children, files = next(os.walk(folder))
    return maker_of(folder, children, files)


@pytest.mark.parametrize(
    ("files", "folder", "made_by"),
    [
        ({"a/sweep.toml": f"{SWEEP_HEAD}: one resolved sweep.\n"}, "a", "a sweep"),
        ({"a/sweep.toml": f"{SWEEP_HEAD}: one reso"}, "a", "a sweep"),
        ({"a/sweep.toml": "", "a/spool.jsonl": "", "a/lock": ""}, "a", "a sweep"),
        ({"a/sweep.toml": "\0" * 90, "a/spool.jsonl": ""}, "a", "a sweep"),
        ({"a/spool.jsonl": "", "a/lock": ""}, "a", "a sweep"),  # killed as it began
        ({f"a/{RUN}/artifacts/x.png": ""}, f"a/{RUN}", "MLflow"),
        ({f"models/m-{RUN}/artifacts/MLmodel": ""}, f"models/m-{RUN}", "MLflow"),
        ({"a/MLmodel": ""}, "a", "MLflow"),
        ({"mlruns/0/meta.yaml": ""}, "mlruns", "MLflow"),
        ({"mlartifacts/1/x.png": ""}, "mlartifacts", "MLflow"),
        ({"mlflow.db": "", f"artifacts/{RUN}/artifacts/x.png": ""}, "artifacts", "MLflow"),
        ({"mlflow.db": "", "artifacts/models/m-1/artifacts/MLmodel": ""}, "artifacts", "MLflow"),
        ({"a/files.json": "", "a/generator.safetensors": ""}, "a", "a packed generator"),
        ({"a/dataset.json": json.dumps(EXPORT, indent=1)}, "a", "gansweep sample"),
    ],
)
def test_folders_of_results_are_recognised(
    files: dict[str, str], folder: str, made_by: str, tmp_path: Path
) -> None:
    write(tmp_path, files)
    assert maker(tmp_path / folder) == made_by


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ({"runs/1.png": ""}, "runs"),
        ({"artifacts/1.png": ""}, "artifacts"),
        ({"artifacts/roman/1.png": ""}, "artifacts"),
        ({"models/1.png": ""}, "models"),
        ({"mlflow.db": "", "artifacts/1.png": ""}, "artifacts"),  # a class beside the store of `--out .`
        ({"mlflow.db": "", f"artifacts/{RUN}/artifacts/x.png": "", "artifacts/1.png": ""}, "artifacts"),
        ({"mlflow.db": "", "artifacts/roman/1.png": ""}, "artifacts"),
        ({"a/sweep.toml": "[broom]\nlength = 3\n", "a/lock": ""}, "a"),
        ({"a/lock": "", "a/1.png": ""}, "a"),
        ({"a/spool.jsonl": "", "a/1.png": ""}, "a"),
        ({f"{RUN}/1.png": ""}, RUN),
        ({"a/dataset.json": '{"labels": [["00000/img00000000.png", 6]]}'}, "a"),  # StyleGAN's
        ({"a/dataset.json": "[]"}, "a"),
    ],
)
def test_folders_of_the_users_are_not(files: dict[str, str], folder: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    assert maker(tmp_path / folder) == ""
