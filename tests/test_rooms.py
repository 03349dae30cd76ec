"""The house keeps its plan: floors import downwards only, and each framework has its door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"

# A room imports from those before it; the order within a floor is the order here.
ORDER = (
    "errors config contract seeds budgets resources records files stores recipes spaces "
    "images latent harvest samples data pieces networks losses balance augment schedules "
    "process precision classifier features moments neighbours fid "
    "overlap feed adam graphs recorded trainer checkpoint sampling tick trial calibration "
    "honesty evaluation finals mps node notice search worker "
    "summary gallery tracker registered_model registry "
    "history explain report view notify models serve jobs sweep keep rerun doctor cli __main__"
).split()

DOORS = {
    "torch": set(
        "images data pieces networks losses balance augment precision classifier features moments "
        "neighbours fid "
        "overlap feed adam graphs recorded process trainer checkpoint sampling tick trial calibration "
        "honesty evaluation finals node registry registered_model".split()
    ),
    "ray": set("node notice search worker sweep jobs doctor".split()),
    "mlflow": set("tracker registry registered_model doctor".split()),
}


def files(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imported(room: str) -> set[str]:
    """Every module that a room imports, at the top or inside functions, as dotted names."""
    names: set[str] = set()
    for path in files(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_room_stands_in_the_plan() -> None:
    rooms = {
        p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if not p.name.startswith((".", "__"))
    }
    assert rooms | {"__main__"} == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_from_below_only(room: str) -> None:
    below = set(ORDER[: ORDER.index(room)]) | {room}
    used = {name.split(".")[1] for name in imported(room) if name.startswith("pipeline.")}
    assert used & set(ORDER) <= below


@pytest.mark.parametrize("framework", DOORS)
def test_a_framework_comes_in_by_its_door(framework: str) -> None:
    users = {room for room in ORDER if any(name.split(".")[0] == framework for name in imported(room))}
    assert users <= DOORS[framework]


def test_the_registered_model_stands_alone() -> None:
    ours = {name.split(".")[0] for name in imported("registered_model")}
    assert not ours & {"pipeline", "ray", "optuna", "torchvision"}
