"""Who shares a GPU: decided by measured trials per hour, by tasks of a real Ray whose GPU is only a number.

The trials train on cores, and the MPS daemon is a script; CUDA has no part in this.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pretended_mps import Machine

from pipeline import cli, mps, node, spaces, worker
from pipeline.calibration import Calibration
from pipeline.config import SweepConfig
from pipeline.data import Dataset
from pipeline.errors import ConfigError, GansweepError
from pipeline.fid import Evaluator
from pipeline.resources import Cluster, Pace, Share
from pipeline.sweep import Request, estimate, measuring
from pipeline.sweep.sharing import Sharing

GIB = 2**30
TINY = """
[fixed]
kimg = 20
tick_kimg = 10
width_g = 4
width_d = 4
z_dim = 8
[search]
batch_size = { choice = [16, 32] }
"""
WHOLE = Share(cpus=1.0, gpus=1.0)
ALONE = Calibration(1.0, 0.1, 2 * GIB, "pretended", 80 * GIB)


def asked(said: list[str] | None = None, **plan: Any) -> Request:
    config = SweepConfig(name="x", **plan)
    say = said.append if said is not None else print
    return Request(spaces.parse(TINY), config, Path("/none"), None, say=say)


# Without Ray.


def decided(
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[int, float],
    cores: float = 16.0,
    why: str = "",
    found: Calibration | str = ALONE,
    **plan: Any,
) -> tuple[estimate.Packing, list[str], list[int]]:
    """What is made of the gains in trials per hour; none is known where a number is left out."""
    tried, said = list[int](), list[str]()

    def pace(
        request: Request, lent: Any, share: Share, trials: int, with_mps: bool, eval_sec: float
    ) -> Pace | str:
        tried.append(trials)
        assert mps is not bool(why)
        if trials not in speeds:
            return "the process that measured a trial died: gone"
        return Pace(trials, trials / speeds[trials], trials * 0.1 / speeds[trials])

    monkeypatch.setattr(estimate, "measured", lambda *_: found)
    monkeypatch.setattr(estimate, "in_company", pace)
    monkeypatch.setattr("pipeline.mps.start", lambda: why)
    machine = Cluster([{"CPU": cores, "GPU": 1.0}])
    packing = estimate.packed(asked(said, trials=100, **plan), machine, None, Sharing("local"))
    return packing, said, tried


def test_most_trials_per_hour_win(monkeypatch: pytest.MonkeyPatch) -> None:
    packing, said, tried = decided(monkeypatch, {16: 3.1, 8: 2.5})
    assert tried == [16, 8]
    assert (packing.share.gpus, packing.share.concurrency) == (0.0625, 16)
    assert packing.pace is not None
    assert packing.pace.trials == 16
    assert said[-1] == (
        "packing: 16 trials at a time make 3.1 times the trials per hour of one: 16 per GPU (MPS)"
    )


def test_half_as_many_are_enough_where_all_win_little(monkeypatch: pytest.MonkeyPatch) -> None:
    packing, said, _ = decided(monkeypatch, {16: 3.1, 8: 3.0})
    assert packing.share.gpus == 0.125
    assert said[-1].endswith("8 trials at a time make 3 times the trials per hour of one: 8 per GPU (MPS)")


def test_half_as_many_are_not_tried_where_they_cannot_win(monkeypatch: pytest.MonkeyPatch) -> None:
    packing, _, tried = decided(monkeypatch, {8: 6.0}, cores=8)
    assert (packing.share.gpus, tried) == (0.125, [8])


def test_without_a_gain_each_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    packing, said, _ = decided(monkeypatch, {8: 1.1, 4: 1.05}, cores=8)
    assert (packing.share.gpus, packing.share.concurrency) == (1.0, 1)
    assert said[-1] == (
        "packing: 8 at a time make 1.1, 4 at a time make 1.1 times the trials per hour of one: one GPU each"
    )


def test_what_fails_together_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    packing, said, tried = decided(monkeypatch, {4: 2.0}, cores=8)
    assert (packing.share.gpus, tried) == (0.25, [8, 4])
    assert "packing: not 8 at a time: the process that measured a trial died: gone" in said
    packing, said, _ = decided(monkeypatch, {}, cores=8)
    assert packing.share.gpus == 1.0


def test_without_mps_two_are_tried_at_most_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packing, said, tried = decided(monkeypatch, {2: 1.3}, why="no program")
    assert (packing.share.gpus, tried) == (0.5, [2])
    assert [line for line in said if "no program" in line] == [
        "warning: at most 2 trials per GPU, for they take turns on it without MPS: no program"
    ]
    assert said[-1].endswith("2 per GPU")


@pytest.mark.parametrize(
    ("cores", "found", "plan", "message"),
    [
        (1.0, ALONE, {}, "takes 2.00 GiB on pretended (80.00 GiB), 1 cores for each GPU"),
        (16.0, ALONE, {"concurrency": 1}, "there are no more trials than GPUs"),
        (16.0, Calibration(1.0, 0.1, 60 * GIB, "pretended", 80 * GIB), {}, "takes 60.00 GiB"),
        (16.0, "it does not fit the GPU: no memory", {}, "it does not fit the GPU: no memory: one GPU each"),
        (16.0, Calibration(1.0, 0.1, GIB, "cpu"), {}, "torch sees no GPU where Ray has one: one GPU each"),
    ],
)  # fmt: skip
def test_why_one_is_alone_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
    cores: float,
    found: Calibration | str,
    plan: dict[str, Any],
    message: str,
) -> None:
    packing, said, tried = decided(monkeypatch, {}, cores, found=found, **plan)
    assert (packing.share.gpus, tried) == (1.0, [])
    assert message in said[-1]
    assert packing.found is found or packing.found == "torch sees no GPU where Ray has one"


def test_a_share_that_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    packing, said, tried = decided(monkeypatch, {}, why="no program", gpus_per_trial=0.25)
    assert (packing.share.gpus, packing.share.concurrency, tried) == (0.25, 4, [])
    assert said == ["warning: trials that share a GPU take turns on it: no program"]


def test_a_trial_comes_to_mps_before_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    order = list[str]()

    def borrow(_: Any) -> Any:
        order.append("cuda")
        raise GansweepError("enough")

    monkeypatch.setattr(worker, "borrow", borrow)
    monkeypatch.setattr("pipeline.mps.start", lambda: order.append("mps") or "")
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(worker, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setattr(worker.tune, "report", lambda news: order.append(news["failure"]))
    for mps_too in (4, 0):
        worker.train({"number": 0, "params": {}}, fixed={}, root="", threads=1, lent=None, mps=mps_too)  # type: ignore[arg-type]
    assert order == ["mps", "cuda", "enough", "cuda", "enough"]


def test_processes_of_gpu_tasks_are_used_once() -> None:
    assert worker.FINALIST._default_options["max_calls"] == 1
    assert node.task(measuring._measure)._default_options["max_calls"] == 1


def test_a_process_says_once_why_it_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.mps.start", lambda: "no program")
    monkeypatch.setattr(node, "_TOLD", set())
    said = list[str]()
    monkeypatch.setenv(mps.PERCENTAGE, "")
    monkeypatch.delenv(mps.PERCENTAGE)
    node.join_mps(8, said.append)
    node.join_mps(8, said.append)
    assert said == ["trials that share a GPU take turns on it: no program"]
    assert os.environ[mps.PERCENTAGE] == "25"
    monkeypatch.setenv(mps.PERCENTAGE, "60")  # the user's own
    node.join_mps(8, said.append)
    assert os.environ[mps.PERCENTAGE] == "60"


@pytest.mark.parametrize("dry", [True, False])
def test_a_second_gpu_is_refused_before_anything_is_written(tmp_path: Path, dry: bool) -> None:
    from pipeline import sweep

    plan = SweepConfig(name="x", gpus_per_trial=2, require="fast=1")
    with pytest.raises(ConfigError, match="trains on one GPU"):
        sweep.run(Request(spaces.parse(TINY), plan, tmp_path / "runs", None, dry_run=dry, measure=dry))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "typed",
    [
        ["run", "--space", "smoke", "--data", "digits", "--out", "OUT", "--gpus-per-trial", "2"],
        ["run", "--space", "smoke", "--data", "digits", "--out", "OUT", "--gpus-per-trial", "2", "--dry-run"],
        ["submit", "--space", "smoke", "--data", "digits", "--out", "OUT", "--gpus-per-trial", "2"],
        ["resume", "OUT/x"],
    ],
    ids=["run", "dry run", "submit", "resume"],
)
def test_every_way_to_ask_for_a_second_gpu_ends_in_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: list[str],
) -> None:
    from pipeline.sweep.stored import sweep_toml

    out = tmp_path / "runs"
    if typed[0] == "resume":  # what an older gansweep began
        facts = {"data": {"fingerprint": ""}, "evaluator": {"hash": ""}}
        (out / "x").mkdir(parents=True)
        (out / "x/sweep.toml").write_text(sweep_toml(asked(gpus_per_trial=2.0), facts, "sqlite:///x.db"))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["gansweep", *(word.replace("OUT", str(out)) for word in typed)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert (ended.value.code, len(said)) == (2, 1), said
    assert said[0].startswith(
        "error: a trial trains on one GPU, and a second one would idle; got --gpus-per-t"
    )
    assert (
        said[0].split("; ")[2].startswith("go on by" if typed[0] == "resume" else "write --gpus-per-trial 1")
    )
    assert sorted(tmp_path.rglob("*")) == before


# With Ray.

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
) -> node.Lent:
    monkeypatch.setattr(measuring, "READY_SEC", PATIENT)
    return node.lend(dataset, evaluator)


def free(seconds: float = 20.0) -> None:
    """Wait until the GPU is given back."""
    import ray

    until = time.monotonic() + seconds
    while ray.available_resources().get("GPU") != 1 or ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until, ray.available_resources()
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_process_of_a_task_ends_with_it(machine: Machine) -> None:
    import ray

    pid = ray.get(node.task(lambda: os.getpid()).options(num_gpus=1).remote())
    until = time.monotonic() + 15
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_train_at_the_same_time_by_one_daemon(machine: Machine, lent: node.Lent) -> None:
    free()
    before = len(machine.started)
    pace = measuring.in_company(asked(), lent, WHOLE, 2, with_mps=True, eval_sec=0.1)
    assert isinstance(pace, Pace), pace
    assert pace.trials == 2
    assert 0 < pace.seconds_per_kimg < 100
    assert pace.eval_seconds > 0
    assert len(machine.started) == before + 1
    free()
    assert mps.state() == "runs", "it outlives the processes of the trials that started it"
    assert mps.stop()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_alone_is_measured(machine: Machine, lent: node.Lent) -> None:
    free()
    found = measuring.measured(asked(), lent, WHOLE)
    assert isinstance(found, Calibration), found
    assert found.seconds_per_kimg > 0
    assert found.device == "cpu"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_first_failure_ends_the_measuring(
    machine: Machine, lent: node.Lent, evaluator: Evaluator
) -> None:
    """Well before the bound, although the others wait at the gate; and the GPU is free again."""
    free()
    wrong = node.lend("no images", evaluator)  # type: ignore[arg-type]
    said = "the largest trial fails: AttributeError: 'str' object has no attribute"
    assert str(measuring.measured(asked(), wrong, WHOLE)).startswith(said)
    free()
    begun = time.monotonic()
    assert str(measuring.in_company(asked(), wrong, WHOLE, 2, with_mps=False, eval_sec=0.1)).startswith(said)
    assert time.monotonic() - begun < PATIENT
    free()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_who_is_not_ready_in_time_ends_the_candidate(
    machine: Machine, lent: node.Lent, monkeypatch: pytest.MonkeyPatch
) -> None:
    free()
    monkeypatch.setattr(measuring, "READY_SEC", -measuring.WINDOW_SEC)
    found = measuring.in_company(asked(), lent, WHOLE, 2, with_mps=False, eval_sec=0.0)
    assert found == "2 of 2 were not ready within 0 s"
    free()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gpu_in_use_and_a_process_that_dies_are_told_apart(
    machine: Machine, lent: node.Lent, monkeypatch: pytest.MonkeyPatch
) -> None:
    free()
    dies = SimpleNamespace(dataset=Death(), evaluator=None)
    assert "the process that measured a trial died" in str(measuring.measured(asked(), dies, WHOLE))
    free()
    monkeypatch.setattr(measuring, "GPU_WAIT_SEC", 1.0)
    monkeypatch.setattr(measuring, "PLACE_SEC", 1.0)
    busy = Share(cpus=8.0, gpus=1.0)
    assert measuring.measured(asked(), lent, busy) == (
        "within 1 s no machine was free for a trial, or it took longer"
    )
    found = measuring.in_company(asked(), lent, busy, 2, with_mps=False, eval_sec=0.0)
    assert found == "no GPU with 16 cores was free within 1 s"


class Death:
    """Ends the process that asks for its name."""

    def hex(self) -> str:
        os._exit(1)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("address", ["local", "auto"])
def test_daemons_live_as_long_as_the_sweep(machine: Machine, address: str) -> None:
    """Of this machine directly, of a cluster by a task on every node with a GPU."""
    before = len(machine.started)
    with Sharing(address) as sharing:
        assert sharing.begin() == ""
        assert sharing.works
        assert mps.state() == "runs"
    assert len(machine.started) == before + 1
    assert mps.state() == "found"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_node_lacks_is_told(machine: Machine) -> None:
    program = machine.bin / "nvidia-cuda-mps-control"
    away: Callable[[Any], Any] = program.rename
    away(machine.bin / "away")
    try:
        with Sharing("auto") as sharing:
            assert sharing.begin() == "nvidia-cuda-mps-control is not on this machine"
            assert not sharing.works
    finally:
        (machine.bin / "away").rename(program)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_auto_decides_by_what_trains(
    machine: Machine, lent: node.Lent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole decision; only the GPU's memory is made up."""
    free()
    real = estimate.measured

    def on_gpu(*given: Any) -> Any:
        found = real(*given)
        return Calibration(found.seconds_per_kimg, found.eval_seconds, GIB, "pretended", 80 * GIB)

    monkeypatch.setattr(estimate, "measured", on_gpu)
    said = list[str]()
    with Sharing("auto") as sharing:
        packing = estimate.packed(asked(said), Cluster([{"CPU": 2.0, "GPU": 1.0}]), lent, sharing)
    assert said[:2] == [
        "packing: measuring the largest trial alone on a GPU",
        "packing: measuring 2 at a time on one GPU",
    ]
    assert "times the trials per hour of one" in said[2]
    assert packing.pace is not None
    assert packing.share.gpus == 1 / packing.pace.trials
