"""Checks of the machine: what a sweep says is what the doctor finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.cli.doctor.finding import Finding, judge
from pipeline.cli.doctor.machine import check_cores, check_sockets
from pipeline.cluster.socket_folder import PATH_BYTES, ray_folder
from pipeline.errors import ConfigError


def test_a_check_that_raises_is_bad_one_that_warns_a_warning() -> None:
    def refuse() -> list[str]:
        raise ConfigError("too few", fix="more")

    assert judge("files", "enough", refuse) == [Finding("files", "bad", "too few; more")]
    assert judge("files", "enough", lambda: ["few"]) == [Finding("files", "warn", "few")]
    assert judge("files", "enough", list) == [Finding("files", "ok", "enough")]


def test_the_cores_are_those_of_this_process() -> None:
    assert check_cores().text.startswith(f"{len(os.sched_getaffinity(0))} usable of ")


def test_a_tmpdir_too_long_for_sockets_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("t" * PATH_BYTES)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    assert check_sockets() == Finding("sockets", "warn", ray_folder().note)
