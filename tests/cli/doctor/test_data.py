"""Files that a sweep reads are looked for where the sweep looks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.doctor.data import check_digits, check_inception
from pipeline.metrics.weights import INCEPTION_FILE


def test_the_default_data_set_is_installed() -> None:
    assert check_digits().level == "ok"


def test_inception_in_gansweeps_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "ours" / "extractors" / INCEPTION_FILE
    missing = check_inception()
    assert "no weights" in missing.text
    assert str(path) in missing.text
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert check_inception().text == f"weights at {path}"


def test_inception_in_torchs_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / "hub" / "checkpoints" / INCEPTION_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert check_inception().text == f"weights at {path}"
