"""Events of a run as arguments of MLflow's `log_batch`."""

from __future__ import annotations

from typing import Any

import pytest
from factories import record

from pipeline.tracking.log_batch import LIMITS, RunBatch, batch_events


def tick(kimg: int, time_ms: int, **changes: Any) -> dict[str, Any]:
    row = record(kimg, 100.0 - kimg, **changes)
    return {"event": "record", "trial": row.trial, "record": row.to_dict(), "time_ms": time_ms}


def test_events_become_metrics_parameters_and_tags() -> None:
    batch = batch_events(
        [
            {"event": "start", "trial": 0, "params": {"lr_g": 0.001}, "time_ms": 1},
            tick(5, 2),
            tick(10, 3, verdict="d_wins"),
            {"event": "failure", "trial": 0, "index": 1, "text": "boom", "time_ms": 4},
            {"event": "end", "trial": 0, "status": "KILLED", "cause": "pruned", "time_ms": 5},
        ]
    )
    assert batch.params == {"lr_g": 0.001}
    assert [row for row in batch.metrics if row[0] == "fid"] == [("fid", 95.0, 2, 5), ("fid", 90.0, 3, 10)]
    assert batch.tags == {
        "gansweep.verdict": "d_wins",
        "gansweep.failure.1": "boom",
        "gansweep.cause": "pruned",
    }


def test_the_end_of_a_sweep_brings_its_metrics_and_tags() -> None:
    batch = batch_events(
        [
            {
                "event": "finish",
                "status": "FINISHED",
                "metrics": {"best_fid": 8.5},
                "tags": {"a": "b"},
                "time_ms": 7,
            }
        ]
    )
    assert batch.metrics == [("best_fid", 8.5, 7, 0)]
    assert batch.tags == {"a": "b"}


def test_an_end_without_a_cause_adds_nothing() -> None:
    batch = batch_events([{"event": "end", "trial": 0, "status": "FINISHED", "cause": "", "time_ms": 1}])
    assert list(batch.calls()) == []


def test_a_damaged_record_raises() -> None:
    damaged = tick(5, 1)
    damaged["record"]["kimg"] = "five"
    with pytest.raises(ValueError, match="kimg"):
        batch_events([damaged])


def test_calls_stay_within_the_limits_and_lose_nothing() -> None:
    batch = RunBatch()
    for step in range(2000):
        batch.add(metrics={"fid": float(step)}, time_ms=step, step=step)
    batch.add(params={f"p{i}": i for i in range(250)}, tags={f"t{i}": "x" for i in range(150)})
    calls = list(batch.calls())
    assert len(calls) == 3
    for call in calls:
        assert all(len(call[name]) <= limit for name, limit in LIMITS.items())
        assert sum(map(len, call.values())) <= 1000
    assert [metric.step for call in calls for metric in call["metrics"]] == list(range(2000))
    assert {param.key for call in calls for param in call["params"]} == {f"p{i}" for i in range(250)}
    assert {tag.key for call in calls for tag in call["tags"]} == {f"t{i}" for i in range(150)}


def test_long_values_are_cut_to_what_mlflow_accepts() -> None:
    (call,) = RunBatch().add(params={"p": "x" * 9000}, tags={"t": "x" * 9000}).calls()
    assert (len(call["params"][0].value), len(call["tags"][0].value)) == (6000, 5000)
