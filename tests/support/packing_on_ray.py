"""Trials that share a GPU, as tasks of a real Ray whose GPU is only a number; run by `test_packing.py`.

In a process of its own, since a thread that Ray leaves behind may end it. The trials train on cores, and the
MPS daemon is a script; CUDA has no part in this.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pretended_mps import Machine

from pipeline.cluster import mps, packing, profiling, shared_objects
from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.search.resources import Cluster, TrialResources
from pipeline.training.profiling import TrialProfile
from pipeline.training.trial_speed import TrialSpeed

PATIENT = 200.0
"""Seconds for all trials to be ready, where tests share two cores with others."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A Ray of two cores and the number 1 of GPUs, on a machine with the script."""
    import ray

    made = Machine(tmp_path_factory.mktemp("machine"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
        patch.setenv("TMPDIR", str(made.temporary))
        patch.setattr(tempfile, "tempdir", str(made.temporary))
        for name in (mps.PIPE, mps.LOG):
            patch.setenv(name, "")
            patch.delenv(name)
        ray.init(
            address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
            _temp_dir="/tmp/ray",
        )  # fmt: skip
        yield made
        ray.shutdown()
        made.end()


@pytest.fixture
def lent(
    machine: Machine, dataset: Dataset, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> shared_objects.SharedRefs:
    monkeypatch.setattr(profiling, "READY_SEC", PATIENT)
    return shared_objects.put_shared(dataset, evaluator)


def free(seconds: float = 20.0) -> None:
    """Wait until the GPU is given back."""
    import ray

    until = time.monotonic() + seconds
    while ray.available_resources().get("GPU") != 1 or ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until, ray.available_resources()
        time.sleep(0.1)


def test_the_process_of_a_task_ends_with_it(machine: Machine) -> None:
    import ray

    pid = ray.get(shared_objects.gpu_task(lambda: os.getpid()).options(num_gpus=1).remote())
    until = time.monotonic() + 15
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_two_train_at_the_same_time_by_one_daemon(machine: Machine, lent: shared_objects.SharedRefs) -> None:
    free()
    before = len(machine.started)
    pace = profiling.profile_shared(asked(), lent, WHOLE, 2, with_mps=True, eval_sec=0.1)
    assert isinstance(pace, TrialSpeed), pace
    assert pace.trials == 2
    assert 0 < pace.seconds_per_kimg < 100
    assert pace.eval_seconds > 0
    assert len(machine.started) == before + 1
    free()
    assert mps.state() == "runs", "it outlives the processes of the trials that started it"
    assert mps.stop()


def test_the_first_failure_ends_the_measuring(
    machine: Machine, lent: shared_objects.SharedRefs, evaluator: Evaluator
) -> None:
    """Well before the bound, although the others wait at the gate; and the GPU is free again."""
    free()
    wrong = shared_objects.put_shared("no images", evaluator)  # type: ignore[arg-type]
    said = "the largest trial fails: AttributeError: 'str' object has no attribute"
    begun = time.monotonic()
    assert str(profiling.profile_shared(asked(), wrong, WHOLE, 2, with_mps=False, eval_sec=0.1)).startswith(
        said
    )
    assert time.monotonic() - begun < PATIENT
    free()


def test_who_is_not_ready_in_time_ends_the_candidate(
    machine: Machine, lent: shared_objects.SharedRefs, monkeypatch: pytest.MonkeyPatch
) -> None:
    free()
    monkeypatch.setattr(profiling, "READY_SEC", -profiling.WINDOW_SEC)
    found = profiling.profile_shared(asked(), lent, WHOLE, 2, with_mps=False, eval_sec=0.0)
    assert found == "2 of 2 were not ready within 0 s"
    free()


def test_a_gpu_in_use_and_a_process_that_dies_are_told_apart(
    machine: Machine, lent: shared_objects.SharedRefs, monkeypatch: pytest.MonkeyPatch
) -> None:
    free()
    dies = SimpleNamespace(dataset=Death(), evaluator=None)
    assert "the process that measured a trial died" in str(profiling.profile_alone(asked(), dies, WHOLE))
    free()
    monkeypatch.setattr(profiling, "GPU_WAIT_SEC", 1.0)
    monkeypatch.setattr(profiling, "PLACE_SEC", 1.0)
    busy = TrialResources(cpus=8.0, gpus=1.0)
    assert profiling.profile_alone(asked(), lent, busy) == (
        "within 1 s no machine was free for a trial, or it took longer"
    )
    found = profiling.profile_shared(asked(), lent, busy, 2, with_mps=False, eval_sec=0.0)
    assert found == "no GPU with 16 cores was free within 1 s"


class Death:
    """Ends the process that asks for its name."""

    def hex(self) -> str:
        os._exit(1)


@pytest.mark.parametrize("address", ["local", "auto"])
def test_daemons_live_as_long_as_the_sweep(machine: Machine, address: str) -> None:
    """Of this machine directly, of a cluster by a task on every node with a GPU."""
    before = len(machine.started)
    with MpsSharing(address) as sharing:
        assert sharing.begin() == ""
        assert sharing.works
        assert mps.state() == "runs"
    assert len(machine.started) == before + 1
    assert mps.state() == "found"


def test_machines_that_are_added_later_try_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", list)
    with MpsSharing("auto") as sharing:
        assert sharing.begin() == ""
        assert sharing.works


def test_what_a_node_lacks_is_told(machine: Machine) -> None:
    program = machine.bin / "nvidia-cuda-mps-control"
    away: Callable[[Any], Any] = program.rename
    away(machine.bin / "away")
    try:
        with MpsSharing("auto") as sharing:
            assert sharing.begin() == "nvidia-cuda-mps-control is not on this machine"
            assert not sharing.works
    finally:
        (machine.bin / "away").rename(program)


def test_auto_decides_by_what_trains(
    machine: Machine, lent: shared_objects.SharedRefs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole decision; only the GPU's memory is made up."""
    free()
    real = packing.profile_alone

    def on_gpu(*given: Any) -> Any:
        found = real(*given)
        return TrialProfile(found.seconds_per_kimg, found.eval_seconds, GIB, "pretended", 80 * GIB)

    monkeypatch.setattr(packing, "profile_alone", on_gpu)
    said = list[str]()
    with MpsSharing("auto") as sharing:
        packing = packing.choose_packing(asked(said), Cluster([{"CPU": 2.0, "GPU": 1.0}]), lent, sharing)
    assert said[:2] == [
        "packing: measuring the largest trial alone on a GPU",
        "packing: measuring 2 at a time on one GPU",
    ]
    assert "times the trials per hour of one" in said[2]
    assert packing.pace is not None
    assert packing.share.gpus == 1 / packing.pace.trials
