"""A store that was moved goes on with the artifacts beside it; one that has gone is not made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.config import SweepPaths
from pipeline.errors import RegistryError
from pipeline.tracking.moved_store import check_store_remains, follow_artifacts, location_now, without_gaps
from pipeline.tracking.tracking_uri import default_artifacts, default_uri, open_store

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store in the folder `runs`, with a run of ours, one of another program, and a model; the run's id."""
    runs = tmp_path_factory.mktemp("x") / "runs"
    uri = default_uri(runs)
    client = open_store(uri)
    ours = client.create_experiment("gansweep/a", artifact_location=default_artifacts(uri))
    other = client.create_experiment("other", artifact_location=(runs / "other").as_uri())
    run = client.create_run(ours).info.run_id
    client.create_run(other)
    client.log_text(run, "hello", "note.txt")
    client.create_registered_model("a")
    client.create_model_version("a", source=client.get_run(run).info.artifact_uri, run_id=run)
    return runs, run


@pytest.fixture
def runs(made: tuple[Path, str], tmp_path: Path) -> Iterator[Path]:
    """That folder, moved: nothing is where its rows say."""
    shutil.copytree(made[0], tmp_path / "a b#?" / "archive")
    made[0].rename(tmp_path / "aside")
    yield tmp_path / "a b#?" / "archive"
    (tmp_path / "aside").rename(made[0])


def locations(folder: Path) -> list[str]:
    client = MlflowClient(default_uri(folder), default_uri(folder))
    experiment = client.get_experiment_by_name("gansweep/a")
    (run,) = client.search_runs([experiment.experiment_id])
    version = client.get_model_version("a", "1")
    return [experiment.artifact_location, run.info.artifact_uri, version.source]


def test_the_rows_follow(made: tuple[Path, str], runs: Path) -> None:
    follow_artifacts(default_uri(runs))
    here = (runs / "artifacts").as_uri()
    assert locations(runs) == [here, f"{here}/{made[1]}/artifacts", f"{here}/{made[1]}/artifacts"]
    client = open_store(default_uri(runs))
    assert [file.path for file in client.list_artifacts(made[1])] == ["note.txt"]
    client.log_text(made[1], "again", "more.txt")
    assert (runs / "artifacts" / made[1] / "artifacts" / "more.txt").is_file()
    assert not made[0].exists()


def test_other_programs_keep_theirs(made: tuple[Path, str], runs: Path) -> None:
    follow_artifacts(default_uri(runs))
    other = MlflowClient(default_uri(runs)).get_experiment_by_name("other")
    assert other.artifact_location == (made[0] / "other").as_uri()


def test_reading_finds_them_without_writing(made: tuple[Path, str], runs: Path) -> None:
    before = (runs / "mlflow.db").read_bytes()
    old = f"{(made[0] / 'artifacts').as_uri()}/models/m/artifacts"
    assert location_now(default_uri(runs), old) == f"{(runs / 'artifacts').as_uri()}/models/m/artifacts"
    assert location_now(default_uri(runs), "s3://bucket/m") == "s3://bucket/m"
    assert (runs / "mlflow.db").read_bytes() == before


def test_a_copy_gets_files_of_its_own(made: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(made[0], tmp_path / "copy")
    follow_artifacts(default_uri(tmp_path / "copy"))
    assert locations(tmp_path / "copy")[0] == (tmp_path / "copy" / "artifacts").as_uri()
    follow_artifacts(default_uri(made[0]))
    assert locations(made[0])[0] == (made[0] / "artifacts").as_uri()


def test_a_database_alone_keeps_the_artifacts_where_they_are(made: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copy(made[0] / "mlflow.db", tmp_path)
    (tmp_path / "artifacts").mkdir()  # of another store
    follow_artifacts(default_uri(tmp_path))
    assert locations(tmp_path)[0] == (made[0] / "artifacts").as_uri()


def test_a_folder_that_is_seen_twice_has_not_moved(made: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(made[0])
    follow_artifacts(f"sqlite:///{tmp_path}/mounted/mlflow.db")
    assert locations(made[0])[0] == (made[0] / "artifacts").as_uri()


def test_a_store_that_has_gone_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = SweepPaths(tmp_path / "runs" / "a")
    paths.root.mkdir(parents=True)
    paths.config.write_text(f'[registry]\ntracking_uri = "sqlite:///../m.db"\nfolder = "{paths.root}"\n')
    uri = f"sqlite:///{tmp_path}/runs/m.db"
    check_store_remains(paths, uri, "gansweep resume a")  # it never had a run there
    paths.export_cursor.write_text(json.dumps({"parent": "r0"}))
    with pytest.raises(RegistryError, match=r"gone.*gansweep resume a --tracking-uri sqlite:///NEW.db$"):
        check_store_remains(paths, uri, "gansweep resume a")
    check_store_remains(paths, f"sqlite:///{tmp_path}/new.db", "gansweep resume a")
    assert "sends its whole history there" in caplog.text
    check_store_remains(paths, "http://host:5000", "gansweep resume a")


def test_an_address_without_its_password_is_not_used() -> None:
    assert without_gaps("http://host") == "http://host"
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        without_gaps("http://***@host")
