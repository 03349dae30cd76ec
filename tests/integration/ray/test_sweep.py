"""Whole sweeps with the real Ray, Optuna journal and sqlite MLflow, driven through the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "pipeline"]
pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(300)]


def gansweep(*arguments: str, ok: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=280)
    assert done.returncode == ok, done.stdout + done.stderr
    return done


def smoke(out: Path, *more: str) -> list[str]:
    run = ["run", "--space", "smoke", "--data", "digits", "--second-extractor", "none"]
    return [*run, "--out", str(out), *more]


def summary_of(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "summary.json").read_text())
    return content


def rows_of(root: Path, trial: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / f"trials/{trial}/records.jsonl").read_text().splitlines()]


def study_of(root: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(root / "study.journal"))
    return optuna.load_study(study_name=root.name, storage=optuna.storages.JournalStorage(backend))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of four trials with its champion."""
    out = tmp_path_factory.mktemp("runs")
    gansweep(*smoke(out, "--trials", "4", "--final-seeds", "1"))
    return out / "smoke"


def test_the_summary_keeps_its_contract(finished: Path) -> None:
    summary = summary_of(finished)
    assert {"name", "state", "wall_seconds", "kimg_total", "trials", "best", "leaderboard"} <= summary.keys()
    assert summary["state"] == "finished"
    assert sum(summary["trials"].values()) == 4
    assert set(summary["trials"]) == {"complete", "pruned", "failed", "running"}
    assert {"trial", "fid", "balance", "kimg", "params"} <= summary["best"].keys()
    assert set(summary["evaluator"]) == {"extractor", "hash", "samples"}
    assert summary["registered"]["alias"] == "champion"
    assert summary["registered"]["uri"] == "models:/smoke/1"
    assert summary["kimg_total"] == sum(rows_of(finished, n)[-1]["kimg"] for n in range(4))


def test_the_champion_is_the_best_finalist(finished: Path) -> None:
    summary = summary_of(finished)
    finals = summary["finalists"]
    assert summary["best"] == finals[0]["best"]
    assert summary["evaluator"]["samples"] == 2000
    keys = []
    for final in finals:
        first, other = final["runs"]
        trial, numbers = final["best"]["trial"], final["measurement"]
        assert first["search_fid"] == min(row["fid"] for row in rows_of(finished, trial))
        assert first["seed"] != other["seed"]
        assert (finished / f"finals/{trial}-1/records.jsonl").is_file()
        assert numbers["n"] == 5000
        assert numbers["evaluator"] != summary["evaluator"]["hash"]
        assert final["best"]["gap"] == pytest.approx(final["best"]["fresh_fid"] - final["best"]["search_fid"])
        assert final["best"]["fid_mean"] == pytest.approx((first["fid"] + other["fid"]) / 2)
        keys.append((bool(numbers["verdicts"]), final["best"]["fid_mean"]))
    assert keys == sorted(keys)


def test_a_trial_that_is_over_keeps_its_best_and_no_optimizers(finished: Path) -> None:
    for number in range(4):
        kept = {path.name.split("-")[0] for path in (finished / f"trials/{number}").glob("*.pt")}
        assert kept == {"best"}


def test_the_study_has_every_trial_once_with_its_records(finished: Path) -> None:
    for trial in study_of(finished).trials:
        rows = rows_of(finished, trial.number)
        assert trial.state.is_finished()
        assert trial.intermediate_values == {row["kimg"]: row["objective"] for row in rows}
        assert trial.value == rows[-1]["objective"]


