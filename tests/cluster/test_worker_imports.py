"""When Ray's workers are told to import our `pipeline` first."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cluster.worker_imports import worker_options


def test_where_nothing_hides_it_ray_starts_as_ever() -> None:
    assert worker_options() == {}


@pytest.mark.parametrize("found_by", ["path", "current folder", "script"])
@pytest.mark.parametrize("kind", ["pipeline.py", "pipeline/__init__.py"])
def test_a_module_that_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found_by: str, kind: str
) -> None:
    (tmp_path / kind).parent.mkdir(exist_ok=True)
    (tmp_path / kind).touch()
    if found_by == "path":
        monkeypatch.syspath_prepend(str(tmp_path))
    elif found_by == "script":
        monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py")])
    else:
        monkeypatch.chdir(tmp_path)
    assert worker_options() == {
        "runtime_env": {"worker_process_setup_hook": "gansweep.own_pipeline.use_own_pipeline"}
    }


def test_a_folder_that_is_no_package_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline").mkdir()
    monkeypatch.chdir(tmp_path)
    assert worker_options() == {}
