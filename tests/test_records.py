"""The record of a tick: stable names, only finite metrics, a round trip through JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import METRICS, PENALTY, VERDICTS, Metric, TrialRecord, objective_of

OPTIONAL = ("fid", "best_fid", "best_kimg")
FLOATS = [f.name for f in dataclasses.fields(TrialRecord) if f.type == "float"]
MEASURED = [f.name for f in dataclasses.fields(TrialRecord) if f.type == "float | None"]


def row(**changed: Any) -> TrialRecord:
    values: dict[str, Any] = {name: 0.25 + i for i, name in enumerate(FLOATS + MEASURED)}
    return TrialRecord(**{**values, "trial": 3, "kimg": 40, "verdict": "healthy", "best_kimg": 20, **changed})


def same(a: object, b: object) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def test_metric_names_do_not_change() -> None:
    """A metric is a chart in MLflow and a column in old sweeps."""
    assert list(METRICS) == [
        "objective", "fid", "best_fid", "balance", "auc", "overfit", "score_real", "score_fake",
        "sign_real", "sign_fake", "accuracy_real", "accuracy_fake", "loss_d", "loss_g", "penalty",
        "grad_norm_d", "grad_norm_g", "diversity", "augment_p", "control", "images_per_sec",
        "train_seconds", "eval_seconds",
    ]  # fmt: skip


def test_verdicts_do_not_change() -> None:
    assert VERDICTS == ("healthy", "d_wins", "g_wins", "collapsed", "diverged")


def test_every_number_of_a_record_is_a_metric_with_direction_and_meaning() -> None:
    others = {"trial", "kimg", "verdict", "best_kimg"}
    assert {f.name for f in dataclasses.fields(TrialRecord)} == METRICS.keys() | others
    assert all(
        row.better in ("min", "max", "") and len(row.meaning) > 8 and row.low < row.high and not row.target
        for row in METRICS.values()
    )
    assert all(METRICS[name].better == "min" for name in ("fid", "best_fid", "objective"))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Metric(meaning="copies", better="min", low=0, high=1), "0..1, lower is better: copies"),
        (Metric(meaning="speed", better="max", low=0), "0 and up, higher is better: speed"),
        (Metric(meaning="kid", better="min"), "lower is better: kid"),
        (Metric(meaning="control", low=-1, high=1), "-1..1: control"),
        (Metric(meaning="loss of D"), "loss of D"),
    ],
)
def test_a_metric_says_its_range_and_direction(row: Metric, text: str) -> None:
    assert row.describe() == text


def test_metrics_are_all_finite_numbers() -> None:
    assert row().metrics() == {name: getattr(row(), name) for name in METRICS}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FLOATS)
def test_metrics_leave_out_what_is_not_finite(name: str, value: float) -> None:
    assert row(**{name: value}).metrics().keys() == METRICS.keys() - {name}


def test_metrics_leave_out_what_was_not_measured() -> None:
    assert row(fid=None, best_fid=None, best_kimg=None).metrics().keys() == METRICS.keys() - {
        "fid",
        "best_fid",
    }


def test_json_is_one_line_of_standard_json() -> None:
    text = row(loss_d=math.nan, auc=math.inf, fid=None).to_json()
    assert "\n" not in text
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (values["loss_d"], values["auc"], values["fid"], values["trial"]) == (None, None, None, 3)
    assert list(values) == [field.name for field in dataclasses.fields(TrialRecord)]


def test_nan_goes_through_json_as_null() -> None:
    back = TrialRecord.from_dict(json.loads(row(loss_d=math.nan, grad_norm_g=math.inf, fid=None).to_json()))
    assert math.isnan(back.loss_d)
    assert math.isnan(back.grad_norm_g)
    assert back.fid is None
    assert dataclasses.replace(back, loss_d=0.0, grad_norm_g=0.0) == row(
        loss_d=0.0, grad_norm_g=0.0, fid=None
    )


@given(
    st.fixed_dictionaries({name: st.floats(allow_infinity=False) for name in FLOATS}),
    st.fixed_dictionaries({name: st.none() | st.floats(0, 1e6) for name in MEASURED}),
    st.none() | st.integers(1, 10**6),
    st.sampled_from(VERDICTS),
)
def test_any_record_goes_through_json(
    numbers: dict[str, float], measured: dict[str, float | None], best_kimg: int | None, verdict: str
) -> None:
    record = row(**numbers, **measured, best_kimg=best_kimg, verdict=verdict)
    back = TrialRecord.from_dict(json.loads(record.to_json()))
    for name, value in dataclasses.asdict(record).items():
        assert same(getattr(back, name), value), name


def test_records_of_other_versions_are_read() -> None:
    values = row().to_dict()
    del values["diversity"], values["fid"]
    back = TrialRecord.from_dict({**values, "of_the_future": 1})
    assert math.isnan(back.diversity)
    assert back.fid is None
    assert back.kimg == 40


@pytest.mark.parametrize(
    ("best", "objective"),
    [
        (12.5, 12.5),
        (0.0, 0.0),
        (None, PENALTY),
        (math.nan, PENALTY),
        (math.inf, PENALTY),
        (-math.inf, PENALTY),
    ],
)
def test_the_objective_is_the_best_fid_or_the_penalty(best: float | None, objective: float) -> None:
    assert objective_of(best) == objective


def test_every_real_fid_is_better_than_the_penalty() -> None:
    assert math.isfinite(PENALTY)
    assert objective_of(99_999.0) < objective_of(None)


@pytest.mark.parametrize(
    ("name", "value"), [("fid", "3"), ("kimg", [1]), ("auc", True), ("verdict", 3), ("best_fid", {})]
)
def test_a_value_of_the_wrong_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        TrialRecord.from_dict({"trial": 0, "kimg": 1, "verdict": "healthy", name: value})


@pytest.mark.parametrize("name", ["trial", "kimg", "verdict"])
def test_what_is_no_measurement_must_be_there(name: str) -> None:
    values = {key: value for key, value in row().to_dict().items() if key != name}
    with pytest.raises(ValueError, match=f"{name} = None"):
        TrialRecord.from_dict(values)
