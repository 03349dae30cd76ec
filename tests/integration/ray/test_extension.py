"""One of each kind is added, by a row of a table and by `module:name`, and used by a real sweep."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
GUIDE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")

ROWS = {
    "LOSSES": '"exponential": LossRow("extra:EXPONENTIAL", "as boosting weighs its errors"),',
    "NETWORKS": '"linear": NetworkRow("extra:LINEAR", "one layer each", norm_g=("none",)),',
    "EXTRACTORS": '"profile": ExtractorRow("extra:profile_extractor", "means of rows and columns"),',
    "SAMPLERS": '"careful": SamplerRow("extra:careful", "random, D never faster than G", pruned=None),',
    "DATA_SOURCES": '"stripes": DataSourceRow("extra:stripes_source", "noise with a bright row"),',
}
"""Table -> the row that is added to it: all that is written but the code itself."""

CODE = """
import numpy as np
import optuna
import torch
from torch import nn
from torch.nn.functional import softplus


def exponential(real, fake):
    return (-real).exp().mean() + fake.exp().mean(), softplus(-fake).mean()


def linear(config, shape):
    image = (shape.channels, shape.size, shape.size)
    pixels = shape.channels * shape.size**2
    g = nn.Sequential(nn.Linear(config.z_dim, pixels), nn.Tanh(), nn.Unflatten(1, image))
    return g, nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1), nn.Flatten(0))


def profile(size, channels):
    return lambda images: torch.cat([images.float().mean(1), images.float().mean(2)], 1).flatten(1) / 255


class careful(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        value = super().sample_independent(study, trial, name, distribution)
        return min(value, trial.params["lr_g"]) if name == "lr_d" else value


def stripes():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 60, (600, 8, 8), np.uint8), rng.integers(0, 8, 600)
    images[np.arange(600), labels] += 190
    return images, labels
"""
"""What a user writes in a file beside the space."""

INSIDE = """
from pipeline.data.preprocessing import ImageSource, RawImages, fit_images
from pipeline.metrics.extractors import NetExtractor
from pipeline.tables import EXTRACTORS
from pipeline.training.losses import Loss
from pipeline.training.networks.architectures import Architecture


EXPONENTIAL = Loss(d=lambda r, f: exponential(r, f)[0], g=lambda r, f: exponential(r, f)[1])


def _body_g(config, shape, z_in):
    pixels = shape.channels * shape.size**2
    return nn.Sequential(nn.Linear(z_in, pixels), nn.Unflatten(1, (shape.channels, shape.size, shape.size)))


def _body_d(config, shape):
    return nn.Flatten(), shape.channels * shape.size**2


LINEAR = Architecture(_body_g, _body_d)


class Profile(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255))

    def forward(self, images):
        return torch.cat([images.float().mean(1), images.float().mean(2)], 1).flatten(1) * self.scale


def profile_extractor(dataset, *, weights, folder):
    return NetExtractor("profile", Profile(), 2 * dataset.size * dataset.channels, EXTRACTORS["profile"])


def stripes_source(request):
    return ImageSource([request.name], lambda: fit_images(_raw(), request.size))


def _raw():
    images, labels = stripes()
    return RawImages(images[..., None], labels.astype(np.int64))
"""
"""The same for the package: what the rows name."""

SPACE = """
[fixed]
kimg = 2
tick_kimg = 1
[search]
lr_g = {{ float = [1e-4, 1e-2], log = true }}
lr_d = {{ float = [1e-4, 1e-2], log = true }}
loss = {{ choice = ["hinge", "{0}exponential"] }}
architecture = {{ choice = ["mlp", "{0}linear"] }}
[[enqueue]]
loss = "{0}exponential"
architecture = "{0}linear"
"""

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(400)]


class Shell:
    """A folder in which the command runs, with further modules on its path."""

    def __init__(self, folder: Path, *modules: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, modules)), "COLUMNS": "200"}

    def gansweep(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "pipeline", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split())

    def sweep(self, prefix: str) -> dict[str, Any]:
        """Validate the space, search in it, and explain the result; returns summary.json."""
        (self.folder / "space.toml").write_text(SPACE.format(prefix))
        assert "ok" in self.gansweep("validate", "space.toml")
        self.gansweep(
            *(
                "run",
                "--space",
                "space.toml",
                "--data",
                f"{prefix}stripes",
                "--name",
                "added",
                "--no-register",
            ),
            *("--extractor", f"{prefix}{'profile'}", "--sampler", f"{prefix}{'careful'}", "--trials", "3"),
            *("--concurrency", "1", "--fid-samples", "64", "--final-samples", "64"),
        )
        summary: dict[str, Any] = json.loads((self.folder / "runs/added/summary.json").read_text())
        assert summary["state"] == "finished"
        assert summary["trials"]["failed"] == 0
        assert summary["evaluator"]["extractor"] == f"{prefix}profile"
        assert summary["best"]["fid"] > 0
        first = next(row for row in summary["leaderboard"] if row["trial"] == 0)
        assert first["params"]["loss"] == f"{prefix}exponential"
        assert first["params"]["architecture"] == f"{prefix}linear"
        assert all(row["params"]["lr_d"] <= row["params"]["lr_g"] for row in summary["leaderboard"])
        explained = self.gansweep("explain", "runs/added") + self.gansweep("explain", "runs/added", "0")
        for name in ("exponential", "linear", "careful", "profile", "stripes"):
            assert f"{prefix}{name}" in explained
        return summary


@pytest.fixture
def patched(tmp_path: Path) -> Path:
    """A copy of the package in which each table has one row more."""
    for name in ("pipeline", "search_spaces"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    tables = tmp_path / "pipeline" / "tables.py"
    text = tables.read_text(encoding="utf-8")
    for table, row in ROWS.items():
        text, found = re.subn(rf"(?ms)^({table}.*?\{{\n)", rf"\g<1>        {row}\n", text, count=1)
        assert found == 1
    tables.write_text(text, encoding="utf-8")
    (tmp_path / "extra.py").write_text(CODE + INSIDE, encoding="utf-8")
    return tmp_path


def test_a_row_is_all_that_a_new_one_needs(patched: Path) -> None:
    work = patched / "work"
    work.mkdir()
    shell = Shell(work, patched)
    text = shell.gansweep("run", "--help")
    for name in ("exponential", "linear", "profile", "careful", "stripes"):
        assert name in text
    shell.sweep("")


def test_own_code_needs_no_row(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")
    shell = Shell(tmp_path)
    assert "module:" in shell.gansweep("run", "--help")
    shell.sweep("mine:")
    kept = tmp_path / "runs" / "added" / "code" / "mine.py"
    assert kept.read_text(encoding="utf-8") == CODE


def test_the_example_of_the_guide_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("\n".join(re.findall(r"(?ms)^```python\n(.*?)^```", GUIDE)))
    (tmp_path / "mine.toml").write_text(re.findall(r"(?ms)^```toml\n(.*?)^```", GUIDE)[0])
    command = re.findall(r"(?m)^gansweep (run .*)$", GUIDE)[0]
    shell = Shell(tmp_path)
    shell.gansweep(*command.split(), "--trials", "4", "--fid-samples", "64", "--concurrency", "2")
    summary = json.loads((tmp_path / "runs/mine/summary.json").read_text())
    assert summary["trials"]["failed"] == 0
    assert "mine:brightness" in summary["finalists"][0]["measurement"]["custom"]
