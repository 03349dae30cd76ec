"""`evaluate` of the samples of another tool, and the output of the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import DataError, EvaluatorError
from pipeline.serving.evaluate import evaluate, evaluate_as


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def samples(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    """500 samples in an npz: digits with noise."""
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    noise = np.random.default_rng(0).normal(0, 40, digits.train[:500].shape)
    np.savez(path, images=np.clip(digits.train[:500] + noise, 0, 255).astype(np.uint8))
    return f"samples:{path}"


@pytest.mark.parametrize(("n", "used", "repeats"), [(0, 500, 1), (100, 100, 4), (200, 200, 2), (500, 500, 1)])
def test_samples_are_measured(samples: str, n: int, used: int, repeats: int) -> None:
    config = SweepConfig(data="digits", extractor="pixels", second_extractor="none")
    found = evaluate_as(config, samples, n=n, seed=0)
    assert (found.n, found.repeats) == (used, repeats)
    assert 0 < found.fid_low < found.fid < found.fid_high
    assert found.label_accuracy is None
    assert found == evaluate_as(config, samples, n=n, seed=0)


def test_too_many_or_too_few_samples_and_another_size_are_refused(samples: str, tmp_path: Path) -> None:
    config = SweepConfig(data="digits", extractor="pixels", second_extractor="none")
    with pytest.raises(DataError, match="-n 501 is out of range .*500 samples.*write -n 500"):
        evaluate(samples, data="digits", n=501, seed=0, extractor="pixels")
    with pytest.raises(DataError, match=r"uint8 \(500, 8, 8, 1\).*16x16"):
        evaluate_as(replace(config, image_size=16), samples, n=100)
    np.savez(tmp_path / "few.npz", images=np.arange(15 * 64, dtype=np.uint8).reshape(15, 8, 8))
    with pytest.raises(EvaluatorError, match="15.*at least 16"):
        evaluate_as(config, f"samples:{tmp_path}/few.npz")


def test_images_extractor_and_metrics_of_ones_own_in_the_current_folder(
    samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from pipeline.data.dataset import load_dataset\n"
        "def images():\n    return load_dataset('digits').train\n"
        "def rows(size, channels):\n    return lambda x: x.float().mean((2, 3))\n"
        "def count(images, reals):\n    return len(images)\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", samples, "--data", "mine:images", "--extractor", "mine:rows", "--json"]
    command += ["--second-extractor", "pixels"]
    result = CliRunner().invoke(app, [*command, "--metric", "mine:count", "--metric", "mine:count"])
    found = json.loads(result.stdout)
    assert (found["extractor"], found["second_extractor"]) == ("mine:rows", "pixels")
    assert found["second_low"] < found["second_fid"] < found["second_high"]
    assert found["custom"] == {"mine:count": 500.0}
    config = SweepConfig(
        data="mine:images", extractor="mine:rows", second_extractor="none", metrics="mine:count"
    )
    again = evaluate_as(config, samples)
    assert again.fid == found["fid"]


def test_a_source_in_a_folder_is_not_taken_for_code(samples: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        evaluate(samples, data="folder:nowhere")


def test_the_command_prints_a_table_or_json(samples: str) -> None:
    arguments = ["evaluate", samples, "--data", "digits", "-n", "100", "--extractor", "pixels"]
    arguments += ["--second-extractor", "none"]
    table = CliRunner().invoke(app, arguments).stdout
    assert "lower is better" in table
    assert "coverage" in table
    numbers = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert numbers["n"] == 100
    assert isinstance(numbers["verdicts"], list)
