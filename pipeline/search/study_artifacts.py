"""Sample grids as artifacts of the Optuna study, so that optuna-dashboard shows what each trial drew.

Owns: `Gallery`, which hangs a trial's best grid before the study closes the trial. Refuses: drawing;
letting a full disk reach the search (the grid itself stays with its trial).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import Trial

from pipeline.config import SweepPaths
from pipeline.training.checkpoint import grid_path

if TYPE_CHECKING:
    from pipeline.search.trial_manager import SweepTrial


class StudyArtifacts:
    """The artifacts of one study: `optuna-dashboard STORAGE --artifact-dir SWEEP_DIR/gallery` shows them."""

    def __init__(self, paths: SweepPaths) -> None:
        self._paths = paths

    def hang(self, trial: Trial, entry: SweepTrial) -> None:
        """Add the grid of the best tick, named by its kimg; a closed trial takes none any more."""
        best = entry.best
        grid = grid_path(self._paths.trial(entry.number), best.kimg) if best else None
        if grid is None or not grid.is_file():
            return
        try:
            self._paths.gallery.mkdir(exist_ok=True)
            store = FileSystemArtifactStore(str(self._paths.gallery))
            upload_artifact(artifact_store=store, file_path=str(grid), study_or_trial=trial)
        except OSError:
            return
