"""The Optuna study of a sweep: opened or made, and how a trial's parameters are suggested from the space."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import JournalStorage
from optuna.trial import Trial

from pipeline.config import SweepConfig
from pipeline.search import pruners
from pipeline.search.journal import SweepJournal
from pipeline.search.samplers import check_sampler, make_sampler
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution, Value
from pipeline.search.study_database import open_database

_REDUCTION = "reduction"  # user attribute: that of the pruner


def open_study(name: str, storage: str | Path, config: SweepConfig, space: Space) -> optuna.Study:
    """Open the sweep's study, or make it and enqueue the space's points.

    storage: a journal file, or a database URL.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(SweepJournal(storage))
        if isinstance(storage, Path)
        else open_database(storage),
        direction="minimize",
        load_if_exists=True,
        sampler=make_sampler(config, space, 0),
    )
    if "enqueued" not in study.user_attrs:
        study.set_user_attr(_REDUCTION, pruners.REDUCTION)
        for point in space.enqueue:
            study.enqueue_trial(dict(point), skip_if_exists=True)
        study.set_user_attr("enqueued", len(space.enqueue))
    reduction = study.user_attrs.get(_REDUCTION, pruners.OLD_REDUCTION)
    study.pruner = pruners.make_pruner(config.pruner, space, reduction)
    return study


def check_search(config: SweepConfig, space: Space) -> None:
    """ConfigError where the sampler or the pruner cannot be made or is refused."""
    check_sampler(config, space)
    pruners.make_pruner(config.pruner, space)


def suggest_params(space: Space, trial: Trial) -> dict[str, Value]:
    """Suggest the parameters whose conditions hold, in the space's order."""
    params: dict[str, Value] = {}
    for name, distribution in space.search.items():
        if space.active(name, params):
            params[name] = _suggest(trial, name, distribution)
    return params


def _suggest(trial: Trial, name: str, d: Distribution) -> Value:
    if d.choices:
        chosen: Value = trial.suggest_categorical(name, list(d.choices))
        return chosen
    if d.whole:
        return trial.suggest_int(name, int(d.low), int(d.high), log=d.log)
    return trial.suggest_float(name, d.low, d.high, log=d.log)


def attach_grid(optuna_trial: Trial, grid: Path, gallery: Path) -> None:
    """Keep a sample grid as an artifact of a trial, in `gallery`, if there is one.

    `optuna-dashboard STORAGE --artifact-dir SWEEP_DIR/gallery` shows it. Must be called before `study.tell`:
    an ended trial takes no artifacts. Where the disk is full, nothing is kept.
    """
    if grid.is_file():
        with contextlib.suppress(OSError):
            gallery.mkdir(exist_ok=True)
            store = FileSystemArtifactStore(str(gallery))
            upload_artifact(artifact_store=store, file_path=str(grid), study_or_trial=optuna_trial)
