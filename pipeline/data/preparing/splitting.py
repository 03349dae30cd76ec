"""Which images are held out of training. The split is constant, and copies of an image never lie on both
sides.

A generator that copies its training images is found by comparison with held-out images; D's `overfit` and
`fid_held` compare the two sides too. A held-out image that was trained on would blind all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.data.source_types import Labels

Mask = npt.NDArray[np.bool_]

SPLIT_SEED = 1406_2661
"""Constant, so that every sweep on the same images trains and measures on the same split."""
MIN_HELD_OUT, HELD_OUT_FRACTION = 16, 0.1


class Split(NamedTuple):
    """Rows of the source, int64: those trained on and those held out, each in a constant shuffled order."""

    train: Labels
    held: Labels


def predict_split(count: int, labels: Labels | None, given: Mask | None) -> Split:
    """The split of `count` images of which no two are copies. labels: int64 (N,). given: the source's own."""
    held = given if given is not None else held_out(count if labels is None else labels)
    # Shuffled once: sources are often sorted by class, and then no prefix would be a fair sample.
    order = shuffled(count)
    return Split(order[~held[order]], order[held[order]])


def keep_copies_together(
    split: Split, groups: Labels, labels: Labels | None, *, given: bool
) -> tuple[Split, int]:
    """The split with every group of copies on one side; and how many groups lay on both.

    A group goes to training where the source gave the split; else to the side that keeps the number of
    held-out images of its class, or of all classes together. Images without copies fill up a class.

    groups: int64 (N,), the same number for copies of one image, -1 for images without copies.
    """
    held = np.zeros(len(groups), bool)
    held[split.held] = True
    wanted, moved = held.copy(), 0
    shortage: dict[int, int] = {}  # by class: held-out images that it has lost, less those it has won
    owed = 0  # the same of all classes together
    for members in _groups_of(groups):
        count = int(held[members].sum())
        if count in (0, len(members)):
            continue
        moved += 1
        label = -1 if labels is None else int(labels[members[0]])
        lost, others = shortage.get(label, 0), len(members) - count
        joins = not given and lost >= 0 and max(lost, owed) >= others
        wanted[members] = joins
        shortage[label] = lost + (-others if joins else count)
        owed += -others if joins else count
    if not given:
        single = split.train[groups[split.train] < 0]
        for label, rows in _by_class(single, labels):
            # A class keeps at least half of its own images for training.
            missing = max(0, min(shortage.get(label, 0), owed, len(rows) // 2))
            wanted[rows[:missing]] = True
            owed -= missing
    return _exchange(split, held, wanted), moved


def _groups_of(groups: Labels) -> list[Labels]:
    """The members of each group, int64, in the order of the first member."""
    rows = np.flatnonzero(groups >= 0)
    if not len(rows):
        return []
    rows = rows[np.argsort(groups[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[rows])) + 1
    return sorted(np.split(rows, starts), key=lambda members: int(members[0]))


def _by_class(rows: Labels, labels: Labels | None) -> Iterator[tuple[int, Labels]]:
    """Each class with its own of `rows`, in their order; -1 with all of them where there are no labels."""
    if labels is None or not len(rows):
        yield -1, rows
        return
    rows = rows[np.argsort(labels[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[rows])) + 1
    for members in np.split(rows, starts):
        yield int(labels[members[0]]), members


def _exchange(split: Split, before: Mask, after: Mask) -> Split:
    """Rows that change sides take each other's places, so that few rows of a prepared file change."""
    return Split(
        _replace(split.train, split.train[after[split.train]], split.held[~after[split.held]]),
        _replace(split.held, split.held[~after[split.held]], split.train[after[split.train]]),
    )


def _replace(rows: Labels, leaving: Labels, entering: Labels) -> Labels:
    rows, shared = rows.copy(), min(len(leaving), len(entering))
    rows[np.isin(rows, leaving[:shared])] = entering[:shared]
    return np.concatenate([rows[~np.isin(rows, leaving[shared:])], entering[shared:]])


def held_out(labels: Labels | int) -> Mask:
    """Which images are held out of training: bool (N,), the same for the same labels (or count).

    A tenth of every class, and at least one of a class that has two. If that is less than `MIN_HELD_OUT` in
    all, more are taken from all classes in proportion: a class loses its last training image last of all.
    """
    labels = np.zeros(labels, np.int64) if isinstance(labels, int) else labels
    order = shuffled(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, shuffled within
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    sizes = np.repeat(counts, counts)
    rank = np.arange(len(labels)) - np.repeat(first, counts)
    quota = np.maximum(np.rint(HELD_OUT_FRACTION * sizes), sizes >= 2)
    # Quota first, then by the fraction of its class that is held out with this image.
    taken = np.lexsort(((rank + 1) / sizes, rank >= quota))[: max(MIN_HELD_OUT, int((rank < quota).sum()))]
    held = np.zeros(len(labels), bool)
    held[order[taken]] = True
    return held


def shuffled(n: int) -> Labels:
    """A constant permutation of 0..n-1, int64."""
    # RandomState's stream is frozen across numpy versions; Generator's is not.
    return np.random.RandomState(SPLIT_SEED).permutation(n).astype(np.int64)
