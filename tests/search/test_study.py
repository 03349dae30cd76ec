"""A study keeps grids of its trials."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from trial_managers import make_manager, tick

from pipeline.training.checkpoint import grid_path


def test_the_best_grid_of_a_trial_is_its_artifact(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    paths, study = manager.paths, manager.study
    manager.ask()
    for kimg, fid in ((5, 40.0), (10, 20.0), (15, 30.0)):
        path = grid_path(paths.trial(0), kimg)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"grid at %d" % kimg)
        manager.report(tick(0, kimg, fid))
    manager.finish(0)
    (found,) = get_all_artifact_meta(study.trials[0], storage=study._storage)
    assert (found.filename, found.mimetype) == ("000010.png", "image/png")
    download_artifact(
        artifact_store=FileSystemArtifactStore(str(paths.gallery)),
        artifact_id=found.artifact_id,
        file_path=str(tmp_path / "back"),
    )
    assert (tmp_path / "back").read_bytes() == b"grid at 10"


@pytest.mark.parametrize("fid", [None, 40.0])
def test_a_trial_without_a_grid_or_a_fid_gets_no_artifact(tmp_path: Path, fid: float | None) -> None:
    manager = make_manager(tmp_path)
    manager.ask()
    manager.report(tick(0, 5, fid))
    manager.finish(0)
    assert get_all_artifact_meta(manager.study.trials[0], storage=manager.study._storage) == []
    assert not manager.paths.gallery.exists()
