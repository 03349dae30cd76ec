"""`gansweep.run` and `resume`: the commands' options as keyword arguments, and what comes back."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gansweep
from pipeline.storage.summary_file import FidEvaluator
from pipeline.sweep.build_request import build_request
from pipeline.sweep.manifest import DataFacts, SweepFacts, manifest_of
from pipeline.sweep.options import ResumeOptions, RunOptions
from pipeline.sweep.request import Request
from pipeline.sweep.result import Result

SPACE = {
    "fixed": {"architecture": "mlp", "kimg": 2, "tick_kimg": 1},
    "search": {"lr_g": {"float": [1e-4, 1e-2]}},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Request]:
    """The requests that `run` makes, instead of sweeps."""
    requests: list[Request] = []

    def run_sweep(request: Request) -> Result:
        requests.append(request)
        return Result.of(request, "interrupted" if request.config.seed == 99 else "planned", "sqlite:///x")

    monkeypatch.setattr("pipeline.sweep.run.run_sweep", run_sweep)
    return requests


def test_the_keywords_are_the_options_of_the_command() -> None:
    names = {field.name for field in dataclasses.fields(RunOptions)}
    assert set(inspect.signature(gansweep.run).parameters) == names
    assert {"location", "trials", "time_budget", "quiet"} <= set(
        inspect.signature(gansweep.resume).parameters
    )


def test_options_reach_the_request(asked: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    result = gansweep.run(
        space="smoke",
        data="digits",
        set={"loss": "hinge"},
        time_budget=600,
        gpus_per_trial=0.5,
        no_register=True,
    )
    (request,) = asked
    assert request.space.fixed["loss"] == "hinge"
    assert request.config.time_budget_sec == 600
    assert request.config.gpus_per_trial == 0.5
    assert request.register is None
    assert request.tracking_uri == "http://somewhere:5000"
    assert (result.name, result.state, result.leaderboard) == ("smoke", "planned", ())


def test_a_space_may_be_its_tables_or_a_checked_one(asked: list[Request]) -> None:
    gansweep.run(space=SPACE, name="mine", data="digits")
    gansweep.run(space=asked[0].space, data="digits")
    assert asked[0].space == asked[1].space
    assert [request.config.name for request in asked] == ["mine", "sweep"]
    assert asked[0].space.fixed["kimg"] == 2


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"trials": 0}, "trials = 0 is out of range"),
        ({"trials": "3"}, "trials = 3 is out of range"),
        ({"sampler": "grid"}, "sampler = grid is unknown"),
        ({"space": {"search": {"lr_q": {"float": [1, 2]}}}}, "did you mean 'lr_g'"),
        ({"set": {"lr_x": 1}}, "did you mean"),
        ({"time_budget": -3}, "time -3 cannot be read"),
        (
            {"metric": "mine:sharpness"},
            r"metric = mine:sharpness is no list.*write metric=\['mine:sharpness'\]",
        ),
        ({"set": "lr_g=1e-3"}, "set = lr_g=1e-3 is no list"),
        ({"tracking_uri": 5}, "tracking_uri = 5 is no text"),
        ({"no_register": "no"}, "no_register = no is not true or false"),
        ({"gpus_per_trial": [1]}, r"--gpus-per-trial \[1\] cannot be used"),
        ({"promote": "best"}, "--promote best is unknown"),
        ({"register": "a/b"}, "a/b.* cannot be a model's name"),
    ],
)
def test_a_wrong_option_is_one_line(wrong: dict[str, object], expected: str, tmp_path: Path) -> None:
    with pytest.raises(gansweep.UserError, match=expected) as caught:
        gansweep.run(**{"space": "smoke", "data": "digits", "out": tmp_path / "runs", **wrong})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_keyword_is_answered_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"run\(\) has no option 'trails'; did you mean 'trials'"):
        gansweep.run(trails=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"resume\(\): missing a required argument: 'location'"):
        gansweep.resume(trials=3)  # type: ignore[call-arg]


def test_an_interruption_says_how_to_go_on(asked: list[Request]) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"gansweep\.resume"):
        gansweep.run(space="smoke", data="digits", seed=99)


def test_the_import_loads_no_framework() -> None:
    code = (
        "import gansweep, sys; print([m for m in ('torch', 'ray', 'optuna', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_password_is_refused_by_run_and_by_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANSWEEP_STORAGE", raising=False)
    options = RunOptions(space="smoke", data="digits", out=tmp_path)
    request = build_request(options)
    request.paths.root.mkdir()
    facts = SweepFacts(data=DataFacts(fingerprint=""), evaluator=FidEvaluator())
    request.paths.config.write_text(manifest_of(request, facts, "sqlite:///x.db").to_toml())
    given = "postgresql://me:s3cret@host/db"
    for asked in (
        dataclasses.replace(options, storage=given),
        ResumeOptions(request.paths.root, storage=given),
    ):
        with pytest.raises(gansweep.UserError, match="a password in --storage") as caught:
            build_request(asked)
        assert "s3cret" not in str(caught.value)


def test_a_sweep_that_was_copied_goes_on_in_its_copy(tmp_path: Path) -> None:
    request = build_request(RunOptions(space="smoke", data="digits", out=tmp_path))
    facts = SweepFacts(data=DataFacts(fingerprint=""), evaluator=FidEvaluator())
    for name in ("smoke", "copy"):
        (tmp_path / name).mkdir()
        text = manifest_of(request, facts, "sqlite:///x.db").to_toml()
        (tmp_path / name / "sweep.toml").write_text(text)
        again = build_request(ResumeOptions(tmp_path / name, trials=99))
        assert again.paths.root == tmp_path / name
        assert (again.config.name, again.config.trials) == ("smoke", 99)


def test_resume_of_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(gansweep.UserError, match="no sweep in"):
        gansweep.resume(tmp_path / "none", trials=5)


def test_a_default_request_is_that_of_the_command() -> None:
    assert build_request(RunOptions()).config.trials == 40
    assert build_request(RunOptions(time_budget="10m")).config.trials > 40


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_from_python(tmp_path: Path) -> None:
    """In a process of its own, as Ray leaves threads behind; with an event loop, as in a notebook."""
    script = f"""
import asyncio, json, gansweep
async def cell():
    return gansweep.run(space="smoke", name="door", data="digits", out={str(tmp_path)!r}, trials=2,
                        final_seeds=0, quiet=True)
if __name__ == "__main__":
    result = asyncio.run(cell())
    again = gansweep.resume(result.folder)
    images, _ = gansweep.load_generator(result.champion, tracking_uri=result.tracking_uri).sample(4, seed=0)
    print(json.dumps([result.state, len(result.leaderboard), result.champion, str(result.report),
                      again.state, again.champion, list(images.shape)]))
"""
    (tmp_path / "sweep.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "sweep.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    champion, report = "models:/door@champion", str(tmp_path / "door" / "report.html")
    assert found == ["finished", 2, champion, report, "finished", champion, [4, 8, 8, 1]]
