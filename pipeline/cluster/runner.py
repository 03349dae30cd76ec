"""The part of a sweep that runs on Ray: its start and end, the search, the finalists, signals.

Owns: how Ray is asked. Refuses: deciding which trial goes on (`pipeline.search`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.cluster.connection import LOCAL, cluster_nodes
from pipeline.cluster.elasticity import ConcurrencyCallback, NodeLossCallback, limit_concurrency
from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.cluster.packing import choose_packing, estimate_rows, own_tick
from pipeline.cluster.tune_adapters import HangCallback, StudyScheduler, StudySearcher, StudyStopper
from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics import frechet
from pipeline.reporting.live.view import LiveView
from pipeline.search.hang_watch import hang_bound_sec
from pipeline.search.resources import TICK_SEC, TrialResources, tick_for_gpu
from pipeline.search.space.definition import Space
from pipeline.search.trial_manager import TrialManager, rank_trials
from pipeline.training import finalists
from pipeline.training.trial_speed import TrialSpeed

log = logging.getLogger(__name__)

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


def try_largest(
    config: SweepConfig, space: Space, code: Path | None, dataset: Dataset, evaluator: frechet.Evaluator
) -> tuple[tuple[str, str], ...]:
    """What a dry run tells after measuring the largest trial; nothing is kept."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    with MpsSharing(config.address) as sharing, _ray(config.address):
        return tuple(estimate_rows(config, space, code, dataset, evaluator, cluster_nodes(), sharing))


def run_search(
    ledger: TrialManager,
    dataset: Dataset,
    evaluator: frechet.Evaluator,
    *,
    code: Path | None = None,
    url: str = "",
    live: bool = False,
    bring_folder: Callable[[Path], object] | None = None,
) -> list[finalists.Finalist]:
    """All that Ray does: the search, then its finalists; the best of them first.

    code: the folder with networks of the user's own. url: the sweep's address in an object store; then
    bring_folder copies the folder of a trial from there. live: redraw the view in place.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    from pipeline.cluster import shared_objects

    paths, config, space = ledger.paths, ledger.plan, ledger.space
    paths.stop.unlink(missing_ok=True)
    with (
        _signals(ledger) as armed,
        MpsSharing(config.address) as sharing,
        _ray(config.address),
    ):
        armed()
        lent = shared_objects.put_shared(dataset, evaluator)
        packing = choose_packing(config, space, code, cluster_nodes(), lent, sharing)
        share, tick = packing.share, choose_tick(ledger, packing.pace)
        ledger.gpus_per_trial, mps = share.gpus, share.per_gpu if sharing.works else 0
        with LiveView(paths, live=live):
            search(ledger, _trainable(ledger, url, lent, share, mps, tick), share, bring_folder)
        runs = [] if ledger.interrupted else _finalists(ledger, url, lent, share, mps)
    paths.stop.unlink(missing_ok=True)
    return finalists.choose_winner(runs)


def choose_tick(ledger: TrialManager, pace: TrialSpeed | None) -> dict[str, int]:
    """`tick_kimg` for all trials where it is not the space's: it is found once, and the study keeps it.

    A study whose trials began without one goes on as it is.
    """
    space = ledger.space
    own = own_tick(space)
    known = ledger.study.user_attrs.get(TICK)
    if known is None:
        known = own if ledger.entries else tick_for_gpu(own, space.config({}).kimg, pace)
        ledger.study.set_user_attr(TICK, known)
    if known == own:
        return {}
    log.info(f"trials report every {known} kimg: {own} would take less than {TICK_SEC:g} s on a GPU here")
    return {"tick_kimg": known}


def _trainable(
    ledger: TrialManager, url: str, lent: Any, share: TrialResources, mps: int, tick: dict[str, int]
) -> Any:
    """One trial as Tune runs it: everything of it but its number and parameters is fixed here."""
    from ray import tune

    from pipeline.cluster import worker

    return tune.with_parameters(
        worker.train_trial,
        fixed={**ledger.space.fixed, **tick, "seed": ledger.plan.seed},
        root=str(ledger.paths.root),
        store=url,
        threads=share.threads,
        lent=lent,
        mps=mps,
    )


def search(
    ledger: TrialManager,
    trainable: Any,
    share: TrialResources,
    bring_folder: Callable[[Path], object] | None = None,
) -> None:
    """Let Ray run trials of `trainable` until the ledger asks for no more.

    bring_folder: copies the folder of a trial that still runs at the end from an object store.
    """
    from ray import tune

    searcher = limit_concurrency(StudySearcher(ledger), share.concurrency)
    callbacks = [HangCallback(ledger), NodeLossCallback(), ConcurrencyCallback(searcher, ledger.plan, share)]
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
    if bring_folder and not ledger.interrupted:
        for entry in ledger.entries.values():
            if entry.state == "running":
                bring_folder(ledger.paths.trial(entry.number))
    ledger.close()


def _finalists(
    ledger: TrialManager, url: str, lent: Any, share: TrialResources, mps: int
) -> list[finalists.FinalistRun]:
    """Measure the best trials again, and train them with other seeds where there is time."""
    from pipeline.cluster import worker

    config, paths = ledger.plan, ledger.paths
    leaders = [entry for entry in rank_trials(ledger.entries.values()) if entry.best][: config.finalists]
    seeds = finalists.seeds_of(config.final_seeds, config.time_budget_sec, ledger.seconds)
    again = f", trained again with {seeds} other seeds" if seeds else ""
    log.info(f"finalists: measuring {len(leaders)} again with fresh latents{again}")
    asked = [
        (finalists.FinalistRun(entry.number, index, paths.rerun(entry.number, index)), entry.records[-1].kimg)
        for index in range(seeds + 1)
        for entry in leaders
    ]
    return worker.run_finalists(
        asked,
        paths,
        config,
        lent,
        share,
        bounds={
            e.number: max(hang_bound_sec(ledger.entries, e.number), config.hang_after_sec) for e in leaders
        },
        store=url,
        mps=mps,
        should_stop=lambda: ledger.interrupted,
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
def _signals(ledger: TrialManager) -> Iterator[Callable[[], None]]:
    """SIGINT or SIGTERM once: trials checkpoint at their next step and leave; twice: at once.

    Gives a function that arms them again: Ray takes SIGTERM for itself when it starts, and dies of it.
    """

    def stop(number: int, frame: object) -> None:
        if ledger.interrupted:
            os._exit(130)
        ledger.interrupted, ledger.reason = True, "interrupted"
        with contextlib.suppress(OSError):  # a full disk; then Ray stops them alone
            ledger.paths.stop.touch()
        log.warning("stopping: trials checkpoint and leave (again to leave at once)")

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
