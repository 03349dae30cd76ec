"""The part of a sweep that runs on Ray: its start and end, the search, the finalists, signals.

Owns: how Ray is asked. Refuses: deciding which trial goes on (`pipeline.search`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from pipeline import fid, finals
from pipeline.config import SweepPaths
from pipeline.data import Dataset
from pipeline.resources import TICK_SEC, Pace, Share, tick_of
from pipeline.search import (
    Ledger,
    StudyCallback,
    StudyScheduler,
    StudySearcher,
    StudyStopper,
    bound_sec,
    rank,
)
from pipeline.sweep.connect import LOCAL, look
from pipeline.sweep.elastic import Elastic, Pardon, limited
from pipeline.sweep.estimate import own_tick, packed, rows
from pipeline.sweep.request import Request
from pipeline.sweep.sharing import Sharing
from pipeline.view import View

TICK = "tick_kimg"
"""The study's attribute that keeps the interval between reports."""

RETRIES = 2
"""A trial whose worker died or raised is taken up again from its checkpoint this many times."""


QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "10",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours below knows what to save
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",  # a trial leaves at its next step, however long that is
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's own snapshot is not used
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
}


def try_largest(request: Request, dataset: Dataset, evaluator: fid.Evaluator) -> tuple[tuple[str, str], ...]:
    """What a dry run tells after measuring the largest trial; nothing is kept."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    with Sharing(request.config.address) as sharing, _ray(request.config.address):
        return tuple(rows(request, dataset, evaluator, look(), sharing))


def work(request: Request, ledger: Ledger, dataset: Dataset, evaluator: fid.Evaluator) -> list[finals.Final]:
    """All that Ray does: the search, then its finalists; the best of them first."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    from pipeline import node

    paths, config = request.paths, request.config
    paths.stop.unlink(missing_ok=True)
    with (
        _signals(ledger, paths, request.say) as armed,
        Sharing(config.address) as sharing,
        _ray(config.address),
    ):
        armed()
        lent = node.lend(dataset, evaluator)
        packing = packed(request, look(), lent, sharing)
        share, tick = packing.share, reports(request, ledger, packing.pace)
        ledger.gpus_per_trial, mps = share.gpus, share.per_gpu if sharing.works else 0
        with View(paths, live=request.live, say=request.say):
            search(request, ledger, _trainable(request, lent, share, mps, tick), share)
        runs = [] if ledger.interrupted else _finalists(request, ledger, lent, share, mps)
    paths.stop.unlink(missing_ok=True)
    return finals.decide(runs)


def reports(request: Request, ledger: Ledger, pace: Pace | None) -> dict[str, int]:
    """`tick_kimg` for all trials where it is not the space's: it is found once, and the study keeps it.

    A study whose trials began without one goes on as it is.
    """
    space = request.space
    own = own_tick(space)
    known = ledger.study.user_attrs.get(TICK)
    if known is None:
        known = own if ledger.entries else tick_of(own, space.config({}).kimg, pace)
        ledger.study.set_user_attr(TICK, known)
    if known == own:
        return {}
    request.say(f"trials report every {known} kimg: {own} would take less than {TICK_SEC:g} s on a GPU here")
    return {"tick_kimg": known}


def _trainable(request: Request, lent: Any, share: Share, mps: int, tick: dict[str, int]) -> Any:
    """One trial as Tune runs it: everything of it but its number and parameters is fixed here."""
    from ray import tune

    from pipeline import worker

    return tune.with_parameters(
        worker.train,
        fixed={**request.space.fixed, **tick, "seed": request.config.seed},
        root=str(request.paths.root),
        store=request.url,
        threads=share.threads,
        lent=lent,
        mps=mps,
    )


def search(request: Request, ledger: Ledger, trainable: Any, share: Share) -> None:
    """Let Ray run trials of `trainable` until the ledger asks for no more."""
    from ray import tune

    paths, config = request.paths, request.config
    searcher = limited(StudySearcher(ledger), share.concurrency)
    callbacks = [StudyCallback(ledger), Pardon(request.say), Elastic(searcher, config, share, request.say)]
    with tempfile.TemporaryDirectory(prefix="gansweep-", ignore_cleanup_errors=True) as nobodys:
        tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([share.bundle])),
            tune_config=tune.TuneConfig(
                metric="objective",
                mode="min",
                search_alg=searcher,
                scheduler=StudyScheduler(ledger),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=nobodys,  # Ray's own snapshots: on a full disk they end the driver
                stop=StudyStopper(ledger),
                callbacks=callbacks,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    if request.courier and not ledger.interrupted:
        for entry in ledger.entries.values():
            if entry.state == "running":
                request.courier.bring_folder(paths.trial(entry.number))
    ledger.close()


def _finalists(request: Request, ledger: Ledger, lent: Any, share: Share, mps: int) -> list[finals.Run]:
    """Measure the best trials again, and train them with other seeds where there is time."""
    from pipeline import worker

    config, paths = request.config, request.paths
    leaders = [entry for entry in rank(ledger.entries.values()) if entry.best][: config.finalists]
    seeds = finals.seeds_of(config.final_seeds, config.time_budget_sec, ledger.seconds)
    again = f", trained again with {seeds} other seeds" if seeds else ""
    request.say(f"finalists: measuring {len(leaders)} again with fresh latents{again}")
    asked = [
        (finals.Run(entry.number, index, paths.rerun(entry.number, index)), entry.records[-1].kimg)
        for index in range(seeds + 1)
        for entry in leaders
    ]
    return worker.finalists(
        asked,
        paths,
        config,
        lent,
        share,
        bounds={e.number: max(bound_sec(ledger.entries, e.number), config.hang_after_sec) for e in leaders},
        store=request.url,
        mps=mps,
        should_stop=lambda: ledger.interrupted,
        say=request.say,
    )


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    """Ray for the length of the search: one of our own, or the cluster that is connected already."""
    import ray

    if address != LOCAL:
        yield
        return
    ray.init(address=LOCAL, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _signals(ledger: Ledger, paths: SweepPaths, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """SIGINT or SIGTERM once: trials checkpoint at their next step and leave; twice: at once.

    Gives a function that arms them again: Ray takes SIGTERM for itself when it starts, and dies of it.
    """

    def stop(number: int, frame: object) -> None:
        if ledger.interrupted:
            os._exit(130)
        ledger.interrupted, ledger.reason = True, "interrupted"
        with contextlib.suppress(OSError):  # a full disk; then Ray stops them alone
            paths.stop.touch()
        say("stopping: trials checkpoint and leave (again to leave at once)")

    def arm() -> None:
        for sign in kept:
            signal.signal(sign, stop)

    kept = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    arm()
    try:
        yield arm
    finally:
        for sign, handler in kept.items():
            signal.signal(sign, handler)
