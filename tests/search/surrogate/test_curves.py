"""Where unfinished learning curves would end."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from pipeline.records import PENALTY
from pipeline.search.space.parser import parse_space
from pipeline.search.surrogate.curves import Curve, curves_of, extrapolate, make_curve
from pipeline.search.surrogate.encoding import Encoder

SPACE = parse_space("[search]\nlr_g = { float = [1e-5, 1e-2], log = true }")


def curve(*values: float, step: int = 1) -> Curve:
    return Curve(np.zeros(1), step * np.arange(1, len(values) + 1), np.array(values, float))


def test_a_full_curve_ends_where_it_ends() -> None:
    ends = extrapolate([curve(3, 2, 1.5), curve(4, 4, 4)], 3)
    assert ends.values.tolist() == [1.5, 4]
    assert ends.variances.tolist() == [0, 0]


def test_a_stopped_curve_falls_as_the_others_did() -> None:
    full = [curve(3, 2, 1.5) for _ in range(5)]
    ends = extrapolate([*full, curve(5), curve(4, 3)], 3)
    assert ends.values[-2:].tolist() == pytest.approx([3.5, 2.5])


def test_a_curve_of_failed_training_ends_where_it_is() -> None:
    full = [curve(3, 2, 1.5) for _ in range(5)]
    failed = Curve(np.zeros(1), np.array([1]), np.array([5.0]), over=True)
    ends = extrapolate([*full, failed], 3)
    assert (ends.values[-1], ends.variances[-1]) == (5.0, 0.0)


def test_before_any_trial_is_complete_its_end_is_uncertain() -> None:
    ends = extrapolate([curve(3, 2.5), curve(4, 3.5)], 8)
    assert ends.values.tolist() == [2.5, 3.5]
    assert (ends.variances > 0).all()


def test_the_earlier_a_curve_was_stopped_the_less_is_known() -> None:
    full = [curve(3, 2 + 0.1 * i, 1.5 - 0.1 * i) for i in range(6)]
    variances = extrapolate([*full, curve(3), curve(3, 2)], 3).variances
    assert variances[-2] > variances[-1] > variances[0] == 0


def test_little_is_known_before_others_went_on() -> None:
    ends = extrapolate([curve(3), curve(4)], 3)
    assert ends.values.tolist() == [3, 4]


def test_reports_at_other_steps_are_filled_by_the_one_before() -> None:
    sparse = Curve(np.zeros(1), np.array([1, 4]), np.array([3.0, 1.0]))
    ends = extrapolate([sparse, curve(3, 2.5, 2, 1), curve(3, 2)], 4)
    assert np.isfinite(ends.values).all()
    assert ends.values[0] == 1.0
    assert ends.values[2] < 2.0


def test_curves_of_a_study_are_logs_and_ended_ones_are_kept() -> None:
    study = optuna.create_study()
    for value in (8.0, 0.0):
        trial = study.ask()
        trial.suggest_float("lr_g", 1e-5, 1e-2, log=True)
        trial.report(value, step=2)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    first = curves_of(study, study.trials, Encoder(SPACE))
    assert first[0].kimg.tolist() == [2]
    assert first[0].values.tolist() == [pytest.approx(math.log(8))]
    assert np.isfinite(first[1].values).all()
    assert curves_of(study, study.trials, Encoder(SPACE))[0] is first[0]


def test_ticks_without_a_fid_say_nothing_of_how_curves_fall() -> None:
    late = make_curve(Encoder(SPACE), {"lr_g": 1e-3}, {1: PENALTY, 2: 200.0, 3: 150.0})
    assert late.kimg.tolist() == [2, 3]
    full = [curve(*np.log([201, 50, 12.2])) for _ in range(5)]
    ends = extrapolate([*full, late, curve(math.log(200))], 3)
    assert math.exp(ends.values[-1]) == pytest.approx(12.2, rel=0.3)


def test_a_trial_without_any_fid_stays_without() -> None:
    never = make_curve(Encoder(SPACE), {"lr_g": 1e-3}, {1: PENALTY, 2: PENALTY})
    ends = extrapolate([*[curve(3, 2, 1.5) for _ in range(5)], never], 3)
    assert ends.values[-1] == pytest.approx(math.log(PENALTY))
    assert never.over
