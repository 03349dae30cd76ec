"""The job of a sweep: its command, and what the cluster could not see."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pipeline.cli.submit import package_job
from pipeline.cluster.jobs.packaging import JobPackage
from pipeline.errors import ConfigError, UserError

ROOT = Path(__file__).resolve().parents[3]
SHARED = ("--space", "smoke", "--data", "digits", "--out", "/shared/runs")


def pack(*typed: str, folder: Path = ROOT) -> JobPackage:
    return package_job(typed, folder)[0]


def test_the_command_of_a_job_is_that_of_run() -> None:
    command = pack(*SHARED, "--set", "loss='hinge'", "--trials", "3").command
    assert command == (
        "gansweep run --space smoke --data digits --out /shared/runs --set 'loss='\"'\"'hinge'\"'\"'' "
        "--trials 3 --address auto"
    )
    assert shlex.split(command)[1:-2] == ["run", *SHARED, "--set", "loss='hinge'", "--trials", "3"]


def test_a_space_that_the_images_choose_is_chosen_by_the_job() -> None:
    package, request = package_job(("--data", "folder:/shared/icons", "--out", "/shared/runs"), ROOT)
    assert package.command == "gansweep run --data folder:/shared/icons --out /shared/runs --address auto"
    assert (request.config.name, request.space_by_images) == ("icons", True)


def test_a_name_with_a_shell_command_in_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="name"):
        pack(*SHARED, "--name", "a b; rm -rf /")


@pytest.mark.parametrize("options", [("--data", "hf:mnist"), ("--classes", "none")])
def test_names_are_no_paths(options: tuple[str, str]) -> None:
    assert " ".join(options) in pack(*SHARED, *options).command


def test_the_same_arguments_make_the_same_job() -> None:
    assert pack(*SHARED) == pack(*SHARED)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--space", "smoke"), r"--out runs is a path of this machine .*; write --out /shared/runs"),
        ((*SHARED, "--data", "folder:photos"), r"--data folder:photos is a path .*folder:/shared/photos"),
        ((*SHARED, "--data", "npz:a/b.npz"), r"npz:/shared/b.npz"),
        ((*SHARED, "--data", "zip:photos.zip"), r"zip:/shared/photos.zip"),
        ((*SHARED, "--data", "hf:./copy"), r"hf:/shared/copy"),
        ((*SHARED, "--classes", "labels.csv"), r"--classes labels.csv is a path .*/shared/labels.csv"),
        ((*SHARED, "--tracking-uri", "sqlite:///x.db"), r"--tracking-uri sqlite:///x.db is a file of this"),
        ((*SHARED, "--tracking-uri", "./mlruns"), r"--tracking-uri ./mlruns is a file of this machine"),
        ((*SHARED, "--tracking-uri", "file:///tmp/x"), r"--tracking-uri file:///tmp/x is a file of this"),
        ((*SHARED, "--storage", "sqlite:///s.db"), r"--storage sqlite:///s.db is a file of this machine"),
        ((*SHARED, "--storage", "study.db"), r"must reach the study.*; name a database"),
        ((*SHARED, "--extractor-weights", "w.pt"), r"--extractor-weights .*w.pt is a path .*/shared/w.pt"),
        ((*SHARED, "--data", "folder:~/photos"), r"--data folder:~/photos is a path of .*/shared/photos"),
        ((*SHARED, "--storage", "postgresql://u:pw@h/d"), r"password.*--storage"),
        ((*SHARED, "--tracking-uri", "https://u:pw@h"), r"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASS"),
        ((*SHARED, "--out", "ftp://b/runs"), r"ftp://b/runs"),
        ((*SHARED, "--space", "nowhere"), r"nowhere"),
        ((*SHARED, "--space", "../mine.toml"), r"../mine.toml"),
        ((*SHARED, "--cpus-per-trial", "-1"), r"cpus_per_trial"),
    ],
)
def test_what_the_cluster_cannot_see_is_refused(typed: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pack(*typed)
    assert "pw" not in str(caught.value).replace("password", "")


def test_addresses_of_the_environment_are_sent_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("GANSWEEP_STORAGE", "postgresql://gansweep@db/study")
    command = pack(*SHARED).command
    assert "--tracking-uri http://mlflow:5000" in command
    assert "--storage postgresql://gansweep@db/study" in command
    monkeypatch.setenv("GANSWEEP_STORAGE", "postgresql://gansweep:pw@db/study")
    with pytest.raises(ConfigError, match="password"):
        pack(*SHARED)


def test_a_home_folder_is_not_sent() -> None:
    with pytest.raises(ConfigError, match="submit would send all of"):
        pack(*SHARED, folder=Path.home())


def test_a_space_outside_of_the_sent_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text((ROOT / "search_spaces/smoke.toml").read_text())
    with pytest.raises(
        ConfigError, match=r"mine.toml is not a path below the folder .*; .*--space mine.toml"
    ):
        pack(*SHARED, "--space", str(tmp_path / "mine.toml"))
