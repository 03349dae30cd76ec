"""The sampler `mfgp` on real studies: what it learns from, and that it repeats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from pipeline.records import PENALTY
from pipeline.search.samplers import to_optuna
from pipeline.search.space.parser import parse_space
from pipeline.search.study import suggest_params
from pipeline.search.surrogate.belief import belief_of
from pipeline.search.surrogate.curves import make_curve
from pipeline.search.surrogate.encoding import Encoder
from pipeline.search.surrogate.model import (
    STARTUP,
    expected_improvement,
    fit_model,
    spread_out,
    without_outliers,
)
from pipeline.search.surrogate.sampler import MfgpSampler

SPACE = parse_space("""
[fixed]
kimg = 8
[search]
lr_g = { float = [1e-5, 1e-2], log = true }
lr_d = { float = [1e-5, 1e-2], log = true }
width_g = { int = [8, 64], log = true }
loss = { choice = ["hinge", "lsgan", "wasserstein"] }
penalty = { choice = ["none", "r1"] }
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
""")
KNOWN = {name: to_optuna(d) for name, d in SPACE.search.items()}


def fid_of(params: dict[str, Any], kimg: int) -> float:
    """Best at lr_g = lr_d = 1e-3 with r1; falls with kimg."""
    off = abs(math.log10(params["lr_g"]) + 3) + abs(math.log10(params["lr_d"]) + 3)
    return 10 * math.exp(off) * (1.0 if params["penalty"] == "r1" else 2.0) * (1 + 4 / kimg)


def search(trials: int, seed: int, sampler: str = "mfgp", stopped_at: int = 8) -> optuna.Study:
    """A study of `trials`; all but every third are stopped at `stopped_at` kimg."""
    study = optuna.create_study()
    for number in range(trials):
        own = seed * 1000 + number
        if sampler == "mfgp":
            study.sampler = MfgpSampler(own, SPACE, KNOWN)
        else:
            study.sampler = optuna.samplers.RandomSampler(own)
        trial = study.ask()
        params = suggest_params(SPACE, trial)
        last = 8 if number % 3 == 0 else stopped_at
        for kimg in range(1, last + 1):
            trial.report(fid_of(params, kimg), kimg)
        if last == 8:
            study.tell(trial, fid_of(params, 8))
        else:
            study.tell(trial, state=TrialState.PRUNED)
    return study


def proposed(study: optuna.Study, seed: int) -> dict[str, Any]:
    """What the sampler alone proposes, before the space's conditions are applied; empty if at random."""
    trial = study.ask()
    return MfgpSampler(seed, SPACE, KNOWN).sample_relative(study, study.trials[trial.number], KNOWN)


def best_end(study: optuna.Study) -> float:
    return min(fid_of(trial.params, 8) for trial in study.trials)


@pytest.mark.parametrize("stopped_at", [8, 2])
def test_it_finds_better_points_than_random_draws(stopped_at: int) -> None:
    ours = [best_end(search(40, seed, stopped_at=stopped_at)) for seed in range(3)]
    random = [best_end(search(40, seed, "random")) for seed in range(3)]
    assert np.mean(np.log(ours)) < np.mean(np.log(random)) - 0.1


def test_proposals_have_the_parameters_whose_conditions_hold() -> None:
    study, penalties = search(30, 0), set()
    for number in range(20):
        params = proposed(study, number)
        if params:
            assert ("gamma" in params) == (params["penalty"] == "r1")
            penalties.add(params["penalty"])
    assert "r1" in penalties


def test_the_same_study_and_seed_give_the_same_point() -> None:
    first, second = search(STARTUP + 6, 3), search(STARTUP + 6, 3)
    assert [t.params for t in first.trials] == [t.params for t in second.trials]


def test_trials_that_are_asked_for_at_the_same_time_differ() -> None:
    """With the same candidates: what is pending makes them worth less."""
    study = search(20, 1)
    asked = []
    for _ in range(4):
        study.sampler = MfgpSampler(9000, SPACE, KNOWN)
        asked.append(suggest_params(SPACE, study.ask()))
    rates = {(float(p["lr_g"]), float(p["lr_d"])) for p in asked}
    assert len(rates) == 4


