"""Folders below a data folder that hold results, not data: those that a sweep, MLflow or `sample` made.

They are recognised by what is in them. Of names only MLflow's own count: a user may have a folder that is
called `runs`, `artifacts` or `models`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pipeline.config import SWEEP_HEAD, SweepPaths
from pipeline.storage.files import read_json

_MLFLOW_ROOTS = ("mlruns", "mlartifacts")
_MLFLOW_ID = re.compile(r"(m-|tr-)?[0-9a-f]{32}")  # of a run, a model, a trace


def maker_of(folder: Path, children: Collection[str], files: Collection[str]) -> str:
    """Who made a folder of results, as `a sweep`; "" for any other folder.

    children, files: the names of its folders and of its files.
    """
    if _is_sweep(SweepPaths(folder), files):
        return "a sweep"
    if _is_mlflow(folder, children, files):
        return "MLflow"
    if "generator.safetensors" in files and "files.json" in files:
        return "a packed generator"
    if "dataset.json" in files and _is_data_set(folder / "dataset.json"):
        return "gansweep sample"
    return ""


def _is_sweep(paths: SweepPaths, files: Collection[str]) -> bool:
    """Also where sweep.toml is damaged or has not been written yet."""
    known = [path.name for path in (paths.config, paths.lock, paths.summary) if path.name in files]
    if known and paths.event_log.name in files:
        return True
    return paths.config.name in files and _begins_with(paths.config, SWEEP_HEAD.encode())


def _is_mlflow(folder: Path, children: Collection[str], files: Collection[str]) -> bool:
    if "MLmodel" in files or folder.name in _MLFLOW_ROOTS:
        return True
    if _MLFLOW_ID.fullmatch(folder.name) and "artifacts" in children:
        return True
    # Beside a store; but a class of the user's may have this name too.
    return (
        folder.name == "artifacts"
        and bool(children)
        and not files
        and (folder.parent / "mlflow.db").is_file()
        and all(name in ("models", "traces") or (folder / name / "artifacts").is_dir() for name in children)
    )


def _is_data_set(file: Path) -> bool:
    """Whether `pipeline.serving.dataset_export` wrote it; other tools have a file of this name too."""
    return _begins_with(file, b'{\n "dataset":') and {"identity", "portion", "done"} <= read_json(file).keys()


def _begins_with(file: Path, head: bytes) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(head)) == head
    except OSError:
        return False
