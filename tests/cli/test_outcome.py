"""How the outcome of a sweep is printed and becomes an exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from sweep_folders import summary_of

from pipeline.cli import outcome
from pipeline.sweep.result import Result

BEST = {"trial": 4, "fid": 12.345, "balance": 0.5, "kimg": 20, "params": {}, "search_fid": 12.0}
MEASURED = {"n": 500, "fid": 12.345, "fid_low": 12.0, "fid_high": 12.7, "verdicts": []}
VERSION = {
    "name": "digits", "version": 3, "alias": "champion", "uri": "models:/digits/3",
    "reason": "registered; there was no champion",
}  # fmt: skip


def result(state: str, **summary: Any) -> Result:
    return Result(
        name="s",
        state=state,
        folder=Path("runs/s"),
        location="runs/with space",
        tracking_uri="sqlite:///mlflow.db",
        resume_command="gansweep resume 'runs/with space'",
        summary=summary_of(**{"best": None, **summary}),
        plan=(("sweep", "runs/[red]/s"),),
    )


def test_an_interrupted_sweep_exits_with_130_and_the_command_to_resume(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as done:
        outcome.conclude(result("interrupted"))
    assert done.value.exit_code == 130
    assert "gansweep resume 'runs/with space'" in capsys.readouterr().err


def test_a_dry_run_prints_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    outcome.conclude(result("planned"))
    assert capsys.readouterr().out.split() == ["sweep", "runs/[red]/s"]


def test_a_sweep_without_a_fid_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as done:
        outcome.conclude(result("finished"))
    assert done.value.exit_code == 1
    assert "no trial has a fid" in capsys.readouterr().err


def test_what_was_asked_for_and_not_done_exits_with_1_and_the_command_that_completes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = {"trial": 4, "fid": 12.345, "balance": 0.5, "kimg": 20, "params": {}}
    undone = replace(result("failed", best=best), undone=("no version was registered: it is away",))
    with pytest.raises(typer.Exit) as done:
        outcome.conclude(undone)
    assert done.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "no version was registered: it is away",
        "complete it with: gansweep resume 'runs/with space'",
    ]


def test_a_sweep_ends_in_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    final = {"best": BEST, "measurement": MEASURED}
    done = result("finished", best=BEST, finalists=[final], registered=VERSION, stopped_by="target_fid")
    outcome.conclude(done)
    captured = capsys.readouterr()
    assert captured.out.split("\n\n")[1].splitlines() == [
        "result  trial 4: fid 12.35 [12.00, 12.70], balance 0.50, no copies, no collapse",
        "model   models:/digits@champion, version 3: there was no champion",
        "report  'runs/with space'/report.html",
        "sample  gansweep sample models:/digits@champion -n 100 --out samples.png"
        " --tracking-uri sqlite:///mlflow.db",
        "explain gansweep explain 'runs/with space'",
    ]
    assert captured.err == ""


def test_without_a_registered_version_the_folder_is_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    measured = {**MEASURED, "verdicts": ["collapsed: 1 of 10 modes"]}
    outcome.conclude(result("finished", best=BEST, finalists=[{"best": BEST, "measurement": measured}]))
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert lines[0].endswith("balance 0.50, collapsed: 1 of 10 modes")
    assert lines[1] == "model   not registered; gansweep register 'runs/with space'"
    assert lines[3] == "sample  gansweep sample 'runs/with space' -n 100 --out samples.png"


def test_every_finalist_is_printed_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    outcome.print_finalists(summary_of(finalists=[{"best": BEST, "measurement": MEASURED}]))
    assert capsys.readouterr().out.splitlines() == [
        "finalist 4  fid 12.35 [12.00, 12.70] of 500 samples (12.00 during the search); "
        "no copies, no collapse",
    ]
