"""What a search costs beside its training, at 2,000 trials whose training is nearly free.

    python benchmarks/scale.py                    # 2,000 trials of ours, 300 of each peer
    python benchmarks/scale.py --trials 300

All run on one Ray with the same number of trials at a time and the same reports. Ours and stock have the same
TPE and ASHA and log every report to MLflow in sqlite: ours by trial manager, event log and exporter, stock
Tune by Ray's OptunaSearch, ASHAScheduler and MLflowLoggerCallback. TPE's sampling is timed inside Optuna and
counted apart for both. Bare Tune draws at random, has Ray's ASHA, and stores nothing.

ms per trial = (wall time of the search - sampling) / trials, Ray's overhead included; CPU is that of the
driver's process, all its threads, without sampling. The export to MLflow runs in parallel with ours; what is
left of it after the last trial is counted in `with MLflow`. What a search adds to Ray is its ms less bare's.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from pipeline.cluster import runner
from pipeline.cluster.ray_environment import ray_environment
from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import METRICS, TrialRecord
from pipeline.reporting.summary import Summary
from pipeline.search.resources import TrialResources
from pipeline.search.samplers import make_sampler
from pipeline.search.space.parser import parse_space
from pipeline.search.study import open_study
from pipeline.search.trial_manager import TrialManager
from pipeline.storage.summary_file import FidEvaluator
from pipeline.tracking.event_callback import EventLogCallback
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.mlflow_exporter import MlflowExporter

TICKS = 5
AT_A_TIME = 2
SPACE = """
[fixed]
kimg = 5
tick_kimg = 1
[search]
lr_g = { float = [1e-5, 1e-2], log = true }
lr_d = { float = [1e-5, 1e-2], log = true }
width_g = { int = [16, 256], log = true }
loss = { choice = ["nonsaturating", "hinge", "wasserstein"] }
"""


@dataclass
class Sampling:
    """Seconds that Optuna's TPE took in this process; the outermost of its methods counts."""

    seconds: float = 0.0
    cpu: float = 0.0
    _depth: int = field(default=0, repr=False)

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        names = ("infer_relative_search_space", "sample_relative", "sample_independent", "after_trial")
        originals = {name: getattr(optuna.samplers.TPESampler, name) for name in names}
        for name, method in originals.items():
            setattr(optuna.samplers.TPESampler, name, self._timed(method))
        try:
            yield
        finally:
            for name, method in originals.items():
                setattr(optuna.samplers.TPESampler, name, method)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started, cpu, self._depth = time.perf_counter(), time.thread_time(), self._depth + 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - started
                    self.cpu += time.thread_time() - cpu

        return timed