def test_mlflow_has_every_record_once_with_true_states(finished: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("gansweep/smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    children = {r.data.tags["gansweep.trial"]: r for r in runs if "mlflow.parentRunId" in r.data.tags}
    states = {str(row["trial"]): row["state"] for row in summary_of(finished)["leaderboard"]}
    assert len(runs) == 5
    assert {n: r.info.status for n, r in children.items()} == {
        n: {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[s] for n, s in states.items()
    }
    for number, run in children.items():
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "fid")]
        assert sorted(steps) == [row["kimg"] for row in rows_of(finished, int(number))]
        assert client.list_artifacts(run.info.run_id, "samples")
    (parent,) = (r for r in runs if "mlflow.parentRunId" not in r.data.tags)
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert parent.info.status == "FINISHED"
    assert {"sweep.toml", "report.html"} <= names


def test_report_mlflow_and_study_agree_with_the_summary(finished: Path) -> None:
    from mlflow import MlflowClient
    from optuna.artifacts import get_all_artifact_meta

    summary, client = summary_of(finished), MlflowClient(f"sqlite:///{finished.parent / 'mlflow.db'}")
    page = (finished / "report.html").read_text(encoding="utf-8")
    shown = dict(re.findall(r'data-key="([^"]+)" data-value="([^"]+)"', page))
    assert float(shown["best.fid"]) == summary["best"]["fid"]
    assert float(shown["kimg_total"]) == summary["kimg_total"]
    assert (
        float(shown["finalists.0.measurement.fid_held"]) == summary["finalists"][0]["measurement"]["fid_held"]
    )
    experiment = client.get_experiment_by_name("gansweep/smoke")
    runs = client.search_runs([experiment.experiment_id] if experiment else [])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    (parent,) = (run for run in runs if run not in children)
    assert parent.data.metrics["best_fid"] == summary["best"]["fid"]
    numbers = {run.data.tags["gansweep.trial"]: run.data.metrics for run in children}
    study = study_of(finished)
    for row in summary["leaderboard"]:
        cell = re.search(rf'<tr data-trial="{row["trial"]}".*?class="fid" data-value="([^"]+)"', page)
        assert cell is not None
        assert float(cell[1]) == row["fid"] == numbers[str(row["trial"])]["best_fid"]
        grids = get_all_artifact_meta(study.trials[row["trial"]], storage=study._storage)
        assert [one.filename for one in grids] == [f"{row['kimg']:06d}.png"]


def test_samples_are_the_same_bytes_for_the_same_seed(finished: Path, tmp_path: Path) -> None:
    uri = ["--tracking-uri", f"sqlite:///{finished.parent / 'mlflow.db'}"]
    for name, model in (("a", "models:/smoke@champion"), ("b", str(finished))):
        gansweep("sample", model, "-n", "70", "--seed", "5", "--out", str(tmp_path / f"{name}.npz"), *uri)
    first, second = (np.load(tmp_path / f"{name}.npz")["images"] for name in "ab")
    assert first.shape == (70, 8, 8, 1)
    assert first.dtype == np.uint8
    assert (first == second).all()
    gansweep("sample", str(finished), "-n", "10", "--out", str(tmp_path / "grid.png"))
    assert Image.open(tmp_path / "grid.png").size == (32, 24)


def test_the_same_command_on_a_finished_sweep_does_nothing(finished: Path) -> None:
    before = summary_of(finished)
    gansweep(*smoke(finished.parent, "--trials", "4", "--final-seeds", "1"))
    assert summary_of(finished) == before


def test_other_values_are_refused_with_their_keys(finished: Path) -> None:
    error = gansweep(*smoke(finished.parent, "--set", "batch_size=32", "--seed", "9"), ok=2).stderr
    assert "fixed.batch_size" in error
    assert "sweep.seed" in error
    assert len(error.strip().splitlines()) == 1


def test_register_again_makes_no_second_version(finished: Path) -> None:
    uri = ["--tracking-uri", f"sqlite:///{finished.parent / 'mlflow.db'}"]
    assert "version 1" in gansweep("register", str(finished), *uri).stdout


def test_evaluate_prints_json(finished: Path) -> None:
    few = ("-n", "500", "--second-extractor", "none")
    done = gansweep("evaluate", str(finished), "--data", "digits", *few, "--json")
    numbers = json.loads(done.stdout)
    assert numbers["fid_low"] <= numbers["fid"] <= numbers["fid_high"]
    assert 0 <= numbers["precision"] <= 1


def test_more_trials_go_on_where_it_ended(finished: Path) -> None:
    gansweep("resume", str(finished), "--trials", "5")
    assert sum(summary_of(finished)["trials"].values()) == 5
    assert len(study_of(finished).trials) == 5


def _wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_goes_on(tmp_path: Path, kill: signal.Signals) -> None:
    """Every record is there once, no trial is lost, and the limit of trials holds."""
    arguments = smoke(tmp_path, "--trials", "3", "--kimg", "120", "--pruner", "none", "--concurrency", "1")
    arguments += ["--extractor", "pixels", "--fid-samples", "500", "--final-samples", "500"]
    root = tmp_path / "smoke"
    # In a session of its own, so that the signal reaches the driver alone and not Ray's processes.
    process = subprocess.Popen(
        [*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    _wait_for(lambda: (root / "trials/1/records.jsonl").exists() and rows_of(root, 1), 120)
    started = time.monotonic()
    os.kill(process.pid, kill)
    _, error = process.communicate(timeout=60)
    if kill == signal.SIGINT:
        assert process.returncode == 130
        assert "gansweep resume" in error
        assert time.monotonic() - started < 20
        assert summary_of(root)["state"] == "interrupted"
    resumed = gansweep("resume", str(root))
    assert "resuming: 1 of 3 trials over, 1 in progress" in resumed.stderr
    summary = summary_of(root)
    assert summary["state"] == "finished"
    assert summary["trials"] == {"complete": 3, "pruned": 0, "failed": 0, "running": 0}
    for number in range(3):
        assert [row["kimg"] for row in rows_of(root, number)] == list(range(5, 121, 5))
    events = [json.loads(line) for line in (root / "spool.jsonl").read_text().splitlines()]
    records = [(e["trial"], e["record"]["kimg"]) for e in events if e["event"] == "record"]
    assert len(records) == len(set(records)) == 72
