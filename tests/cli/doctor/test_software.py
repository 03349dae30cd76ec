"""What is installed: torch in another process, torchvision's fit, versions against the tested ones, data."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pipeline.cli.doctor import software
from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.software import check_digits, check_weights
from pipeline.metrics.weights import INCEPTION_FILE

REPORT = {"version": "2.13.0+cpu", "cuda": None, "vision": "0.28.0", "why": "", "gpus": []}


def test_pins_are_read_from_constraints(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("# a pair\ntorch==2.14.1\ntorchvision == 0.29.1 ; sys\nRay[default]==2.60.0\n")
    assert software.read_pins(path) == {"torch": "2.14.1", "torchvision": "0.29.1", "ray": "2.60.0"}
    assert software.read_pins(tmp_path / "none") == {}


def test_versions_are_compared_with_their_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        software, "version_of", {"torch": "2.14.1+cu130", "ray": "2.61.0", "mlflow": "3.1"}.get
    )
    found = {one.name: one for one in software.check_versions({"torch": "2.14.1", "ray": "2.60.0"})}
    assert found["torch"] == Finding("torch", "ok", "2.14.1+cu130")
    assert found["ray"].level == "warn"
    assert "2.61.0, tested with 2.60.0" in found["ray"].text
    assert found["mlflow"].level == "ok"  # no version of it is pinned
    assert found["optuna"].level == "bad"  # not installed


def test_torchvision_fits_or_is_bad() -> None:
    fits = software.torch_findings(REPORT)
    assert fits[0] == Finding("torch", "ok", "2.13.0+cpu (CPU build)")
    assert (fits[1].name, fits[1].level) == ("torch pair", "ok")
    broken = {**REPORT, "vision": "", "why": "operator torchvision::nms does not exist"}
    found = software.torch_findings(broken)[1]
    assert found.level == "bad"
    assert "torch 2.13.0+cpu (operator torchvision::nms does not exist)" in found.text


def test_a_torch_that_cannot_be_imported_is_one_line() -> None:
    (found,) = software.check_torch((sys.executable, "-c", "import no_such_torch"))
    assert found.level == "bad"
    assert found.text == "cannot be used: ModuleNotFoundError: No module named 'no_such_torch'"


def test_the_default_data_set_is_installed() -> None:
    assert check_digits().level == "ok"


@pytest.mark.parametrize("folder", ["ours/extractors", "torch/hub/checkpoints"])
def test_weights_in_either_cache_are_found(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    place = str(tmp_path / "ours" / "extractors")
    assert [("no weights" in found.text, place in found.text) for found in check_weights()] == 2 * [
        (True, True)
    ]
    paths = [tmp_path / folder / file for file in (INCEPTION_FILE, "dinov2_vits14_pretrain.pth")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    assert [found.text for found in check_weights()] == [f"weights at {path}" for path in paths]


def test_a_gpu_that_torch_cannot_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    (found,) = software.gpu_findings({"cuda": None, "gpus": []})
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
    found = software.gpu_findings(report)
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
    found = software.gpu_findings({"cuda": "13.0", "gpus": [["NVIDIA L4", 24 * 2**30, 8, 9]]})[-1]
    assert found.level == level
    assert re.search(expected, found.text)
    assert "a fatal fault of one trial ends all trials of its GPU" in found.text
