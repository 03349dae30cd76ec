"""The kernel is asked for whole rows, and only where images may not be in memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.dataset import Sampler
from pipeline.training import read_ahead
from pipeline.training.prefetch import Prefetcher
from pipeline.training.read_ahead import ReadAhead


def mapped(path: Path) -> torch.Tensor:
    """50 images of 7 kB, none of which begins with a page."""
    np.save(path, np.random.default_rng(0).integers(0, 256, (50, 48, 49, 3), np.uint8))
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def test_few_images_are_not_asked_for(tmp_path: Path) -> None:
    assert ReadAhead.where_useful(mapped(tmp_path / "images.npy")) is None


def test_the_pages_of_the_rows_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, asked = mapped(tmp_path / "images.npy"), []
    monkeypatch.setattr(read_ahead, "_LEAST_BYTES", 0)
    found = ReadAhead.where_useful(images)
    assert found is not None
    found.ask_for(np.array([3, 49]))  # the kernel itself takes it
    monkeypatch.setattr(found, "_madvise", lambda *call: asked.append(call))
    found.ask_for(np.array([3, 49]))
    for (start, length, advice), row in zip(asked, (3, 49), strict=True):
        first = images[row].data_ptr()
        assert (start % mmap.PAGESIZE, advice) == (0, mmap.MADV_WILLNEED)
        assert first - mmap.PAGESIZE < start <= first
        assert start + length == first + images[row].nbytes


def test_the_batch_after_the_next_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, asked = mapped(tmp_path / "images.npy"), []
    monkeypatch.setattr(read_ahead, "_LEAST_BYTES", 0)
    monkeypatch.setattr(ReadAhead, "ask_for", lambda self, rows: asked.append(rows.tolist()))
    sampler = Sampler(50, seed=1)
    Prefetcher(images, None, sampler, 4, torch.device("cpu")).load(8)
    assert asked == [sampler.take(16, 4).tolist()]
