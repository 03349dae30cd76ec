"""The part of a sweep that runs on Ray: its start and end, the search, the finalists."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter

from pipeline.cluster import worker
from pipeline.cluster.connection import LOCAL, cluster_nodes, local_ray
from pipeline.cluster.elasticity import ConcurrencyCallback, NodeLossCallback
from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.cluster.messages import FinalistTask, WorkerSettings
from pipeline.cluster.packing import choose_packing, estimate_rows
from pipeline.cluster.ray_environment import ray_environment
from pipeline.cluster.shared_objects import put_shared
from pipeline.cluster.tune_adapters import HangCallback, StudyScheduler, StudySearcher, StudyStopper
from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics import frechet
from pipeline.reporting.live.view import LiveView
from pipeline.search.hang_watch import hang_bound_sec
from pipeline.search.resources import MIN_TICK_SEC, TrialResources, tick_for_gpu
from pipeline.search.space.definition import Space
from pipeline.search.trial_manager import TrialManager, rank_trials
from pipeline.training import finalists
from pipeline.training.trial_speed import TrialSpeed
from pipeline.user_code import UserCode

log = logging.getLogger(__name__)

TICK_ATTRIBUTE = "tick_kimg"
"""The attribute of the study that keeps the interval between reports."""


def estimate_sweep(
    config: SweepConfig, space: Space, dataset: Dataset, evaluator: frechet.Evaluator, code: UserCode
) -> tuple[tuple[str, str], ...]:
    """Rows (name, text) of a dry run, after profiling the largest trial; writes nothing."""
    with _ray(config.address) as sharing:
        shared_refs = put_shared(dataset, evaluator, code)
        return tuple(estimate_rows(config, space, cluster_nodes(), shared_refs, sharing))


class RaySearch:
    """The search of a sweep on a connected Ray: first `run`, then `measure_finalists`.

    url: of the sweep in an object store, empty = none.
    """

    def __init__(self, manager: TrialManager, sharing: MpsSharing, url: str) -> None:
        self._manager, self._sharing, self._url = manager, sharing, url
        self._settings: WorkerSettings  # made by `run`
        self._resources: TrialResources

    def run(
        self,
        dataset: Dataset,
        evaluator: frechet.Evaluator,
        code: UserCode,
        *,
        live: bool = False,
        fetch_folder: Callable[[Path], object] | None = None,
    ) -> None:
        """Run trials until the manager asks for no more.

        live: redraw the view in place. fetch_folder: copies the folder of a trial from the object store.
        """
        manager, sharing = self._manager, self._sharing
        paths, config, space = manager.paths, manager.config, manager.space
        shared_refs = put_shared(dataset, evaluator, code)
        packing = choose_packing(config, space, cluster_nodes(), shared_refs, sharing)
        self._resources = resources = packing.resources
        manager.gpus_per_trial = resources.gpus
        self._settings = WorkerSettings(
            root=str(paths.root),
            store=self._url,
            config=config,
            fixed={**space.fixed, **choose_tick(manager, packing.speed)},
            threads=resources.threads,
            mps=resources.per_gpu if sharing.works else 0,
            shared_refs=shared_refs,
        )
        with LiveView(paths, live=live):
            trainable = tune.with_parameters(worker.train_trial, settings=self._settings)
            run_tune(manager, trainable, resources, fetch_folder)

    def measure_finalists(self) -> list[finalists.Finalist]:
        """Measure the best trials again, and train them with other seeds where there is time.

        Returns the finalists, the best first; none if the sweep is interrupted.
        """
        manager, settings = self._manager, self._settings
        config, paths = manager.config, manager.paths
        leaders = [trial for trial in rank_trials(manager.trials.values()) if trial.best][: config.finalists]
        seeds = finalists.extra_seed_count(config.final_seeds, config.time_budget_sec, manager.seconds)
        again = f", trained again with {seeds} other seeds" if seeds else ""
        log.info(f"finalists: measuring {len(leaders)} again with fresh latents{again}")
        tasks = [
            FinalistTask(
                finalists.FinalistRun(trial.number, index, paths.rerun(trial.number, index)),
                trial.records[-1].kimg,
                max(hang_bound_sec(manager.trials, trial.number), config.hang_after_sec),
            )
            for index in range(seeds + 1)
            for trial in leaders
        ]
        runs = worker.run_finalists(tasks, settings, self._resources, lambda: manager.interrupted)
        return finalists.choose_winner(runs)


@contextlib.contextmanager
def ray_search(manager: TrialManager, url: str = "") -> Iterator[RaySearch]:
    """Ray for the time of a sweep's search. url: of the sweep in an object store, empty = none."""
    manager.paths.stop.unlink(missing_ok=True)
    with _ray(manager.config.address) as sharing:
        yield RaySearch(manager, sharing, url)
    manager.paths.stop.unlink(missing_ok=True)


def choose_tick(manager: TrialManager, speed: TrialSpeed | None) -> dict[str, int]:
    """`tick_kimg` for all trials where it differs from the space's; chosen once, and kept in the study.

    A study whose trials began without such an attribute keeps the space's.
    """
    longest = manager.space.config({})
    default = longest.tick_kimg
    known = manager.study.user_attrs.get(TICK_ATTRIBUTE)
    if known is None:
        known = default if manager.trials else tick_for_gpu(default, longest.kimg, speed)
        manager.study.set_user_attr(TICK_ATTRIBUTE, known)
    if known == default:
        return {}
    too_fast = f"{default} would take less than {MIN_TICK_SEC:g} s on a GPU here"
    log.info(f"trials report every {known} kimg: {too_fast}")
    return {"tick_kimg": known}


def run_tune(
    manager: TrialManager,
    trainable: Any,
    resources: TrialResources,
    fetch_folder: Callable[[Path], object] | None = None,
) -> None:
    """Let Ray run trials of `trainable` until the manager asks for no more.

    fetch_folder: copies the folder of a trial that is running at the end from the object store.
    """
    searcher = ConcurrencyLimiter(StudySearcher(manager), max_concurrent=resources.concurrency)
    scheduler, concurrency = StudyScheduler(manager), ConcurrencyCallback(searcher, manager.config, resources)
    with tempfile.TemporaryDirectory(prefix="gansweep-", ignore_cleanup_errors=True) as scratch_dir:
        tuner = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([resources.bundle])),
            tune_config=tune.TuneConfig(
                metric="objective",
                mode="min",
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=scratch_dir,  # Ray's own snapshots: on a full disk they end the driver
                stop=StudyStopper(manager),
                callbacks=[HangCallback(manager), NodeLossCallback(), concurrency],
                verbose=0,
                # A trial whose worker died or raised is taken up again from its checkpoint.
                failure_config=tune.FailureConfig(max_failures=2),
            ),
        )
        try:
            tuner.fit()
        except tune.TuneError as error:
            raise scheduler.error or error from error
    if fetch_folder and not manager.interrupted:
        for trial in manager.trials.values():
            if trial.state == "running":
                fetch_folder(manager.paths.trial(trial.number))
    manager.close()


@contextlib.contextmanager
def _ray(address: str) -> Iterator[MpsSharing]:
    """Ray for the time of the search: started here if local, else the cluster that is connected already."""
    local = address == LOCAL
    with (
        ray_environment(local=local),
        MpsSharing(address) as sharing,
        local_ray() if local else contextlib.nullcontext(),
    ):
        yield sharing
