"""The Optuna study of a sweep: opened or made, its sampler, its pruner, how a point is drawn.

Owns: Optuna's types. Refuses: knowing trials that run.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.trial import Trial

from pipeline.config import SweepConfig
from pipeline.errors import SweepError, first_line, redact
from pipeline.search.journal import SweepJournal
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution

REDUCTION = 3
"""Each rung keeps the best third (reference: rank correlation of fids is 0.8 after 5-10 % of a run)."""

GRACE = 0.07
"""Share of a full trial before the first judgement."""


def open_study(
    name: str,
    storage: str | Path,
    plan: SweepConfig,
    space: Space,
) -> optuna.Study:
    """Open the sweep's study, or make it with the space's enqueued points waiting.

    storage: a journal file, or a database URL.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(SweepJournal(storage)) if isinstance(storage, Path) else storage,
        direction="minimize",
        load_if_exists=True,
        sampler=make_sampler(plan.sampler, plan.seed, 0),
        pruner=make_pruner(plan.pruner, space),
    )
    if "enqueued" not in study.user_attrs:
        for point in space.enqueue:
            study.enqueue_trial(dict(point), skip_if_exists=True)
        study.set_user_attr("enqueued", len(space.enqueue))
    return study


def make_sampler(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`: seeded by both, so a resumed search draws what it would have."""
    own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(seed=own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is marked experimental; without it `when` loses TPE
        return optuna.samplers.TPESampler(seed=own, multivariate=True, group=True, constant_liar=True)


def make_pruner(name: str, space: Space) -> optuna.pruners.BasePruner:
    """The pruner, with its bounds in kimg set from the length of a full trial."""
    full = space.config({})
    grace = max(full.tick_kimg, math.ceil(full.kimg * GRACE))
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=REDUCTION)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=grace, max_resource=full.kimg, reduction_factor=REDUCTION
        )
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=grace)
    return optuna.pruners.NopPruner()


def suggest_params(space: Space, trial: Trial) -> dict[str, Any]:
    """Draw the parameters that take part, in the space's order."""
    drawn: dict[str, Any] = {}
    for name, distribution in space.search.items():
        if space.active(name, drawn):
            drawn[name] = _suggest(trial, name, distribution)
    return drawn


def _suggest(trial: Trial, name: str, d: Distribution) -> Any:
    if d.choices:
        return trial.suggest_categorical(name, list(d.choices))
    if d.whole:
        return trial.suggest_int(name, int(d.low), int(d.high), log=d.log)
    return trial.suggest_float(name, d.low, d.high, log=d.log)


def check_storage(url: str, name: str, *, new: bool) -> None:
    """Look whether the study's database answers, and for a new sweep that it holds no study of its name.

    Raises:
        SweepError: it does not, in one line without the password.
    """
    if not url:
        return
    shown = redact(url)
    if "://" not in url:
        raise SweepError("--storage is a database URL", seen=shown, fix="write postgresql://HOST/DATABASE")
    try:
        names = _study_names(url)
    except Exception as error:  # SQLAlchemy's, the driver's, Optuna's own
        raise SweepError(
            "the study's database answers",
            seen=f"{shown} ({redact(first_line(error))})",
            fix="start it, correct --storage, or export PGUSER and PGPASSWORD",
        ) from error
    if new and name in names:
        raise SweepError(
            "a new sweep's study is new",
            seen=f"{name} exists in {shown}",
            fix="choose another --name, or go on in the --out that it began in",
        )


def _study_names(url: str) -> list[str]:
    timeout = {"connect_timeout": 10} if url.startswith(("postgresql", "mysql")) else {}
    store = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": timeout})
    try:
        return list(optuna.study.get_all_study_names(store))
    finally:
        store.engine.dispose()