def test_diverged_and_failed_trials_are_no_trouble() -> None:
    study = optuna.create_study()
    for number in range(STARTUP + 4):
        study.sampler = MfgpSampler(number, SPACE, KNOWN)
        trial = study.ask()
        suggest_params(SPACE, trial)
        if number % 4 == 0:
            study.tell(trial, state=TrialState.FAIL)
        else:
            trial.report(1e6 if number % 4 == 1 else 50.0 + number, 1)
            study.tell(trial, state=TrialState.PRUNED)
    assert len(study.trials) == STARTUP + 4


def test_failed_trials_are_worse_than_the_only_one_with_a_fid() -> None:
    encoder, point = Encoder(SPACE), {"lr_d": 1e-4, "width_g": 16, "loss": "hinge", "penalty": "none"}
    good, *bad = [{**point, "lr_g": float(rate)} for rate in (2e-5, *np.geomspace(1e-3, 1e-2, 9))]
    curves = [make_curve(encoder, good, {1: 20.0}), *(make_curve(encoder, p, {1: PENALTY}) for p in bad)]
    model = fit_model(SPACE, encoder, curves, np.empty((0, encoder.width)))
    mean, _ = model.process.predict(np.array([encoder.vector(good), encoder.vector(bad[4])]))
    assert mean[0] < mean[1] - 0.05
    assert model.best == pytest.approx(math.log(20))


def test_a_failed_trial_is_none_that_it_learns_from() -> None:
    study = search(STARTUP - 1, 0)
    study.tell(study.ask(KNOWN), state=TrialState.FAIL)
    assert [proposed(study, number) for number in range(3)] == [{}] * 3
    assert proposed(search(STARTUP, 0), 0)


def test_how_bad_a_failure_is_does_not_matter() -> None:
    values = np.array([1.0, 2.0, 3.0, 14.0])
    assert without_outliers(values).tolist() == [1.0, 2.0, 3.0, 3.0]
    mostly_failed = np.array([3.0, 4.0, 5.0, *[math.log(1e6)] * 9])
    assert without_outliers(mostly_failed).max() == 5.0
    assert without_outliers(np.append(mostly_failed, 3.5)).max() == 4.5
    assert without_outliers(mostly_failed[2:]).tolist() == [5.0, *[6.0] * 9]
    assert without_outliers(mostly_failed[3:]).tolist() == mostly_failed[3:].tolist()


def test_what_an_enqueued_point_lacks_is_proposed_for_it() -> None:
    study = search(STARTUP + 10, 2)
    study.enqueue_trial({"lr_g": 2e-5, "penalty": "r1"})
    study.sampler = MfgpSampler(77, SPACE, KNOWN)
    params = suggest_params(SPACE, study.ask())
    assert params["lr_g"] == 2e-5
    assert params["penalty"] == "r1"
    assert "gamma" in params


def test_a_pruned_trial_without_a_report_is_not_pending() -> None:
    asked = []
    for pruned in (False, True):
        study = search(STARTUP + 10, 2)
        if pruned:
            trial = study.ask(KNOWN)
            study.tell(trial, state=TrialState.PRUNED)
        study.sampler = MfgpSampler(7, SPACE, KNOWN)
        asked.append(suggest_params(SPACE, study.ask()))
    assert asked[0] == asked[1]


def test_of_many_trials_the_best_and_some_of_the_rest_are_used() -> None:
    order = np.arange(100)[::-1]
    used = spread_out(order, 20)
    assert len(set(used)) == 20
    assert used[:10].tolist() == list(range(99, 89, -1))
    assert used[-1] == 0
    assert spread_out(order, 200) is order


def test_expected_improvement_is_that_of_a_normal_value() -> None:
    drawn = np.random.default_rng(0).normal(1.0, 0.5, 200_000)
    expected = np.maximum(0.8 - drawn, 0).mean()
    found = expected_improvement(np.array([1.0]), np.array([0.5]), 0.8)[0]
    assert found == pytest.approx(expected, rel=0.02)


def test_what_the_search_believes() -> None:
    trials = [(trial.params, trial.intermediate_values, False) for trial in search(60, 0).trials]
    found = belief_of(SPACE, trials)
    assert found is not None
    assert {*found.parameters[:2]} == {"lr_g", "lr_d"}
    assert found.low < found.fid < found.high
    assert found.point["penalty"] == "r1"
    assert abs(math.log10(float(found.point["lr_g"])) + 3) < 0.5
    assert belief_of(SPACE, trials[: STARTUP - 1]) is None
