"""From the search to the spool: which of its events MLflow is to know.

Owns: names of runs, true final states, which files are worth an upload and which to keep. Refuses: MLflow.
"""

from __future__ import annotations

from pipeline.config import SweepPaths
from pipeline.records import TrialRecord
from pipeline.search.trial_manager import SweepTrial
from pipeline.tracking.event_log import EventLog
from pipeline.training.checkpoint import Failure, TrialFolder, grid_path

_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class EventLogCallback:
    """A `Listener` of the search that writes each event to the spool; the spool drops repetitions."""

    def __init__(self, spool: EventLog, paths: SweepPaths) -> None:
        self._spool, self._paths = spool, paths

    def on_start(self, entry: SweepTrial) -> None:
        self._spool.start(entry.number, f"trial-{entry.number:04d}", entry.params)

    def on_record(self, entry: SweepTrial, record: TrialRecord) -> None:
        grid = grid_path(self._paths.trial(entry.number), record.kimg)
        if self._spool.record(record) and grid.exists():
            self._spool.artifact(entry.number, grid, "samples")

    def on_failure(self, entry: SweepTrial, failure: Failure) -> None:
        self._spool.failure(entry.number, failure.index, str(failure))

    def on_end(self, entry: SweepTrial) -> None:
        self._spool.end(entry.number, _STATUS[entry.state], entry.cause)
        folder = TrialFolder(self._paths.trial(entry.number))
        folder.drop_states()  # nobody goes on from a trial that is over
        folder.complete(entry.records)
