"""Copies and collapse, each sign of them by itself; whole generators are in test_evaluation.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.metrics import memorization


def test_closeness_is_relative():
    nearest = torch.tensor([[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]])
    assert memorization._ratio(nearest).tolist() == [0.5, 0.0, 1.0]  # thrice the same image: no one's copy


def test_auc_counts_ties_by_half():
    low, high = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])
    assert memorization._auc(low, high) == 0.875
    assert memorization._auc(high, low) == 0.125
    assert memorization._auc(high, high) == 0.5


@pytest.mark.parametrize(("spread", "twins", "one_mode", "word"), [
    (1.0, False, False, "ok"), (0.2, False, False, "collapsed"), (1.0, True, False, "collapsed"),
    (1.0, False, True, "collapsed"),
])  # fmt: skip
def test_each_sign_of_a_collapse_is_enough(spread, twins, one_mode, word):
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (200, 64), dtype=np.uint8))
    vectors, modes = torch.from_numpy(rng.normal(size=(200, 8))), torch.arange(200) % 4
    reals = memorization.CollapseProbe(pixels, vectors, modes)
    other = torch.from_numpy(rng.integers(0, 256, (200, 64), dtype=np.uint8))
    samples = memorization.CollapseProbe(
        other[torch.arange(200) // 2] if twins else other, vectors * spread, modes * 0 if one_mode else modes
    )
    assert memorization.find_collapse(samples, reals, ("a", "b", "c", "d"))["collapse"] == word


def test_clusters_find_what_is_there():
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]]).double()
    truth = torch.arange(90) % 3
    found = memorization.clusters(centres[truth] + torch.randn(90, 2, generator=rng).double(), 3)
    pairs = {(int(a), int(b)) for a, b in zip(truth, found, strict=True)}
    assert len(pairs) == 3


def test_large_images_are_shrunk_for_their_neighbours():
    images = torch.arange(64 * 64, dtype=torch.float32).view(1, 64, 64, 1).div(16).to(torch.uint8)
    assert memorization.pixels_of(images).shape == (1, 32 * 32)
    assert memorization.pixels_of(images.expand(-1, -1, -1, 3)).shape == (1, 16 * 16 * 3)
    assert memorization.pixels_of(images[:, :8, :8]).dtype == torch.uint8
