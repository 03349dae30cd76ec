"""The part of a sweep that runs on Ray: its start and end, the search, the finalists, signals.

Owns: how Ray is asked. Refuses: deciding which trial goes on (`pipeline.search`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

from pipeline import fid, finals
from pipeline.config import SweepConfig, SweepPaths
from pipeline.data import Dataset
from pipeline.errors import ConfigError
from pipeline.search import Ledger, StudyScheduler, StudySearcher, StudyStopper, rank
from pipeline.sweep.request import Request
from pipeline.view import View

RETRIES = 2
"""A trial whose worker died or raised is taken up again from its checkpoint this many times."""


_QUIET = {
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


_Share = tuple[float, float, int]
"""CPUs and GPUs of one trial, and how many run at a time."""


def work(request: Request, ledger: Ledger, dataset: Dataset, evaluator: fid.Evaluator) -> list[finals.Final]:
    """All that Ray does: the search, then its finalists; the best of them first."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    import ray

    from pipeline import node

    paths, config = request.paths, request.config
    paths.stop.unlink(missing_ok=True)
    with _signals(ledger, paths, request.say), _ray(config.address):
        share = _resources(config, ray.cluster_resources())
        ledger.gpus_per_trial = share[1]
        lent = node.lend(dataset, evaluator)
        with View(paths, live=request.live, say=request.say):
            _search(request, ledger, lent, share)
        runs = [] if ledger.interrupted else _finalists(request, ledger, lent, share)
    paths.stop.unlink(missing_ok=True)
    shutil.rmtree(paths.ray, ignore_errors=True)
    return finals.decide(runs)


def _search(request: Request, ledger: Ledger, lent: Any, share: _Share) -> None:
    """Let Ray run trials until the ledger asks for no more."""
    from ray import tune

    from pipeline import worker

    paths, config = request.paths, request.config
    cpus, gpus, concurrency = share
    trainable = tune.with_parameters(
        worker.train,
        fixed={**request.space.fixed, "seed": config.seed},
        root=str(paths.root),
        threads=max(1, int(cpus)),
        lent=lent,
    )
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="min",
            search_alg=StudySearcher(ledger),
            scheduler=StudyScheduler(ledger),
            num_samples=-1,
            max_concurrent_trials=concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(paths.root),
            stop=StudyStopper(ledger),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
        ),
    ).fit()
    ledger.close()


def _finalists(request: Request, ledger: Ledger, lent: Any, share: _Share) -> list[finals.Run]:
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
        *share,
        should_stop=lambda: ledger.interrupted,
        say=request.say,
    )


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    """Ray for the length of the search: one of our own, or the cluster at `address`; ends what it began."""
    import ray

    local = {"include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _signals(ledger: Ledger, paths: SweepPaths, say: Callable[[str], None]) -> Iterator[None]:
    """SIGINT or SIGTERM once: trials leave at their next step and stay resumable; twice: at once."""

    def stop(number: int, frame: object) -> None:
        if ledger.interrupted:
            os._exit(130)
        ledger.interrupted, ledger.reason = True, "interrupted"
        paths.stop.touch()
        say("stopping: trials leave at their last tick (again to leave at once)")

    kept = {sign: signal.signal(sign, stop) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in kept.items():
            signal.signal(sign, handler)


def _resources(config: SweepConfig, cluster: dict[str, float]) -> _Share:
    """CPUs and GPUs of one trial, and how many run at a time.

    Raises:
        ConfigError: the cluster can never run one such trial.
    """
    cpus, gpus = config.cpus_per_trial, config.gpus_per_trial
    if gpus < 0:
        gpus = 1.0 if cluster.get("GPU", 0) else 0.0
    if config.address != "local" and config.concurrency:
        return cpus, gpus, config.concurrency  # waiting trials are what makes an autoscaler start workers
    fits = [cluster.get("CPU", 0.0) // cpus, *([cluster.get("GPU", 0.0) // gpus] if gpus else [])]
    most = int(min(fits))
    if most < 1:
        raise ConfigError(
            f"one trial ({cpus:g} CPU, {gpus:g} GPU) fits into the cluster",
            seen=f"{cluster.get('CPU', 0):g} CPU, {cluster.get('GPU', 0):g} GPU",
            fix="lower --cpus-per-trial or --gpus-per-trial",
        )
    return cpus, gpus, min(config.concurrency or most, most)
