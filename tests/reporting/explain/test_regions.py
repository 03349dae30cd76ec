"""The region of the best trials, the bounds that they are near, and the narrowed space."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
from histories import POINT, bare_trial, best_of, finished_sweep, history_of, trial_view
from sweep_folders import summary_of

from pipeline.errors import SpaceError
from pipeline.reporting.explain.narrative import next_file
from pipeline.reporting.explain.regions import best_trials, narrowed_space, position, regions, value_at
from pipeline.search.space.builtin import builtin_spaces, load_space
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution
from pipeline.search.space.parser import parse_space


def test_narrowing_needs_a_space_and_three_trials_with_a_fid() -> None:
    with pytest.raises(SpaceError, match="0 trials have a fid.* 3"):
        narrowed_space(history_of(bare_trial(0, "failed", "boom")))
    with pytest.raises(SpaceError, match=r"space cannot be read.*sweep\.toml"):
        narrowed_space(history_of(*(trial_view(n, [9.0]) for n in range(3)), space=None))


def test_bounds_widen_where_the_best_trials_are_near_them_and_narrow_elsewhere() -> None:
    best = [trial_view(n, [20.5 + n], params={**POINT, "lr_g": 9.9e-3, "width_g": 20 + n}) for n in (1, 2)]
    lost = [trial_view(n, [90.0], params={**POINT, "loss": "minimax"}) for n in range(3, 9)]
    history = dataclasses.replace(finished_sweep(*best, *lost), summary=summary_of(best=best_of(1)))
    found = {region.name: region for region in regions(history, best_trials(history))}
    assert (found["lr_g"].hit, found["lr_g"].bound, found["width_g"].hit) == ("high", 1e-2, "")
    after = narrowed_space(history)
    assert after.search["lr_g"].high == pytest.approx(0.1, rel=0.1)
    assert after.search["lr_d"].low > 1e-4
    assert after.search["lr_d"].high < 1e-2
    assert after.search["width_g"].low > 8
    assert after.search["width_g"].high < 64
    assert after.search["loss"].choices == ("nonsaturating", "hinge"), "never tried: kept; lost: dropped"
    assert after.search["penalty"].choices == ("none", "r1")
    assert after.enqueue[0]["lr_g"] == 9.9e-3


def test_a_parameter_whose_condition_cannot_be_met_any_more_is_dropped() -> None:
    point = {k: v for k, v in {**POINT, "penalty": "none"}.items() if k != "gamma"}
    best = [trial_view(n, [20.5 + n], params=point) for n in (1, 2, 3)]
    lost = [trial_view(n, [90.0 + n]) for n in range(4, 12)]
    after = narrowed_space(history_of(*best, *lost))
    assert after.fixed["penalty"] == "none"
    assert "gamma" not in after.search


@pytest.mark.parametrize("name", sorted(builtin_spaces()))
def test_a_narrowed_space_is_valid_and_contains_the_best_points(name: str) -> None:
    space, rng = load_space(name), random.Random(name)
    for _ in range(20):
        trials = [
            trial_view(n, [rng.uniform(1, 99)], params=random_point(space, rng))
            for n in range(rng.randint(3, 30))
        ]
        history = history_of(*trials, space=space)
        after = parse_space(next_file(history))
        assert len(after.enqueue) == 3
        kept = {k: v for k, v in history.trials[0].params.items() if k in after.search}
        assert dict(after.enqueue[0]) == pytest.approx(kept)
        after.config(after.enqueue[0])


def random_point(space: Space, rng: random.Random) -> dict[str, Any]:
    point: dict[str, Any] = {}
    for name, d in space.search.items():
        if space.active(name, point):
            value = rng.choice(d.choices) if d.choices else value_at(d, rng.random() ** 3)
            point[name] = round(value) if d.whole else value
    return point


@pytest.mark.parametrize("log", [False, True])
def test_positions_in_a_range(log: bool) -> None:
    d = Distribution(low=1.0, high=100.0, log=log)
    assert (position(d, 1.0), position(d, 100.0)) == (0.0, 1.0)
    assert value_at(d, position(d, 7.0)) == pytest.approx(7.0)
    assert value_at(d, 0.5) == pytest.approx(10.0 if log else 50.5)
    assert math.isclose(value_at(d, 1.5), 1000.0 if log else 149.5)
