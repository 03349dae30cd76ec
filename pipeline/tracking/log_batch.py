"""Events of one run as arguments of as few `MlflowClient.log_batch` calls as possible."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.records import TrialRecord
from pipeline.tracking.event_log import Event

LIMITS = {"metrics": 800, "params": 100, "tags": 100}
"""Most items of one call: MLflow accepts 100 parameters, 100 tags and 1,000 items in total."""


@dataclass
class RunBatch:
    """Metrics, parameters and tags to log to one run.

    Each value keeps its event's time, so that logging it twice changes nothing.
    """

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)  # name, value, time_ms, step
    params: dict[str, object] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        time_ms: int = 0,
        step: int = 0,
    ) -> RunBatch:
        """Add these; of a parameter or tag that is given twice the last value counts. Returns itself."""
        self.metrics += [(name, float(value), time_ms, step) for name, value in (metrics or {}).items()]
        self.params |= params or {}
        self.tags |= tags or {}
        return self

    def calls(self) -> Iterator[dict[str, Any]]:
        """Yield the keyword arguments of each `log_batch` call."""
        from mlflow.entities import Metric, Param, RunTag

        rows: dict[str, list[Any]] = {
            "metrics": [Metric(*row) for row in self.metrics],
            "params": [Param(key, str(value)[:6000]) for key, value in self.params.items()],
            "tags": [RunTag(key, str(value)[:5000]) for key, value in self.tags.items()],
        }
        for index in itertools.count():
            call = {name: items[index * LIMITS[name] :][: LIMITS[name]] for name, items in rows.items()}
            if not any(call.values()):
                return
            yield call


def batch_events(events: Sequence[Event]) -> RunBatch:
    """What to log for these events of one run.

    Raises:
        ValueError: a record has unknown fields or impossible values.
    """
    batch = RunBatch()
    for event in events:
        match event["event"]:
            case "start":
                batch.add(params=event["params"])
            case "record":
                record = TrialRecord.from_dict(event["record"])
                tags = {"gansweep.verdict": record.verdict}
                batch.add(metrics=record.metrics(), tags=tags, time_ms=event["time_ms"], step=record.kimg)
            case "failure":
                batch.add(tags={f"gansweep.failure.{event['index']}": event["text"]})
            case "end" if event.get("cause"):
                batch.add(tags={"gansweep.cause": event["cause"]})
            case "finish":
                batch.add(
                    metrics=event.get("metrics"), tags=event.get("tags"), time_ms=event.get("time_ms", 0)
                )
    return batch
