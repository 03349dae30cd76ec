"""Findings on GPUs and MPS."""

from __future__ import annotations

import re

import pytest

from pipeline.cli.doctor import gpus
from pipeline.cli.doctor.finding import Finding


def test_a_gpu_that_torch_cannot_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    (found,) = gpus.gpu_findings({"cuda": None, "gpus": []})
    assert (found.level, "CPU build" in found.text) == ("warn", True)


@pytest.mark.parametrize(
    ("major", "minor", "level", "expected"),
    [
        (8, 9, "ok", "compute 8.9, bfloat16 in hardware"),
        (8, 0, "ok", "compute 8.0, bfloat16 in hardware"),
        (7, 5, "warn", "compute 7.5: bfloat16 is emulated: --set precision=float32"),
    ],
)
def test_bfloat16_of_each_gpu(major: int, minor: int, level: str, expected: str) -> None:
    report = {"cuda": "13.0", "gpus": [["NVIDIA L4", 24 * 2**30, major, minor]] * 2}
    found = gpus.gpu_findings(report)
    assert found[:2] == [Finding("gpu", level, f"NVIDIA L4, 24 GiB, {expected}")] * 2
    assert [finding.name for finding in found] == ["gpu", "gpu", "mps"]


@pytest.mark.parametrize(
    ("state", "level", "expected"),
    [
        ("runs", "ok", "runs"),
        ("found", "ok", "started where"),
        ("missing", "warn", "is not installed: .* turns"),
    ],
)
def test_mps_is_a_warning_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, state: str, level: str, expected: str
) -> None:
    monkeypatch.setattr("pipeline.cluster.mps.state", lambda: state)
    found = gpus.gpu_findings({"cuda": "13.0", "gpus": [["NVIDIA L4", 24 * 2**30, 8, 9]]})[-1]
    assert found.level == level
    assert re.search(expected, found.text)
    assert "a fatal fault of one trial ends all trials of its GPU" in found.text
