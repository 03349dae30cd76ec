"""Copies and mode collapse, each symptom by itself; whole generators are in test_evaluation.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.data.dataset import Dataset
from pipeline.data.understood import Understood
from pipeline.metrics import memorization


def copies_of(train, held, samples):
    """`find_copies` where pixels and features are the same; images are lists of four bytes."""
    train, held, samples = (np.array(i, dtype=np.uint8).reshape(-1, 2, 2, 1) for i in (train, held, samples))
    vectors = [torch.from_numpy(images).flatten(1).float() for images in (samples, train, held)]
    dataset = Dataset("made", train, held, None, None, (), "0" * 16)
    fields, nearest = memorization.find_copies(torch.from_numpy(samples), vectors[0], dataset, *vectors[1:])
    return fields, nearest.tolist()


def on_a_line(*values):
    return [(value, 0, 0, 0) for value in values]


def test_a_sample_is_compared_by_the_ratio_of_its_distances():
    """Held-out images have the ratio 10/30 of nearest to third nearest; only far smaller ones are copies."""
    train = on_a_line(0, 10, 20, 100, 110, 120, 200, 210, 220)
    held = on_a_line(*[30, 130, 230] * 20)  # distances 10, 20, 30 to the nearest three
    same, nearest = copies_of(train, held, on_a_line(130, 230, 30))
    assert (same.copied, same.memorisation, same.memorisation_auc) == (0.0, "ok", 0.5)
    assert nearest == [5, 8, 2]
    found, nearest = copies_of(train, held, on_a_line(0, 100, 220))
    assert (found.copied, found.memorisation, found.memorisation_auc) == (1.0, "copies", 1.0)
    assert nearest == [0, 3, 8]


def test_a_sample_of_three_equal_training_images_is_no_copy_of_one():
    held = on_a_line(*[130] * 40)
    found, _ = copies_of(on_a_line(0, 0, 0, 100, 110, 120), held, on_a_line(0, 0))
    assert found.copied == 0.0
    assert found.memorisation_auc == 0.0


@pytest.mark.parametrize("times", [2, 3, 5])
def test_copies_are_found_where_every_image_stands_several_times(times):
    """As many bytes alike in every copy: only `train_groups` tells; samples and reals lie in the plane."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 2, 2, 1), dtype=np.uint8)
    train, held, honest = images[:200], images[200:300], images[300:]

    def copied(samples, *, known):
        parts = [torch.from_numpy(part) for part in (samples, np.repeat(train, times, 0), held)]
        groups = np.repeat(np.arange(200), times) if known else None
        dataset = Dataset("made", parts[1].numpy(), held, None, None, (), "0" * 16, train_groups=groups)
        vectors = [part.flatten(1).float() for part in parts]
        return memorization.find_copies(parts[0], vectors[0], dataset, *vectors[1:])

    found, nearest = copied(train[:100], known=True)
    assert (found.copied, found.memorisation) == (1.0, "copies")
    assert nearest.tolist() == [times * i for i in range(100)]
    assert copied(honest, known=True)[0].memorisation == "ok"
    if times > 2:
        assert copied(train[:100], known=False)[0].memorisation == "ok"  # blind


@pytest.mark.parametrize("times", [1, 3])
def test_copies_are_found_where_held_out_images_were_trained_on(times):
    """Two images a class, both the same: one is held out, and none is left to compare with."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 2, 2, 1), dtype=np.uint8)
    held, honest, train = images[:200], torch.from_numpy(images[200:]), np.repeat(images[:200], times, 0)
    groups = np.repeat(np.arange(200), times) if times > 1 else None
    understood = Understood(across=200)
    dataset = Dataset(
        "made", train, held, None, None, (), "0" * 16, train_groups=groups, understood=understood
    )

    def verdict(samples):
        vectors = [torch.from_numpy(part).flatten(1).float() for part in (train, held)]
        fields, _ = memorization.find_copies(samples, samples.flatten(1).float(), dataset, *vectors)
        return fields.copied, fields.memorisation

    assert verdict(torch.from_numpy(held[:100])) == (1.0, "copies")
    assert verdict(honest)[1] == "ok"


def test_the_auc_counts_ties_by_half():
    train = on_a_line(0, 10, 20, 100, 110, 120)
    half = copies_of(train, on_a_line(*[30, 130] * 20), on_a_line(30, 100))[0]
    assert half.memorisation_auc == 0.75  # one equal, one closer


@pytest.mark.parametrize(("spread", "duplicates", "one_mode", "word"), [
    (1.0, False, False, "ok"), (0.2, False, False, "collapsed"), (1.0, True, False, "collapsed"),
    (1.0, False, True, "collapsed"),
])  # fmt: skip
def test_each_symptom_of_a_collapse_is_enough(spread, duplicates, one_mode, word):
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (200, 64), dtype=np.uint8))
    vectors, modes = torch.from_numpy(rng.normal(size=(200, 8))), torch.arange(200) % 4
    reals = memorization.CollapseProbe(pixels, vectors, modes)
    other = torch.from_numpy(rng.integers(0, 256, (200, 64), dtype=np.uint8))
    samples = memorization.CollapseProbe(
        other[torch.arange(200) // 2] if duplicates else other,
        vectors * spread,
        modes * 0 if one_mode else modes,
    )
    assert memorization.find_collapse(samples, reals, ("a", "b", "c", "d")).collapse == word


def test_k_means_finds_separate_clusters():
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]]).double()
    truth = torch.arange(90) % 3
    found = memorization.k_means(centres[truth] + torch.randn(90, 2, generator=rng).double(), 3)
    pairs = {(int(a), int(b)) for a, b in zip(truth, found, strict=True)}
    assert len(pairs) == 3


def test_large_images_are_shrunk():
    images = torch.arange(64 * 64, dtype=torch.float32).view(1, 64, 64, 1).div(16).to(torch.uint8)
    assert memorization.pixel_vectors(images).shape == (1, 32 * 32)
    assert memorization.pixel_vectors(images.expand(-1, -1, -1, 3)).shape == (1, 16 * 16 * 3)
    assert memorization.pixel_vectors(images[:, :8, :8]).dtype == torch.uint8
