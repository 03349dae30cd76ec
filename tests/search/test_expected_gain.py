"""What one more hour should bring: its laws, what it needs, and where its seconds come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from trial_managers import make_manager, tick

from pipeline.search.expected_gain import (
    MIN_TRIALS,
    PLATEAU_TRIALS,
    SEARCH_SECONDS,
    EndedTrial,
    EndedTrials,
    expected_gain,
    place_in_time,
)
from pipeline.search.trial_manager import TrialManager
from pipeline.storage.summary_file import ExpectedGain
from pipeline.training.checkpoint import TrialFolder


def search(fids: Sequence[float | None], apart: float = 600.0) -> list[EndedTrial]:
    """A search whose trials end so many seconds after one another."""
    return [EndedTrial(apart * (i + 1), fid) for i, fid in enumerate(fids)]


def random_fids(seed: int, count: int = 40) -> list[float]:
    return list(np.exp(3 + 0.5 * np.random.default_rng(seed).normal(size=count)))


def gain_of(trials: Sequence[EndedTrial], hours: float = 1.0) -> float:
    found = expected_gain(trials, hours).gain
    assert found is not None
    return found


def test_too_few_trials_with_a_fid_are_counted() -> None:
    few = expected_gain(search([10.0] * (MIN_TRIALS - 1) + [None] * 30))
    assert (few.trials, few.needed, few.gain, few.chance) == (MIN_TRIALS - 1, MIN_TRIALS, None, None)
    assert str(few) == "not known yet (11 of 12 trials with a fid)"
    assert expected_gain(search([10.0] * MIN_TRIALS)).gain == 0
    assert expected_gain([]).gain is None


def test_trials_that_all_ended_at_once_have_no_rate() -> None:
    none = expected_gain(search([10.0] * 20, apart=0.0))
    assert none.gain is None
    assert str(none) == "not known"


def test_the_unit_of_fid_and_the_clock_do_not_matter() -> None:
    fids = random_fids(0)
    gain = gain_of(search(fids))
    assert gain_of(search([1000 * fid for fid in fids])) == pytest.approx(gain)
    assert gain_of(search(fids, apart=1200.0), hours=2.0) == pytest.approx(gain)


def test_more_time_brings_more_with_a_falling_return() -> None:
    trials = search(random_fids(1))
    gains = [gain_of(trials, hours) for hours in (0.5, 1.0, 2.0, 4.0)]
    assert gains == sorted(gains)
    assert gains[1] < 2 * gains[0]


def test_a_search_that_still_falls_promises_more_than_one_that_stands() -> None:
    falling = [50 * 0.95**i for i in range(40)]
    standing = sorted(falling[20:], reverse=True)[::-1] * 2  # the best came first
    found, stood = expected_gain(search(falling)), expected_gain(search(standing))
    assert found.gain is not None
    assert stood.gain is not None
    assert found.gain > 2 * stood.gain > 0
    assert (found.chance or 0) > 0.8 > 2 * (stood.chance or 0)
    assert found.fid == pytest.approx(falling[-1] * (1 - found.gain), rel=1e-4)


def test_the_rate_is_that_of_the_second_half() -> None:
    slow, fast = search([10.0] * 20, apart=3600.0), 20 * 3600.0
    trials = [*slow, *(EndedTrial(fast + 360.0 * (i + 1), 10.0) for i in range(20))]
    assert expected_gain(trials).trials_per_hour == pytest.approx(10.0)


@pytest.mark.parametrize("fids", [[0.0] * 20, [1e-12, *[5.0] * 19], [1e300] * 20])
def test_extreme_fids_give_finite_numbers(fids: list[float]) -> None:
    found = expected_gain(search(fids))
    assert 0 <= (found.gain or 0) <= 1
    assert 0 <= (found.chance or 0) <= 1
    assert str(found)


def test_what_is_said() -> None:
    known = ExpectedGain(trials=34, needed=12, gain=0.0312, chance=0.6, fid=12.104)
    assert str(known) == "best fid -3.1 % (about 12.1), 60 % chance of any gain"


def test_trials_of_unknown_ends_are_placed_by_their_work_before_the_known_ones() -> None:
    placed = place_in_time(
        [
            EndedTrial(None, 9.0, 10.0),
            EndedTrial(500.0, 7.0),
            EndedTrial(None, 8.0, 30.0),
            EndedTrial(450.0, 6.0),
        ],
        400.0,
    )
    assert [(trial.seconds, trial.fid) for trial in placed] == [(100, 9), (400, 8), (450, 6), (500, 7)]


def test_a_plateau_has_to_last_for_a_quarter_of_the_trials() -> None:
    """One low estimate alone is no plateau: the highest of the last quarter counts."""
    ended, gains = EndedTrials(), []
    for trial in search(random_fids(5, 60)):
        ended.add(trial.seconds, trial.fid, 0.0)
        gains.append(ended.one_more_hour.gain)
        plateau = ended.one_more_hour.plateau
        assert (plateau is None) == (len(gains) < PLATEAU_TRIALS)
        if plateau is not None:
            assert plateau == max(gain for gain in gains[-(len(gains) // 4) :] if gain is not None)


def run_one(root: Path, number: int, fid: float) -> TrialManager:
    """A process that runs one trial, ten minutes of search after the one before."""
    manager = make_manager(root, spent_sec=600.0 * number, trials=99)
    assert manager.ask() is not None
    row = tick(number, 1, fid)
    TrialFolder(root / f"trials/{number}").append(row)
    manager.report(row)
    manager.finish(number)
    return manager


def test_the_second_of_an_end_is_kept_in_the_study_over_every_resume(tmp_path: Path) -> None:
    fids = random_fids(2, 16)
    for number, fid in enumerate(fids):
        last = run_one(tmp_path, number, fid)
    again = make_manager(tmp_path, spent_sec=99_999.0, trials=99)
    ends = [trial.user_attrs[SEARCH_SECONDS] for trial in again.study.get_trials()]
    assert ends == pytest.approx([600.0 * number for number in range(16)], abs=5.0)
    assert again.one_more_hour == last.one_more_hour
    assert again.one_more_hour.trials_per_hour == pytest.approx(6.0, rel=0.02)
