"""Trials that share a GPU, as tasks of a real Ray whose GPU is only a number. Run by test_packing.py.

In a separate process, since a thread that Ray leaves behind may end it. The trials train on cores, and the
MPS daemon is a script; CUDA is not involved.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from pretended_mps import GIB, SPACE, Machine

from pipeline.cluster import mps, packing, profiling, shared_objects
from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.cluster.packing import choose_packing
from pipeline.cluster.shared_objects import SharedRefs
from pipeline.cluster.tasks import gpu_task
from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.search.resources import Cluster, TrialResources
from pipeline.search.space.largest import largest_config
from pipeline.training.profiling import TrialProfile
from pipeline.training.trial_speed import TrialSpeed
from pipeline.user_code import UserCode

READY_SEC = 200.0
"""Seconds for all trials to be ready, where other tests run on the same two cores."""
WHOLE_GPU = TrialResources(cpus=1.0, gpus=1.0)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A Ray with two cores and 1 as its number of GPUs, on a machine with the script."""
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
def shared_refs(
    machine: Machine, dataset: Dataset, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> SharedRefs:
    monkeypatch.setattr(profiling, "READY_SEC", READY_SEC)
    return shared_objects.put_shared(dataset, evaluator, UserCode())


def wait_until_free(seconds: float = 20.0) -> None:
    """Wait until the GPU and both cores are given back."""
    import ray

    until = time.monotonic() + seconds
    while ray.available_resources().get("GPU") != 1 or ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until, ray.available_resources()
        time.sleep(0.1)


def profile_together(
    refs: Any, resources: TrialResources = WHOLE_GPU, *, with_mps: bool = False, eval_sec: float = 0.1
) -> TrialSpeed | str:
    """Profile two copies of the largest trial at a time."""
    return profiling.profile_shared(largest_config(SPACE), refs, resources, 2, with_mps, eval_sec)


def test_the_process_of_a_task_ends_with_it(machine: Machine) -> None:
    import ray

    pid = ray.get(gpu_task(lambda: os.getpid()).options(num_gpus=1).remote())
    until = time.monotonic() + 15
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_two_train_at_the_same_time_through_one_daemon(machine: Machine, shared_refs: SharedRefs) -> None:
    wait_until_free()
    before = len(machine.started)
    speed = profile_together(shared_refs, with_mps=True)
    assert isinstance(speed, TrialSpeed), speed
    assert speed.trials == 2
    assert 0 < speed.seconds_per_kimg < 100
    assert speed.eval_seconds > 0
    assert len(machine.started) == before + 1
    wait_until_free()
    assert mps.state() == "runs", "it outlives the processes of the trials that started it"
    assert mps.stop()


def test_the_first_failure_ends_the_measuring(
    machine: Machine, shared_refs: SharedRefs, evaluator: Evaluator
) -> None:
    """Well before the bound, although the others wait at the gate; and the GPU is free again."""
    wait_until_free()
    wrong = SharedRefs(ray.put("no images"), ray.put(evaluator), UserCode())
    begun = time.monotonic()
    assert "AttributeError: 'str' object has no attribute" in str(profile_together(wrong))
    assert time.monotonic() - begun < READY_SEC
    wait_until_free()


def test_trials_that_are_not_ready_in_time_end_the_measuring(
    machine: Machine, shared_refs: SharedRefs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_free()
    monkeypatch.setattr(profiling, "READY_SEC", -profiling.WINDOW_SEC)
    assert profile_together(shared_refs, eval_sec=0.0) == "2 of 2 were not ready within 0 s"
    wait_until_free()


def test_a_busy_gpu_and_a_process_that_dies_have_different_reasons(
    machine: Machine, shared_refs: SharedRefs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_free()
    largest = largest_config(SPACE)
    dies = SharedRefs("images", Death(), UserCode())
    assert "the process that measured a trial died" in str(profiling.profile_alone(largest, dies, WHOLE_GPU))
    wait_until_free()
    monkeypatch.setattr(profiling, "GPU_WAIT_SEC", 1.0)
    monkeypatch.setattr(profiling, "PLACE_SEC", 1.0)
    too_large = TrialResources(cpus=8.0, gpus=1.0)
    assert profiling.profile_alone(largest, shared_refs, too_large) == (
        "within 1 s no machine was free for a trial, or it took longer"
    )
    assert profile_together(shared_refs, too_large) == "no GPU with 16 cores was free within 1 s"


class Death:
    """Ends the process that calls its method."""

    def hex(self) -> str:
        os._exit(1)


@pytest.mark.parametrize("address", ["local", "auto"])
def test_daemons_live_as_long_as_the_sweep(machine: Machine, address: str) -> None:
    """On this machine directly, on a cluster by a task on every node with a GPU."""
    before = len(machine.started)
    with MpsSharing(address) as sharing:
        assert sharing.begin() == ""
        assert sharing.works
        assert mps.state() == "runs"
    assert len(machine.started) == before + 1
    assert mps.state() == "found"


def test_machines_that_are_added_later_try_mps(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", list)
    with MpsSharing("auto") as sharing:
        assert sharing.begin() == ""
        assert sharing.works


def test_a_node_without_the_program_gives_the_reason(machine: Machine) -> None:
    program = machine.bin / "nvidia-cuda-mps-control"
    program.rename(machine.bin / "away")
    try:
        with MpsSharing("auto") as sharing:
            assert sharing.begin() == "nvidia-cuda-mps-control is not on this machine"
            assert not sharing.works
    finally:
        (machine.bin / "away").rename(program)


def test_the_packing_is_chosen_by_trials_that_really_train(
    machine: Machine,
    shared_refs: SharedRefs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The whole decision; only the GPU's memory is made up."""
    wait_until_free()
    caplog.set_level("INFO", "pipeline")

    def on_gpu(*arguments: Any) -> Any:
        profile = profiling.profile_alone(*arguments)
        assert isinstance(profile, TrialProfile), profile
        return TrialProfile(profile.seconds_per_kimg, profile.eval_seconds, GIB, "pretended", 80 * GIB)

    monkeypatch.setattr(packing, "profile_alone", on_gpu)
    cluster = Cluster([{"CPU": 2.0, "GPU": 1.0}])
    with MpsSharing("auto") as sharing:
        chosen = choose_packing(SweepConfig(name="x"), SPACE, cluster, shared_refs, sharing)
    assert caplog.messages[:2] == [
        "packing: measuring the largest trial alone on a GPU",
        "packing: measuring 2 at a time on one GPU",
    ]
    assert "times the trials per hour of one" in caplog.messages[2]
    assert chosen.speed is not None
    assert chosen.resources.gpus == 1 / chosen.speed.trials
