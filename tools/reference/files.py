"""files.md: every file of a sweep's folder, of a trial, of a packed generator; the keys of a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pipeline.config import SweepPaths
from pipeline.records import METRICS, VERDICTS, TrialRecord
from pipeline.tracking.registry.pack import PACKED_FILES
from pipeline.training.checkpoint import FAILURE_KINDS, TRIAL_FILES
from tools.reference.markdown import code, page, table, text

_SWEEP = """
`gansweep run --out DIR --name NAME` makes the folder `DIR/NAME`. Every file is written under a temporary name
and renamed, so a reader never sees half a file; `.jsonl` files grow by whole lines.
[`gansweep rm`](cli/rm.md) deletes what is listed here, and no file of yours.
"""
_TRIAL = "A folder of `trials`, `finals` or `reruns` holds:"
_PACKED = "The folder `champion` holds what every registered version holds:"


def pages() -> dict[str, str]:
    """The page by its path below docs/reference/."""
    parts = [_SWEEP, _table(SweepPaths.files())]
    parts += ["## A trial", _TRIAL, _table(TRIAL_FILES)]
    parts += ["Kinds of failures: " + ", ".join(map(code, FAILURE_KINDS)) + "."]
    parts += ["## A packed generator", _PACKED, _table(PACKED_FILES)]
    parts += ["## A record", _record()]
    return {"files.md": page("Files of a sweep", *parts)}


def _table(meanings: Mapping[str, str]) -> str:
    return table(("name", "meaning"), [(code(name), text(meaning)) for name, meaning in meanings.items()])


def _record() -> str:
    """The keys of a line of records.jsonl."""
    intro = (TrialRecord.__doc__ or "").split("\n\n")[1]
    verdicts = "Verdicts: " + ", ".join(map(code, VERDICTS)) + "."
    others = [field.name for field in dataclasses.fields(TrialRecord) if field.name not in METRICS]
    start = f"A line of `records.jsonl` has the keys {', '.join(map(code, others))} and:"
    rows = [(code(name), text(metric.describe())) for name, metric in METRICS.items()]
    return "\n\n".join([start, table(("key", "meaning"), rows), text(intro), verdicts])
