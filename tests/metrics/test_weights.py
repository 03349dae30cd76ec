"""Where extractors' weights are looked for, without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.metrics.weights import INCEPTION_FILE, extractor_dir, inception_paths


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_the_second_path_is_torchs_cache(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert inception_paths()[1] == Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE


def test_the_first_path_is_in_gansweeps_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path))
    assert inception_paths()[0] == tmp_path / "extractors" / INCEPTION_FILE
    assert extractor_dir(tmp_path / "other") == tmp_path / "other" / "extractors"
