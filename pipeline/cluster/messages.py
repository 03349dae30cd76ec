"""What the driver sends to the workers of a sweep, and what they report. All of it is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from pipeline.cluster.shared_objects import SharedRefs
from pipeline.config import SweepConfig
from pipeline.records import TrialRecord
from pipeline.training.events import TrialEvent
from pipeline.training.finalists import FinalistRun

Line = tuple[int, str]
"""A line of a worker's log: a level of `logging`, and the text."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What all trials and finalists of a sweep have in common.

    root: the sweep's folder. store: the URL of the object store that the sweep lives in, empty = none; the
    files of a record are uploaded before it is reported. config: of the sweep. fixed: hyper-parameters that
    are not searched. threads: of the CPU. mps: how many trials share a GPU by `pipeline.cluster.mps`, 0 = no
    MPS. shared_refs: the images, the evaluator and the user's code.
    """

    root: str
    store: str
    config: SweepConfig
    fixed: Mapping[str, object]
    threads: int
    mps: int
    shared_refs: SharedRefs


class Suggestion(TypedDict):
    """A trial's number and its searched hyper-parameters."""

    number: int
    params: Mapping[str, object]


class TrialReport(TypedDict):
    """What a trial reports to Tune at a tick, or at its end if it cannot go on (`failure`, the reason).

    events, lines: of the trial and of its log since the last report. node: the id of its node.
    """

    objective: float
    record: NotRequired[TrialRecord]
    events: NotRequired[list[TrialEvent]]
    lines: NotRequired[list[Line]]
    node: NotRequired[str]
    failure: NotRequired[str]


@dataclass(frozen=True)
class FinalistTask:
    """A run of a finalist to carry out. hang_sec: so long without progress, its worker ends."""

    run: FinalistRun
    kimg: int
    hang_sec: float
