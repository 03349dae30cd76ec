"""Short forms of the rows of benchmarks/chaos.py: faults in real sweeps, and what holds afterwards.

SIGKILL of the driver is in integration/ray/test_sweep.py, of the tracking server in
tracking/test_mlflow_exporter.py, the full disk in storage/test_full_disk.py, truncated checkpoints in
training/test_checkpoint.py and training/test_trial.py too. The loss of a machine takes a minute:
`python benchmarks/chaos.py --row node --quick`.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.training import trial

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from faults import files, numbers
from faults.sweeps import Sweep


@pytest.mark.parametrize("bad", ["nan", "inf"])
@pytest.mark.parametrize("kind", numbers.KINDS)
def test_a_number_that_is_not_finite_ends_the_trial_within_its_tick(
    kind: int,
    bad: str,
    dataset: Dataset,
    evaluator: Evaluator,
    tiny: Callable[..., TrialConfig],
    tmp_path: Path,
    own_code: Callable[..., Path],
) -> None:
    own_code(numbers.FAULTY_NETWORKS, "faulty")
    config = tiny(architecture="faulty:build", depth_d=kind, width_g=8 + (bad == "inf"), z_dim=80, kimg=6)
    verdicts = [record.verdict for record in trial.run_trial(config, dataset, evaluator, tmp_path / "0")]
    # A kimg is 32 steps of 32 images with two calls of D each: the 80th call is in the second tick.
    assert verdicts[0] != "diverged"
    assert verdicts[1:] == ["diverged"]


def test_truncated_checkpoints(tmp_path: Path) -> None:
    result = numbers.cut_checkpoints(tmp_path, 2, random.Random(1))
    assert (result.injected, result.broken) == (2, [])


def test_hostile_files(tmp_path: Path) -> None:
    result = files.in_process(tmp_path, 120, random.Random(1))
    assert (result.injected, result.broken) == (120, [])


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_survives_its_workers_and_ends_on_sigterm(tmp_path: Path) -> None:
    """One worker is killed, the next one hangs; both times the trial continues. Then SIGTERM."""
    flags = (
        "--trials",
        "2",
        "--kimg",
        "100000",
        "--pruner",
        "none",
        "--concurrency",
        "1",
        "--hang-after",
        "4s",
    )
    sweep = Sweep(tmp_path, *flags)
    sweep.start()
    for sign in (signal.SIGKILL, signal.SIGSTOP):
        sweep.wait_for_records(2)
        pid = sweep.worker()
        assert pid is not None
        os.kill(pid, sign)
        time.sleep(0.5)  # what was under way is written by now
        sweep.wait_for_records(2)
        assert not Path(f"/proc/{pid}").exists()
    begun = time.monotonic()
    sweep.kill(signal.SIGTERM)
    assert sweep.end(60) == 130
    assert time.monotonic() - begun < 20
    assert "gansweep resume" in sweep.stderr
    assert sweep.summary["state"] == "interrupted"
    assert sweep.failures(0) == ["worker killed", "hang"]
    assert [row["kind"] for row in sweep.summary["failures"]] == ["worker killed", "hang"]
    ticks = [record.kimg for record in sweep.records(0)]
    assert ticks == list(range(5, ticks[-1] + 1, 5))
    tags = _tags(sweep)
    assert tags["gansweep.failure.0"].startswith("worker killed")
    assert tags["gansweep.failure.1"].startswith("hang")


def _tags(sweep: Sweep) -> dict[str, str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{sweep.paths.root.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("gansweep/smoke")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`gansweep.trial` = '0'")
    return dict(run.data.tags)
