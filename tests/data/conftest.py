"""Fixtures of the data tests: a cache of their own, the 5,000 digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.dataset import Dataset, load_dataset


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("mnist5k", cache=tmp_path_factory.mktemp("digits"))
