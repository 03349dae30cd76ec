"""Sample grids as artifacts of a study, by trial."""

from __future__ import annotations

from pathlib import Path

import factories
import optuna
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from pipeline.config import SweepPaths
from pipeline.search.study_artifacts import attach_grid
from pipeline.search.trial_manager import SweepTrial
from pipeline.training.checkpoint import grid_path


def test_the_best_grid_of_a_trial_is_its_artifact(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    paths = SweepPaths(tmp_path)
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(paths.study))))
    trial = study.ask()
    sweep_trial = SweepTrial(
        trial.number, {}, records=[factories.record(*tick) for tick in ((5, 40.0), (10, 20.0), (15, 30.0))]
    )
    for kimg in (5, 10, 15):
        path = grid_path(paths.trial(0), kimg)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"grid at %d" % kimg)
    attach_grid(paths, trial, sweep_trial)
    study.tell(trial, 20.0)
    (found,) = get_all_artifact_meta(study.trials[0], storage=study._storage)
    assert (found.filename, found.mimetype) == ("000010.png", "image/png")
    download_artifact(
        artifact_store=FileSystemArtifactStore(str(paths.gallery)),
        artifact_id=found.artifact_id,
        file_path=str(tmp_path / "back"),
    )
    assert (tmp_path / "back").read_bytes() == b"grid at 10"


def test_a_trial_without_a_grid_or_a_fid_gets_no_artifact(tmp_path: Path) -> None:
    study = optuna.create_study()
    for records in ([], [factories.record(5, 40.0)]):
        trial = study.ask()
        attach_grid(SweepPaths(tmp_path), trial, SweepTrial(trial.number, {}, records=records))
        assert get_all_artifact_meta(trial, storage=study._storage) == []
    assert not SweepPaths(tmp_path).gallery.exists()
