"""What one run of MLflow is told of several events, in as few calls as it takes.

Owns: what of an event becomes a metric, a parameter or a tag; the limits of one `log_batch`. Refuses:
making runs, sending.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.records import TrialRecord
from pipeline.tracking.event_log import Event

LIMITS = {"metrics": 800, "params": 100, "tags": 100}
"""MLflow takes 100 parameters, 100 tags and 1,000 things in all at a time."""


@dataclass
class RunBatch:
    """All that a run is to be told. Each value keeps its event's time, so that a repetition is harmless."""

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
        """Take these in as well; of parameters and tags the last one counts."""
        self.metrics += [(name, float(value), time_ms, step) for name, value in (metrics or {}).items()]
        self.params |= params or {}
        self.tags |= tags or {}
        return self

    def calls(self) -> Iterator[dict[str, Any]]:
        """The arguments of one `log_batch` after the other."""
        from mlflow.entities import Metric, Param, RunTag

        all_of: dict[str, list[Any]] = {
            "metrics": [Metric(*row) for row in self.metrics],
            "params": [Param(key, str(value)[:6000]) for key, value in self.params.items()],
            "tags": [RunTag(key, str(value)[:5000]) for key, value in self.tags.items()],
        }
        for turn in itertools.count():
            part = {name: rows[turn * LIMITS[name] :][: LIMITS[name]] for name, rows in all_of.items()}
            if not any(part.values()):
                return
            yield part


def batch_events(events: Sequence[Event]) -> RunBatch:
    """What these events of one run tell.

    Raises:
        ValueError: a record holds what no record holds.
    """
    told = RunBatch()
    for event in events:
        match event["event"]:
            case "start":
                told.add(params=event["params"])
            case "record":
                row = TrialRecord.from_dict(event["record"])
                tags = {"gansweep.verdict": row.verdict}
                told.add(metrics=row.metrics(), tags=tags, time_ms=event["time_ms"], step=row.kimg)
            case "failure":
                told.add(tags={f"gansweep.failure.{event['index']}": event["text"]})
            case "end" if event.get("cause"):
                told.add(tags={"gansweep.cause": event["cause"]})
            case "finish":
                told.add(
                    metrics=event.get("metrics"), tags=event.get("tags"), time_ms=event.get("time_ms", 0)
                )
    return told