@dataclass(frozen=True)
class Cost:
    """What a search of `trials` took, in seconds.

    cpu: without sampling. marks: (trials over, seconds without sampling).
    """

    trials: int
    wall: float
    sampling: float
    left: float
    cpu: float
    marks: list[tuple[int, float]]

    @property
    def search(self) -> float:
        return (self.wall - self.sampling) / self.trials

    @property
    def with_mlflow(self) -> float:
        return (self.wall - self.sampling + self.left) / self.trials

    def exponent(self) -> float:
        """The slope of log(seconds) over log(trials): 1 is linear growth."""
        late = [(n, s) for n, s in self.marks if n >= max(20, self.trials // 20)]
        return float(np.polyfit(*np.log(np.array(late, float)).T, 1)[0])


def score(params: dict[str, Any], kimg: int) -> float:
    """A smooth substitute for fid, the same for both."""
    return (
        10 + 30 * abs(math.log10(params["lr_g"]) + 3) + 20 * abs(math.log10(params["lr_d"]) + 3) + 50 / kimg
    )


def records(number: int, params: dict[str, Any]) -> Iterator[TrialRecord]:
    """The reports of one trial."""
    numbers = dict.fromkeys(METRICS, 0.5)
    for kimg in range(1, TICKS + 1):
        fid = score(params, kimg)
        best = {"fid": fid, "best_fid": fid, "best_kimg": kimg, "objective": fid}
        yield TrialRecord.from_dict({**numbers, "trial": number, "kimg": kimg, "verdict": "healthy", **best})


def free_trial(config: dict[str, Any], root: str) -> None:
    """A trial that trains nothing: its folder and its reports are those of a real one."""
    folder = SweepPaths(Path(root)).trial(config["number"])
    folder.mkdir(parents=True, exist_ok=True)
    for record in records(config["number"], config["params"]):
        with (folder / "records.jsonl").open("a", encoding="utf-8") as file:
            file.write(record.to_json() + "\n")
        tune.report({"objective": record.objective, "record": record})


class EndTimes:
    """A callback that keeps the times at which trials end."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling, self._started = sampling, time.perf_counter()
        self.marks: list[tuple[int, float]] = []

    def on_start(self, trial: Any) -> None: ...
    def on_record(self, trial: Any, record: Any) -> None: ...
    def on_failure(self, trial: Any, failure: Any) -> None: ...

    def on_end(self, trial: Any) -> None:
        spent = time.perf_counter() - self._started - self._sampling.seconds
        self.marks.append((len(self.marks) + 1, spent))


def ours(trials: int, out: Path) -> Cost:
    """The search of gansweep, complete but for the training."""
    space = parse_space(SPACE)
    config = SweepConfig(name="scale", trials=trials, final_seeds=0)
    paths = SweepPaths(out / config.name)
    paths.root.mkdir(parents=True)
    sampling, event_log = Sampling(), EventLog(paths.event_log)
    exporter = MlflowExporter(paths.root, event_log, f"sqlite:///{out}/ours.db", "scale", {}, {})
    exporter.flush(120)  # the tables of an empty store are made once, and take seconds
    ends = EndTimes(sampling)
    study = open_study("scale", paths.study, config, space)
    manager = TrialManager(study, space, config, paths)
    summary = Summary(paths, config, FidEvaluator(), manager)
    manager.begin([EventLogCallback(event_log, paths), summary, ends])
    started, cpu = time.perf_counter(), time.process_time()
    with sampling.measured():
        trainable = tune.with_parameters(free_trial, root=str(paths.root))
        runner.run_tune(manager, trainable, TrialResources(1, 0, AT_A_TIME))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    exporter.flush(3600)
    left = time.perf_counter() - started - wall
    assert exporter.close(10)
    assert summary.content().trials.ended == len(ends.marks) == trials
    return Cost(trials, wall, sampling.seconds, left, cpu - sampling.cpu, ends.marks)


def stock_trial(config: dict[str, Any]) -> None:
    """The same work in the form that stock Tune takes: numbers only."""
    for record in records(0, config):
        tune.report({**record.metrics(), "objective": record.objective, "kimg": record.kimg})


def define_space(trial: optuna.Trial) -> None:
    """`SPACE` as OptunaSearch takes it."""
    trial.suggest_float("lr_g", 1e-5, 1e-2, log=True)
    trial.suggest_float("lr_d", 1e-5, 1e-2, log=True)
    trial.suggest_int("width_g", 16, 256, log=True)
    trial.suggest_categorical("loss", ["nonsaturating", "hinge", "wasserstein"])


def asha() -> ASHAScheduler:
    """Ray's scheduler, with our rungs."""
    return ASHAScheduler(time_attr="kimg", max_t=TICKS, grace_period=1, reduction_factor=3)


def stock(trials: int, out: Path) -> Cost:
    """Ray's OptunaSearch, ASHAScheduler and MLflowLoggerCallback on the same work."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    sampling = Sampling()
    tracking = MLflowLoggerCallback(tracking_uri=f"sqlite:///{out}/stock.db", experiment_name="scale")
    tracking.setup()  # the tables of an empty store are made once, and take seconds
    tuner = tune.Tuner(
        tune.with_resources(stock_trial, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="min",
            search_alg=OptunaSearch(
                define_space,
                metric="objective",
                mode="min",
                sampler=make_sampler(SweepConfig(), parse_space(SPACE), 0),
            ),
            scheduler=asha(),
            num_samples=trials,
            max_concurrent_trials=AT_A_TIME,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(out), verbose=0, callbacks=[tracking]),
    )
    started, cpu = time.perf_counter(), time.process_time()
    with sampling.measured():
        tuner.fit()
    wall = time.perf_counter() - started
    return Cost(trials, wall, sampling.seconds, 0.0, time.process_time() - cpu - sampling.cpu, [])


def bare(trials: int, out: Path) -> Cost:
    """Ray's overhead: the same work without a sampler and without tracking."""
    uniform = {"lr_g": tune.loguniform(1e-5, 1e-2), "lr_d": tune.loguniform(1e-5, 1e-2)}
    tuner = tune.Tuner(
        tune.with_resources(stock_trial, {"cpu": 1}),
        param_space=uniform,
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="min",
            scheduler=asha(),
            num_samples=trials,
            max_concurrent_trials=AT_A_TIME,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="bare", storage_path=str(out), verbose=0),
    )
    started, cpu = time.perf_counter(), time.process_time()
    tuner.fit()
    wall = time.perf_counter() - started
    return Cost(trials, wall, 0.0, 0.0, time.process_time() - cpu, [])


def show(name: str, cost: Cost) -> None:
    print(
        f"{name:6} {cost.trials:6} {cost.wall:9.1f} {cost.sampling:10.1f} {1000 * cost.search:16.1f} "
        f"{1000 * cost.with_mlflow:14.1f} {1000 * cost.cpu / cost.trials:18.1f}"
    )


def compare(trials: int, peer_trials: int) -> None:
    """Print what a trial costs here, and under Ray's own searcher and scheduler."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        num_cpus=AT_A_TIME,
    )
    with tempfile.TemporaryDirectory() as folder:
        ours(10, Path(folder) / "warm")  # workers are started, modules imported
        mine = ours(trials, Path(folder) / "ours")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        peers = [peer(peer_trials, Path(folder)) for peer in (stock, bare)] if peer_trials else []
    ray.shutdown()
    print(f"{AT_A_TIME} trials at a time, {TICKS} reports each")
    print("       trials    wall s  sampling s      ms per trial  with MLflow ms      CPU ms per trial")
    show("ours", mine)
    if peers:
        theirs, floor = peers
        show("stock", theirs)
        show("bare", floor)
        ratios = theirs.search / mine.search, theirs.search / mine.with_mlflow
        print(f"stock / ours: {ratios[0]:.1f} (with MLflow {ratios[1]:.1f})")
        added = mine.with_mlflow - floor.search
        print(
            f"beyond bare Ray, with MLflow: {1000 * added:.1f} ms a trial, stock "
            f"{1000 * (theirs.search - floor.search):.1f}: ratio {(theirs.search - floor.search) / added:.1f}"
        )
    print(f"growth: seconds without sampling ~ trials ^ {mine.exponent():.2f}")
    step = max(1, len(mine.marks) // 8)
    print("  " + "  ".join(f"{n}: {s:.0f} s" for n, s in mine.marks[step - 1 :: step]))
    print(f"driver memory: {peak:.2f} GB at its peak")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--trials", type=int, default=2000)
    options.add_argument("--peer-trials", type=int, default=300)
    args = options.parse_args()
    with ray_environment(local=True):
        compare(args.trials, args.peer_trials)


if __name__ == "__main__":
    main()
