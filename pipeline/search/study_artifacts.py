"""Sample grids as artifacts of the Optuna study, so that optuna-dashboard shows what each trial generates."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import Trial

from pipeline.config import SweepPaths
from pipeline.training.checkpoint import grid_path

if TYPE_CHECKING:
    from pipeline.search.trial_manager import SweepTrial


def attach_grid(paths: SweepPaths, optuna_trial: Trial, trial: SweepTrial) -> None:
    """Attach the grid of the trial's best tick, named by its kimg.

    `optuna-dashboard STORAGE --artifact-dir SWEEP_DIR/gallery` shows it. Must be called before `study.tell`:
    an ended trial takes no artifacts. Nothing is attached where the disk is full; the grid itself stays in
    the trial's folder.
    """
    best = trial.best
    grid = grid_path(paths.trial(trial.number), best.kimg) if best else None
    if grid is not None and grid.is_file():
        with contextlib.suppress(OSError):
            paths.gallery.mkdir(exist_ok=True)
            store = FileSystemArtifactStore(str(paths.gallery))
            upload_artifact(artifact_store=store, file_path=str(grid), study_or_trial=optuna_trial)
