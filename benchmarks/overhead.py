"""What gansweep costs beside the training: turnaround, driver time per report, fraction of evaluation.

Runs two real sweeps (Ray, Optuna, sqlite MLflow), one trial at a time, in a temporary folder:
- 40 trials of one kimg each, for the time between two trials in one worker and the driver's time per report;
- 2 trials of the default space, for the fraction of a trial's wall time that evaluation takes.
Prints a table with the project's targets. About two minutes on one core.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.cluster.tune_adapters import StudyScheduler
from pipeline.config import SweepConfig
from pipeline.search.space.builtin import load_space
from pipeline.search.space.definition import Space
from pipeline.sweep.request import Request
from pipeline.sweep.run import run_sweep
from pipeline.training.checkpoint import read_records


def main() -> None:
    """Measure and print."""
    reports = _time_the_driver()
    with tempfile.TemporaryDirectory() as folder:
        tiny = load_space("smoke").override({"kimg": 1, "tick_kimg": 1})
        root = _run(tiny, Path(folder), name="tiny", data="digits", trials=40)
        gaps = _gaps(root)
        driver = list(reports)
        default = load_space("mnist5k").override({"kimg": 60})
        fraction = _evaluation_fraction(_run(default, Path(folder), name="default", data="mnist5k", trials=2))
    rows = [
        ("between two trials in one worker, median", statistics.median(gaps), "s", 0.3),
        ("driver time per report, tracking included, median", 1000 * statistics.median(driver), "ms", 2.0),
        (
            "driver time per report, 95th percentile",
            1000 * sorted(driver)[int(0.95 * len(driver))],
            "ms",
            None,
        ),
        ("fraction of evaluation in a default trial", 100 * fraction, "%", 10.0),
    ]
    for name, value, unit, target in rows:
        print(f"{name:<52}{value:8.2f} {unit:<3}" + (f" (target: {target:g} {unit})" if target else ""))


def _run(space: Space, out: Path, **options: Any) -> Path:
    config = SweepConfig(pruner="none", concurrency=1, second_extractor="none", **options)
    request = Request(space=space, config=config, out=out, register=None)
    return run_sweep(request).folder


def _time_the_driver() -> list[float]:
    """Patch the scheduler; the returned list gets the driver's seconds for each report as sweeps run."""
    spent: list[float] = []
    original = StudyScheduler.on_trial_result

    def timed(self: StudyScheduler, *args: Any) -> str:
        started = time.perf_counter()
        decision = original(self, *args)
        spent.append(time.perf_counter() - started)
        return decision

    StudyScheduler.on_trial_result = timed  # type: ignore[method-assign]
    return spent


def _gaps(root: Path) -> list[float]:
    """Seconds from one trial's end to the next one's, less the training and evaluation of the next one."""
    events = [json.loads(line) for line in (root / "spool.jsonl").read_text().splitlines()]
    ends = {e["trial"]: e["time_ms"] / 1000 for e in events if e["event"] == "end"}
    gaps = []
    for number in range(2, len(ends)):
        last = read_records(root / "trials" / str(number))[-1]
        gaps.append(ends[number] - ends[number - 1] - last.train_seconds - last.eval_seconds)
    return gaps


def _evaluation_fraction(root: Path) -> float:
    last = [read_records(root / "trials" / str(number))[-1] for number in (0, 1)]
    evaluation, training = sum(r.eval_seconds for r in last), sum(r.train_seconds for r in last)
    return evaluation / (evaluation + training)


if __name__ == "__main__":
    main()
