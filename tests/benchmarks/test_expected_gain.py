"""The study of the expected gain: predictions are compared with what came after them, and are calibrated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import expected_gain


@pytest.mark.parametrize("name", ["bowl", "power", "learning"])
def test_the_mean_gain_is_within_a_factor_of_two_of_what_came(name: str) -> None:
    """Of made-up searches whose random process is stated in the benchmark."""
    searches = [expected_gain.made(name, seed) for seed in range(100, 130)]
    found = [one for trials in searches for one in expected_gain.predictions(trials, 1.0)]
    gain, came = (np.mean([getattr(one, key) for one in found]) for key in ("gain", "came"))
    assert came / 2 < gain < came * 2
    assert np.mean([one.chance for one in found]) == pytest.approx(
        np.mean([one.came > 0 for one in found]), abs=0.15
    )


def test_a_plateau_ends_a_search_with_little_to_find_and_loses_little() -> None:
    searches = [expected_gain.made("floor", seed) for seed in range(30)]
    stops = [expected_gain.plateau(trials, 1.0, 1.0) for trials in searches]
    found = [stop for stop in stops if stop]
    assert len(found) >= 27
    assert np.mean([stop.used for stop in found]) < 0.5
    assert np.mean([stop.lost for stop in found]) < 0.02


def test_what_came_is_looked_up_one_horizon_later() -> None:
    fids = [*[10.0] * 12, 5.0, 4.0]
    trials = [expected_gain.EndedTrial(1800.0 * (i + 1), fid) for i, fid in enumerate(fids)]
    assert [one.came for one in expected_gain.predictions(trials, 1.0)] == [pytest.approx(0.6)]


def test_searches_are_read_from_lines_and_from_replays(tmp_path: Path) -> None:
    file = tmp_path / "digits.jsonl"
    lines = [
        {"seconds": [1, 2], "fid": [9, None]},
        {"seed": 0, "trace": {"trials": [[1, 9, 4], [2, np.inf, 1]]}},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trials = [expected_gain.EndedTrial(1, 9), expected_gain.EndedTrial(2, None)]
    assert list(expected_gain.of_lines(file)) == [("digits", trials), ("digits", trials)]
