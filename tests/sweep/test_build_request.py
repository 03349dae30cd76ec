"""What is typed becomes a request: every place in it absolute, of a sweep that moved too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegistryError, SweepError
from pipeline.search.budgets import UNLIMITED
from pipeline.storage.summary_file import FidEvaluator
from pipeline.sweep.build_request import build_request
from pipeline.sweep.manifest import DataFacts, SweepFacts, check_same_request, manifest_of, read_manifest
from pipeline.sweep.options import ResumeOptions, RunOptions
from pipeline.sweep.request import Request

TYPED = {"data": "folder:photos", "space": "smoke", "name": "a", "extractor_weights": "w.pth"}
STORES = {"storage": "sqlite:///study.db", "tracking_uri": "sqlite:///runs/ml.db"}
FACTS = SweepFacts(
    data=DataFacts(fingerprint="f", source="folder:photos"),
    evaluator=FidEvaluator(extractor="pixels", hash="h", samples=9),
)


@pytest.fixture
def x(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which everything is typed; there are images in `photos`."""
    (tmp_path / "x" / "photos").mkdir(parents=True)
    (tmp_path / "x" / "w.pth").touch()
    monkeypatch.chdir(tmp_path / "x")
    return tmp_path / "x"


def begin(**more: Any) -> Request:
    """A sweep that `run` began, with its sweep.toml."""
    request = build_request(RunOptions(**{**TYPED, **STORES, **more}))
    request.paths.root.mkdir(parents=True)
    uri = request.tracking_uri or f"sqlite:///{request.out}/mlflow.db"
    request.paths.config.write_text(manifest_of(request, FACTS, uri).to_toml())
    for address in STORES.values():
        Path(address.removeprefix("sqlite:///")).touch()
    return request


def places(request: Request) -> tuple[str, ...]:
    config = request.config
    return (str(request.out), config.data, config.extractor_weights, request.storage, request.tracking_uri)


def in_folder(folder: Path, runs: str = "runs") -> tuple[str, ...]:
    stores = f"sqlite:///{folder}/study.db", f"sqlite:///{folder}/{runs}/ml.db"
    return (f"{folder}/{runs}", f"folder:{folder}/photos", f"{folder}/w.pth", *stores)


def test_run_and_resume_from_another_folder_mean_the_same_places(
    x: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places(begin()) == in_folder(x)
    monkeypatch.chdir("/")
    assert places(build_request(ResumeOptions(x / "runs" / "a"))) == in_folder(x)


def test_all_of_it_may_be_moved(x: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin()
    monkeypatch.chdir("/")
    x.rename(x.with_name("z"))
    z = x.with_name("z")
    assert places(build_request(ResumeOptions(z / "runs" / "a"))) == in_folder(z)


def test_the_same_images_elsewhere_go_on_and_another_kind_does_not(x: Path) -> None:
    begin()
    (x / "photos").rename(x / "pictures")
    manifest = read_manifest(build_request(RunOptions(**TYPED, **STORES)).paths)
    assert manifest is not None
    resumed = build_request(ResumeOptions("runs/a", data="folder:pictures", extractor_weights="v.pth"))
    assert resumed.config.data == f"folder:{x}/pictures"
    check_same_request(manifest, resumed)
    with pytest.raises(SweepError, match=r"sweep\.data"):
        check_same_request(manifest, build_request(ResumeOptions("runs/a", data="npz:photos")))


def test_run_again_without_stores_takes_those_of_the_sweep(x: Path) -> None:
    begin()
    assert build_request(RunOptions(**TYPED)).tracking_uri == f"sqlite:///{x}/runs/ml.db"


def test_a_store_whose_address_is_not_wholly_known_is_asked_for(x: Path) -> None:
    begin(tracking_uri="http://me:secret@host:5000")
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        build_request(ResumeOptions("runs/a"))
    again = build_request(ResumeOptions("runs/a", tracking_uri="http://me:secret@host:5000"))
    assert again.tracking_uri == "http://me:secret@host:5000"


def test_a_plateau_alone_makes_trials_unlimited_and_a_resume_may_change_it(x: Path) -> None:
    begun = begin(until_plateau=1.0)
    assert (begun.config.trials, begun.config.until_plateau) == (UNLIMITED, 1.0)
    assert build_request(ResumeOptions("runs/a")).config.until_plateau == 1.0
    assert build_request(ResumeOptions("runs/a", until_plateau=0.0)).config.until_plateau == 0.0


def test_a_sweep_that_began_before_there_was_a_plateau_gets_one(x: Path) -> None:
    toml = begin().paths.config
    toml.write_text(toml.read_text().replace("until_plateau = 0.0\n", ""))
    assert "until_plateau" not in toml.read_text()
    resumed = build_request(ResumeOptions("runs/a", until_plateau=2.0))
    manifest = read_manifest(resumed.paths)
    assert manifest is not None
    assert (manifest.config.until_plateau, resumed.config.until_plateau) == (0.0, 2.0)
    check_same_request(manifest, resumed)
