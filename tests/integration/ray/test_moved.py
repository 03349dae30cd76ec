"""A sweep with relative images and stores, which is moved with all it has, goes on from another folder."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.serving.models import load_generator
from pipeline.storage.addresses import sqlite_address

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(300)]

RUN = ["run", "--space", "smoke", "--data", "folder:photos", "--out", "runs", "--name", "a", "--trials", "1"]
RUN += ["--kimg", "1", "--extractor", "pixels", "--fid-samples", "100", "--final-samples", "100"]
RUN += ["--second-extractor", "none"]
STORES = ["--storage", "sqlite:///study.db", "--tracking-uri", "sqlite:///runs/ml.db"]


def gansweep(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "gansweep", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, env=os.environ)
    assert done.returncode == 0, done.stderr


def test_it_goes_on_where_it_was_moved_to(tmp_path: Path) -> None:
    x, z = tmp_path / "x", tmp_path / "what? 50% #2"
    (x / "photos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(200):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(x / "photos" / f"{number}.png")
    gansweep(x, *RUN, *STORES)
    x.rename(z)
    gansweep(tmp_path, "resume", str(z / "runs" / "a"), "--trials", "2")
    assert {path.name for path in tmp_path.iterdir()} == {z.name}
    assert {path.name for path in z.iterdir()} == {"photos", "runs", "study.db"}
    with sqlite3.connect(z / "study.db") as study:
        assert study.execute("select count(*) from trials where state = 'COMPLETE'").fetchone() == (2,)
    with sqlite3.connect(z / "runs" / "ml.db") as store:
        places = [place for (place,) in store.execute("select artifact_uri from runs")]
        assert store.execute("select count(*) from model_versions").fetchone() in [(1,), (2,)]
    assert len(places) == 3
    assert all(place.startswith(f"{(z / 'runs').as_uri()}/artifacts/") for place in places)
    generator = load_generator("models:/a@champion", tracking_uri=sqlite_address(z / "runs" / "ml.db"))
    assert generator.sample(2)[0].shape == (2, 8, 8, 1)
