"""What is refused before a sweep writes anything."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_folders import write_running_sweep, write_summary

from pipeline.cli.main import main
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError, SweepError
from pipeline.search.space.builtin import load_space
from pipeline.storage.summary_file import FidEvaluator
from pipeline.sweep.manifest import DataFacts, SweepFacts, manifest_of
from pipeline.sweep.preflight import check_folders, check_machine, check_request
from pipeline.sweep.request import Request
from pipeline.sweep.run import run_sweep


def request_in(out: Path, dry: bool = False, **options: object) -> Request:
    config = SweepConfig(name="x", space="smoke", **options)  # type: ignore[arg-type]
    return Request(load_space("smoke"), config, out, None, dry_run=dry)


def test_a_machine_without_a_gpu_refuses_trials_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sweep.preflight.visible_gpus", lambda: 0)
    with pytest.raises(
        ConfigError, match=r"0.5 GPU\) fits on no node.*--gpus-per-trial \(0 trains on cores\)"
    ):
        run_sweep(request_in(tmp_path / "runs", gpus_per_trial=0.5))
    assert list(tmp_path.iterdir()) == []


MORE_CORES = float((os.cpu_count() or 1) + 1)


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpus_per_trial": MORE_CORES}, r"one trial .* fits on no node .*; lower --cpus-per-trial"),
        ({"require": "fast=1"}, r"fits on no node .*; correct --require"),
        ({"require": "accelerator=L4", "gpus_per_trial": 0}, r"fits on no node .*; correct --require"),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], said: str, dry: bool
) -> None:
    with pytest.raises(ConfigError, match=said):
        run_sweep(request_in(tmp_path / "runs", dry, **options))
    assert list(tmp_path.iterdir()) == []


def test_one_core_is_enough_for_one_trial_and_more_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.sweep.preflight.visible_gpus", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with caplog.at_level(logging.INFO):
        check_machine(SweepConfig(concurrency=4))
        check_machine(SweepConfig(concurrency=2, cpus_per_trial=0.5))
    assert "cores: 1 usable of 4" in caplog.text
    assert "--concurrency 4: 1 fit, each 1 CPU, 0 GPU" in caplog.text
    assert "--concurrency 2" not in caplog.text
    with pytest.raises(ConfigError, match="lower --cpus-per-trial"):
        check_machine(SweepConfig(cpus_per_trial=1.5))


def test_a_file_in_place_of_the_sweeps_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(SweepError, match="the sweep's folder cannot be written: .*/x"):
        check_folders(request_in(tmp_path))


def test_a_file_in_place_of_a_database_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    request = dataclasses.replace(request_in(tmp_path), storage=f"sqlite:///{tmp_path}/file/s.db")
    with pytest.raises(SweepError, match=r"the study's folder .*file .*correct --storage"):
        check_folders(request)
    (tmp_path / "artifacts").touch()
    with pytest.raises(SweepError, match="the folder of MLflow's files .*artifacts"):
        check_folders(request_in(tmp_path))


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_file_system_without_locks_is_refused_by_the_command(tmp_path: Path, dry: tuple[str, ...]) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, fcntl\n"
        "def flock(file, how): raise OSError(errno.ENOSYS, 'Function not implemented')\n"
        "fcntl.flock = flock\n"
    )
    out = tmp_path / "a/runs"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "--data", "digits", "--out", str(out), *dry],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "error: the file system has no file locks" in " ".join(done.stderr.split())
    assert not out.parent.exists()


@pytest.mark.parametrize("dry", [True, False])
def test_a_second_gpu_is_refused_before_anything_is_written(tmp_path: Path, dry: bool) -> None:
    with pytest.raises(ConfigError, match="trains on one GPU"):
        run_sweep(request_in(tmp_path / "runs", dry, gpus_per_trial=2, require="fast=1"))
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
def test_every_command_refuses_a_second_gpu_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: list[str],
) -> None:
    out = tmp_path / "runs"
    if typed[0] == "resume":  # a sweep that an older version began
        facts = SweepFacts(data=DataFacts(fingerprint=""), evaluator=FidEvaluator())
        (out / "x").mkdir(parents=True)
        old = manifest_of(request_in(out, gpus_per_trial=2.0), facts, "sqlite:///x.db").to_toml()
        (out / "x/sweep.toml").write_text(old)
    before = sorted(tmp_path.rglob("*"))
    logger = logging.getLogger("pipeline")
    monkeypatch.setattr(logger, "handlers", [])  # the command sets up its own log
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(sys, "argv", ["gansweep", *(word.replace("OUT", str(out)) for word in typed)])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert (ended.value.code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("error: --gpus-per-trial 2 is too many")
    fix = "go on by" if typed[0] == "resume" else "write --gpus-per-trial 1"
    assert lines[0].split("; ")[1].startswith(fix)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_of_the_users_that_is_read_only_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = {"notes.txt", "sweep.toml"}  # the second one is replaced, not written
    monkeypatch.setattr(os, "access", lambda path, how, **_: Path(path).name not in closed)
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    (tmp_path / "x").mkdir()
    for name in (*closed, "spool.jsonl"):
        (tmp_path / "x" / name).touch()
    check_folders(request_in(tmp_path))
    closed.add("spool.jsonl")
    with pytest.raises(
        SweepError, match=r"the sweep's folder cannot be written: .*/spool.jsonl \(permission"
    ):
        check_folders(request_in(tmp_path))


def test_a_finished_sweep_asks_nothing_of_this_machine(tmp_path: Path) -> None:
    facts = SweepFacts(data=DataFacts(fingerprint=""), evaluator=FidEvaluator())
    request = request_in(tmp_path, cpus_per_trial=MORE_CORES)
    write_running_sweep(request.paths.root)
    request.paths.config.write_text(manifest_of(request, facts, "sqlite:///x.db").to_toml())
    with pytest.raises(ConfigError, match="fits on no node"):
        check_request(request)
    write_summary(request.paths, state="finished")
    check_request(request)
    more = dataclasses.replace(request.config, trials=request.config.trials + 1)
    with pytest.raises(ConfigError, match="fits on no node"):
        check_request(dataclasses.replace(request, config=more))
