"""Who shares a GPU: decided by measured trials per hour, by tasks of a real Ray whose GPU is only a number.

The trials train on cores, and the MPS daemon is a script; CUDA has no part in this.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from pipeline.cli.main import main
from pipeline.cluster import mps, packing, profiling, shared_objects, worker
from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.cluster.runner import choose_tick
from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import ConfigError, GansweepError
from pipeline.search.resources import Cluster, TrialResources
from pipeline.search.space.parser import parse_space
from pipeline.search.trial_manager import TrialManager
from pipeline.sweep.request import Request
from pipeline.training.profiling import TrialProfile
from pipeline.training.trial_speed import TrialSpeed

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
WHOLE = TrialResources(cpus=1.0, gpus=1.0)
ALONE = TrialProfile(1.0, 0.1, 2 * GIB, "pretended", 80 * GIB)


def asked(said: list[str] | None = None, **plan: Any) -> Request:
    config = SweepConfig(name="x", **plan)
    say = said.append if said is not None else print
    return Request(parse_space(TINY), config, Path("/none"), None, say=say)


# Without Ray.


def decided(
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[int, float],
    cores: float = 16.0,
    why: str = "",
    found: TrialProfile | str = ALONE,
    **plan: Any,
) -> tuple[packing.Packing, list[str], list[int]]:
    """What is made of the gains in trials per hour; none is known where a number is left out."""
    tried, said = list[int](), list[str]()

    def pace(
        request: Request, lent: Any, share: TrialResources, trials: int, with_mps: bool, eval_sec: float
    ) -> TrialSpeed | str:
        tried.append(trials)
        assert with_mps is not bool(why)
        if trials not in speeds:
            return "the process that measured a trial died: gone"
        return TrialSpeed(trials, trials / speeds[trials], trials * 0.1 / speeds[trials])

    monkeypatch.setattr(packing, "profile_alone", lambda *_: found)
    monkeypatch.setattr(packing, "profile_shared", pace)
    monkeypatch.setattr("pipeline.cluster.mps.start", lambda: why)
    machine = Cluster([{"CPU": cores, "GPU": 1.0}])
    packing = packing.choose_packing(asked(said, trials=100, **plan), machine, None, MpsSharing("local"))
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
        (16.0, TrialProfile(1.0, 0.1, 60 * GIB, "pretended", 80 * GIB), {}, "takes 60.00 GiB"),
        (16.0, "it does not fit the GPU: no memory", {}, "it does not fit the GPU: no memory: one GPU each"),
        (16.0, TrialProfile(1.0, 0.1, GIB, "cpu"), {}, "torch sees no GPU where Ray has one: one GPU each"),
    ],
)  # fmt: skip
def test_why_one_is_alone_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
    cores: float,
    found: TrialProfile | str,
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

    monkeypatch.setattr(worker, "get_shared", borrow)
    monkeypatch.setattr("pipeline.cluster.mps.start", lambda: order.append("mps") or "")
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(worker, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setattr(worker.tune, "report", lambda news: order.append(news["failure"]))
    for mps_too in (4, 0):
        worker.train_trial({"number": 0, "params": {}}, fixed={}, root="", threads=1, lent=None, mps=mps_too)  # type: ignore[arg-type]
    assert order == ["mps", "cuda", "enough", "cuda", "enough"]


def test_processes_of_gpu_tasks_are_used_once() -> None:
    assert shared_objects.gpu_task(profiling._measure)._default_options["max_calls"] == 1
    assert shared_objects.gpu_task(worker._finalist, 0.25)._default_options["max_calls"] == 1
    assert not shared_objects.gpu_task(worker._finalist, 0.0)._default_options.get(
        "max_calls"
    )  # a start costs seconds


@pytest.mark.parametrize("gpus", [0.0, 0.25])
def test_finalists_ask_for_what_they_have(monkeypatch: pytest.MonkeyPatch, gpus: float) -> None:
    seen = list[float]()
    remote = SimpleNamespace(options=lambda **asks: seen.append(asks["num_gpus"]))
    monkeypatch.setattr(worker, "gpu_task", lambda function, share: seen.append(share) or remote)
    given: Any = {"bounds": {}, "should_stop": bool, "say": print}
    assert (
        worker.run_finalists(
            [], SweepPaths(Path("x")), SweepConfig(name="x"), None, TrialResources(1.0, gpus), **given
        )
        == []
    )  # type: ignore[arg-type]
    assert seen == [gpus, gpus]


def test_a_process_says_once_why_it_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.mps.start", lambda: "no program")
    monkeypatch.setattr(shared_objects, "_TOLD", set())
    said = list[str]()
    monkeypatch.setenv(mps.PERCENTAGE, "")
    monkeypatch.delenv(mps.PERCENTAGE)
    shared_objects.join_mps(8, said.append)
    shared_objects.join_mps(8, said.append)
    assert said == ["trials that share a GPU take turns on it: no program"]
    assert os.environ[mps.PERCENTAGE] == "25"
    monkeypatch.setenv(mps.PERCENTAGE, "60")  # the user's own
    shared_objects.join_mps(8, said.append)
    assert os.environ[mps.PERCENTAGE] == "60"


@pytest.mark.parametrize("dry", [True, False])
def test_a_second_gpu_is_refused_before_anything_is_written(tmp_path: Path, dry: bool) -> None:
    from pipeline.sweep.run import run_sweep

    plan = SweepConfig(name="x", gpus_per_trial=2, require="fast=1")
    with pytest.raises(ConfigError, match="trains on one GPU"):
        run_sweep(Request(parse_space(TINY), plan, tmp_path / "runs", None, dry_run=dry, measure=dry))
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
    from pipeline.sweep.manifest import manifest_toml

    out = tmp_path / "runs"
    if typed[0] == "resume":  # what an older gansweep began
        facts = {"data": {"fingerprint": ""}, "evaluator": {"hash": ""}}
        (out / "x").mkdir(parents=True)
        (out / "x/sweep.toml").write_text(manifest_toml(asked(gpus_per_trial=2.0), facts, "sqlite:///x.db"))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["gansweep", *(word.replace("OUT", str(out)) for word in typed)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert (ended.value.code, len(said)) == (2, 1), said
    assert said[0].startswith(
        "error: a trial trains on one GPU, and a second one would idle; got --gpus-per-t"
    )
    assert (
        said[0].split("; ")[2].startswith("go on by" if typed[0] == "resume" else "write --gpus-per-trial 1")
    )
    assert sorted(tmp_path.rglob("*")) == before


# How often trials report.


SECONDS = """
[fixed]
kimg = 240
tick_kimg = 10
[search]
batch_size = { choice = [64, 2048] }
n_critic = { choice = [1, 5] }
"""


def ledger_of(study: optuna.Study, tmp_path: Path) -> TrialManager:
    config = SweepConfig(name="x")
    return TrialManager(study, parse_space(SECONDS), config, SweepPaths(tmp_path), (), 0.0, print)


def said_by(ledger: TrialManager, pace: TrialSpeed | None) -> tuple[dict[str, int], list[str]]:
    said = list[str]()
    request = Request(ledger.space, SweepConfig(name="x"), Path("/none"), None, say=said.append)
    return choose_tick(request, ledger, pace), said


FAST, SLOW = TrialSpeed(8, 0.01, 0.1), TrialSpeed(1, 10.0, 1.0)


def test_the_interval_between_reports_is_found_once(tmp_path: Path) -> None:
    ledger = ledger_of(optuna.create_study(), tmp_path)
    found, said = said_by(ledger, FAST)
    assert found == {"tick_kimg": 20}
    assert len(said) == 1
    assert said[0].startswith("trials report every 20 kimg: 10 would take less than 2 s")
    for pace in (SLOW, None, FAST):  # a resume on another machine, by another share
        assert said_by(ledger, pace)[0] == found


@pytest.mark.parametrize("pace", [SLOW, None])
def test_a_sweep_that_began_with_the_space_s_interval_keeps_it(
    tmp_path: Path, pace: TrialSpeed | None
) -> None:
    """And nothing is said or given where it is the space's, which is that of each trial's own turns."""
    ledger = ledger_of(optuna.create_study(), tmp_path)
    assert said_by(ledger, pace) == ({}, [])
    assert said_by(ledger, FAST) == ({}, [])


def test_a_sweep_begun_before_intervals_were_kept_goes_on_as_it_is(tmp_path: Path) -> None:
    ledger = ledger_of(optuna.create_study(), tmp_path)
    ledger.entries[0] = SimpleNamespace()  # type: ignore[assignment]
    assert said_by(ledger, FAST) == ({}, [])


# With Ray.


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_on_a_real_ray() -> None:
    here = Path(__file__).parents[1] / "support"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(here / "packing_on_ray.py"),
    ]
    done = subprocess.run(
        [*command, "-o", "timeout=300"], cwd=here.parents[1], capture_output=True, text=True, timeout=390
    )
    last = done.stdout.strip().splitlines()[-1]
    assert re.match(r"10 passed\b", last), done.stdout[-5000:] + done.stderr[-2000:]
