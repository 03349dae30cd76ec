"""One of each kind is added, by a row of a table and by `module:name`, and used by a real sweep."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.storage.summary_file import FinalistRow, read_summary

REPOSITORY = Path(__file__).parents[3]
GUIDE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")

ROWS = {
    "LOSSES": '"exponential": LossRow("extra:EXPONENTIAL", "as boosting weighs its errors"),',
    "NETWORKS": '"linear": NetworkRow("extra:LINEAR", "one layer each", norm_g=("none",)),',
    "EXTRACTORS": '"profile": ExtractorRow("extra:profile_extractor", "means of rows and columns"),',
    "SAMPLERS": '"careful": SamplerRow("extra:Careful", "random, D never faster than G", pruned=None),',
    "DATA_SOURCES": '"stripes": DataSourceRow("extra:stripes_source", "noise with a bright row"),',
}
"""Table -> the row that is added to it: all that is written but the code itself."""

CODE = "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```", GUIDE))
"""The guide's example: one of each kind."""

INSIDE = """
from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.source_types import ImageSource, RawImages
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
    images, labels = stripes()
    rows = ArrayRows(images, request.options)
    return ImageSource([request.name], lambda: RawImages(images=rows, labels=labels.astype(np.int64)))
"""
"""The same for the package: what the rows name."""

SPACE = re.findall(r"(?ms)^```toml\n(.*?)^```", GUIDE)[0]
COMMAND = re.findall(r"(?m)^gansweep (run .*)$", GUIDE)[0]

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(400)]


class Shell:
    """A folder in which the command runs, with further modules on its path."""

    def __init__(self, folder: Path, *modules: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, modules)), "COLUMNS": "200"}

    def gansweep(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split())

    def search(self, space: str, command: str, names: dict[str, str]) -> FinalistRow:
        """Validate the space, search in it, explain the result; all of them name what was added."""
        (self.folder / "mine.toml").write_text(space)
        validated = self.gansweep("validate", "mine.toml")
        assert "mine.toml: ok" in validated
        assert ("mine (sha256" in validated) is ("mine:" in space)
        few = ("--trials", "3", "--concurrency", "1", "--fid-samples", "64", "--final-samples", "64")
        few += ("--second-extractor", "none")
        self.gansweep(*command.split(), *few, "--no-register")
        summary = read_summary(self.folder / "runs" / "mine" / "summary.json")
        assert summary is not None
        assert summary.state == "finished"
        assert summary.trials.failed == 0
        assert summary.evaluator.extractor == names["extractor"]
        first = next(row for row in summary.leaderboard if row.trial == 0)
        assert (first.params["loss"], first.params["architecture"]) == (names["loss"], names["architecture"])
        assert all(row.params["lr_d"] <= row.params["lr_g"] for row in summary.leaderboard)
        explained = self.gansweep("explain", "runs/mine") + self.gansweep("explain", "runs/mine", "0")
        for name in names.values():
            assert name in explained
        return summary.finalists[0]


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
    (patched / "work").mkdir()
    shell = Shell(patched / "work", patched)
    names = {
        "loss": "exponential",
        "architecture": "linear",
        "extractor": "profile",
        "sampler": "careful",
        "data": "stripes",
    }
    text = shell.gansweep("run", "--help")
    for name in names.values():
        assert name in text
    space = SPACE.replace("mine:zero_centred", "r1").replace("mine:", "")
    chosen = f"--data stripes --extractor {names['extractor']} --sampler {names['sampler']}"
    shell.search(space, f"run --space mine.toml {chosen}", names)


def test_own_code_needs_no_row(tmp_path: Path) -> None:
    """The example of the guide, as it stands there."""
    (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")
    shell = Shell(tmp_path)
    text = shell.gansweep("run", "--help")
    for form in ("module:name", "module:function", "module:Class"):
        assert form in text
    names = {
        "loss": "mine:exponential",
        "architecture": "mine:linear",
        "extractor": "mine:rows_and_columns",
        "sampler": "mine:Careful",
        "data": "mine:stripes",
    }
    best = shell.search(SPACE, COMMAND, names)
    assert "mine:brightness" in best.measurement.values["custom"]
    kept = tmp_path / "runs" / "mine" / "code" / "mine.py"
    assert kept.read_text(encoding="utf-8") == CODE
