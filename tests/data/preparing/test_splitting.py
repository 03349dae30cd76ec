"""The split: constant, stratified, and without copies on both sides."""

import numpy as np
import pytest

from pipeline.data.preparing.splitting import Split, held_out, keep_copies_together, predict_split

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([500, 300, 200], [50, 30, 20]),
        ([1000, 2], [100, 1]),
        ([300, 1], [30, 0]),
        ([40, 40], [8, 8]),
        ([64], [16]),
        ([1000], [100]),
    ],
)
def test_split_is_stratified(counts: list[int], expected: list[int]) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    assert np.bincount(labels[held_out(labels)], minlength=len(counts)).tolist() == expected


def test_split_of_singletons_still_measures() -> None:
    assert int(held_out(np.arange(64)).sum()) == 16


def test_split_never_changes() -> None:
    # Golden: another split would make the fids of older sweeps incomparable. Raise VERSION with it.
    assert np.flatnonzero(held_out(1000))[:6].tolist() == [7, 11, 17, 34, 35, 37]
    few = np.flatnonzero(held_out(np.arange(100) % 7)).tolist()
    assert few == [21, 27, 29, 42, 45, 50, 59, 62, 65, 68, 74, 75, 77, 79, 88, 99]


def test_given_split_is_kept() -> None:
    given = np.arange(100) % 4 == 0
    split = predict_split(100, None, given)
    assert sorted(split.held.tolist()) == list(range(0, 100, 4))
    assert split.train.tolist() != sorted(split.train.tolist())  # shuffled


def sides(split: Split, count: int) -> np.ndarray:
    held = np.zeros(count, bool)
    held[split.held] = True
    assert sorted(np.concatenate(split).tolist()) == list(range(count))
    return held


def assert_together(held: np.ndarray, groups: np.ndarray) -> None:
    for group in np.unique(groups[groups >= 0]):
        assert len(set(held[groups == group].tolist())) == 1


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_every_image_several_times(copies: int) -> None:
    groups = np.tile(np.arange(300), copies)
    labels = np.tile(np.arange(300) % 5, copies)
    split = predict_split(len(groups), labels, None)
    together, moved = keep_copies_together(split, groups, labels, given=False)
    held = sides(together, len(groups))
    assert_together(held, groups)
    assert moved > 0
    assert abs(int(held.sum()) - len(split.held)) <= 5 * copies
    assert np.bincount(labels[held], minlength=5).min() >= 6 * copies - copies


def test_many_small_classes_of_pairs_keep_the_number_of_held_out_images() -> None:
    groups = np.repeat(np.arange(500), 2)
    labels = groups % 100  # ten images each, one of them held out
    split = predict_split(1000, labels, None)
    together, _ = keep_copies_together(split, groups, labels, given=False)
    held = sides(together, 1000)
    assert_together(held, groups)
    assert 90 <= int(held.sum()) <= 110


def test_few_copies_move_few_rows() -> None:
    groups = np.full(1000, -1)
    groups[[3, 500]], groups[[7, 8, 9]], groups[[11, 12]] = 0, 1, 2  # 7 and 11 are held out, see above
    split = predict_split(1000, None, None)
    together, moved = keep_copies_together(split, groups, None, given=False)
    assert_together(sides(together, 1000), groups)
    assert moved == 2
    assert [len(part) for part in together] == [900, 100]
    assert int((together.train != split.train).sum() + (together.held != split.held).sum()) <= 8


def test_copies_of_a_given_split_go_to_training() -> None:
    given = np.arange(200) >= 150
    groups = np.full(200, -1)
    groups[[0, 199]], groups[[151, 152]] = 0, 1
    together, moved = keep_copies_together(predict_split(200, None, given), groups, None, given=True)
    held = sides(together, 200)
    assert (moved, int(held.sum()), held[199], held[151], held[152]) == (1, 49, False, True, True)


def test_no_copies_change_nothing() -> None:
    split = predict_split(500, None, None)
    together, moved = keep_copies_together(split, np.full(500, -1), None, given=False)
    assert moved == 0
    assert np.array_equal(together.train, split.train)
    assert np.array_equal(together.held, split.held)


@pytest.mark.parametrize("seed", range(5))
def test_any_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.where(rng.random(400) < 0.5, rng.integers(0, 60, 400), -1)
    labels = rng.integers(0, 4, 400)
    split = predict_split(400, labels, None)
    together, _ = keep_copies_together(split, groups, labels, given=False)
    held = sides(together, 400)
    assert_together(held, groups)
    assert 20 <= int(held.sum()) <= 80
