"""A dry run of a sweep that exists: what its bounds leave, what an hour should bring; it writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from sweep_folders import write_summary

from pipeline.config import SweepConfig
from pipeline.search.budgets import UNLIMITED
from pipeline.search.space.parser import parse_space
from pipeline.sweep.build_request import build_request
from pipeline.sweep.inputs import load_inputs
from pipeline.sweep.manifest import manifest_of
from pipeline.sweep.options import ResumeOptions, RunOptions
from pipeline.sweep.outlook import outlook
from pipeline.sweep.request import Request
from pipeline.sweep.run import run_sweep
from pipeline.tracking.tracking_uri import default_uri

SPACE = parse_space("[search]\nlr_g = { float = [1e-4, 1e-2], log = true }")
HOUR = {
    "trials": 34, "needed": 12, "trials_per_hour": 20.0, "gain": 0.031, "chance": 0.6, "fid": 12.1,
    "plateau": 0.04,
}  # fmt: skip
ROW = {"trial": 4, "state": "complete", "fid": 12.5, "balance": 0.5, "kimg": 9, "params": {}}


def rows(root: Path, summary: dict[str, Any] | None = None, **bounds: Any) -> dict[str, str]:
    """What is said of a sweep of five ended trials and 100 seconds."""
    request = Request(SPACE, SweepConfig(**{"name": "a", "trials": 8, **bounds}), root, None)
    request.paths.root.mkdir(parents=True)
    if summary is not None:
        write_summary(request.paths, **summary)
    return dict(outlook(request))


COUNTS = {"complete": 2, "pruned": 3, "failed": 0, "running": 0}
INTERRUPTED = {"state": "interrupted", "leaderboard": [ROW], "trials": COUNTS, "one_more_hour": HOUR}


def test_what_is_left_and_what_an_hour_should_bring(tmp_path: Path) -> None:
    found = rows(tmp_path, INTERRUPTED, time_budget_sec=130.0, target_fid=9.0)
    assert found == {
        "so far": "interrupted: 5 trials in 1:40, best fid 12.5",
        "left": "3 of 8 trials, 0:30 of 2:10, until a fid of 9",
        "one more hour": "best fid -3.1 % (about 12.1), 60 % chance of any gain; from 34 trials, 20 an hour",
    }


@pytest.mark.parametrize(
    ("bounds", "end"),
    [
        ({"trials": 5}, "so no new trial begins: raise --trials"),
        ({"time_budget_sec": 90.0}, "so no new trial begins: time budget of 90 s is spent"),
        ({"until_plateau": 5.0}, "fid by at most 4 %, less than 5 % (--until-plateau)"),
        ({"until_plateau": 2.0, "trials": UNLIMITED}, "less than 2 % (20 trials at least)"),
        ({"cost_budget": 2.0, "price": "cpu=1"}, "1.5 of 2 cost"),
    ],
)
def test_a_bound_that_is_met_is_said(tmp_path: Path, bounds: dict[str, Any], end: str) -> None:
    assert rows(tmp_path, {**INTERRUPTED, "cost": 0.5}, **bounds)["left"].endswith(end)


def test_a_rough_number_is_called_so(tmp_path: Path) -> None:
    many = {**HOUR, "trials_per_hour": 900.0}
    hour = rows(tmp_path, {**INTERRUPTED, "one_more_hour": many})["one more hour"]
    assert hour.endswith("900 an hour, so it is rough")


def test_a_sweep_of_an_earlier_version_and_one_that_was_killed_at_once(tmp_path: Path) -> None:
    old = {name: value for name, value in INTERRUPTED.items() if name != "one_more_hour"}
    assert rows(tmp_path / "old", old)["one more hour"] == "not known yet (1 of 12 trials with a fid)"
    assert rows(tmp_path / "new") == {"so far": "nothing: no trial has begun"}


def test_a_dry_run_of_a_resume_starts_no_ray_and_writes_nothing(tmp_path: Path) -> None:
    typed = {
        "data": "digits",
        "space": "smoke",
        "extractor": "pixels",
        "second_extractor": "none",
        "name": "a",
    }
    begun = build_request(RunOptions(out=tmp_path / "runs", no_register=True, trials=8, **typed))
    uri = default_uri(begun.out)
    request, inputs = load_inputs(begun, None)
    request.paths.root.mkdir(parents=True)
    request.paths.config.write_text(manifest_of(request, inputs.facts, uri).to_toml())
    write_summary(request.paths, **INTERRUPTED)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    options = ResumeOptions(request.paths.root, dry_run=True, trials=10, until_plateau=1.0)
    result = run_sweep(build_request(options))
    plan = dict(result.plan)
    assert (result.state, result.summary) == ("planned", None)
    assert plan["left"].startswith("5 of 10 trials, until an hour brings less than 1 %")
    assert plan["one more hour"].startswith("best fid -3.1 %")
    assert not ray.is_initialized()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
