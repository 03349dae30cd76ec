"""From the search to the event log: names of runs, final states, and which image grids are uploaded."""

from __future__ import annotations

from pipeline.config import SweepPaths
from pipeline.records import TrialRecord
from pipeline.search.trial_manager import SweepTrial
from pipeline.tracking.event_log import TRIAL_STATUS, EventLog
from pipeline.training.checkpoint import Failure, TrialFolder, grid_path


class EventLogCallback:
    """A `SweepCallback` that writes each event to the event log, which drops repeated ones."""

    def __init__(self, event_log: EventLog, paths: SweepPaths) -> None:
        self._event_log, self._paths = event_log, paths

    def on_start(self, trial: SweepTrial) -> None:
        """Log the start and the parameters."""
        self._event_log.start(trial.number, f"trial-{trial.number:04d}", trial.params)

    def on_record(self, trial: SweepTrial, record: TrialRecord) -> None:
        """Log the record, and the image grid of its tick where there is one."""
        grid = grid_path(self._paths.trial(trial.number), record.kimg)
        if self._event_log.record(record) and grid.exists():
            self._event_log.artifact(trial.number, grid, "samples")

    def on_failure(self, trial: SweepTrial, failure: Failure) -> None:
        """Log the failure."""
        self._event_log.failure(trial.number, failure.index, str(failure))

    def on_end(self, trial: SweepTrial) -> None:
        """Log the end, delete the checkpoints, and write the records that a full disk has kept out."""
        self._event_log.end(trial.number, TRIAL_STATUS[trial.state], trial.cause)
        # The trial has reported a full disk itself.
        folder = TrialFolder(self._paths.trial(trial.number), on_event=lambda event: None)
        folder.drop_states()
        folder.complete(trial.records)
