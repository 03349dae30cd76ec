"""The command that goes on with a sweep."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.config import SweepConfig
from pipeline.search.space.builtin import load_space
from pipeline.sweep.request import Request


def request(out: Path, **more: str) -> Request:
    return Request(load_space("smoke"), SweepConfig(name="s"), out, "faces", **more)


def test_the_command_to_resume_can_be_pasted(tmp_path: Path) -> None:
    words = shlex.split(request(tmp_path / "my runs").resume_command("sqlite:////x/mlflow.db"))
    assert words == ["gansweep", "resume", str(tmp_path / "my runs" / "s")]


def test_addresses_whose_passwords_are_stored_nowhere_are_asked_for(tmp_path: Path) -> None:
    database = request(tmp_path, storage="postgresql://me:hush@db/study")
    words = shlex.split(database.resume_command("https://me:hush@mlflow"))
    assert words[3:] == ["--tracking-uri", "https://***@mlflow", "--storage", "postgresql://***@db/study"]


def test_a_file_is_no_password(tmp_path: Path) -> None:
    words = shlex.split(request(tmp_path).resume_command(f"sqlite:///{tmp_path}/token=1/mlflow.db"))
    assert len(words) == 3
