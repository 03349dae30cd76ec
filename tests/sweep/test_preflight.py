"""What is refused before a sweep writes anything."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.search.space.builtin import load_space
from pipeline.storage.summary_file import FidEvaluator
from pipeline.sweep.manifest import DataFacts, SweepFacts, manifest_of
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
