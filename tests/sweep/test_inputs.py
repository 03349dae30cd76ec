"""The user's own code is tried before a sweep writes anything; an error is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, UserError
from pipeline.sweep.build_request import build_request
from pipeline.sweep.inputs import load_inputs
from pipeline.sweep.options import RunOptions

SPACE = {"fixed": {"architecture": "mlp"}, "search": {"lr_g": {"float": [1e-4, 1e-2]}}}
CODE = """
import numpy as np

def noise():
    return np.random.default_rng(0).integers(0, 255, (200, 8, 8), np.uint8)

def too_few():
    return noise()[:3]

def brightness(images, reals):
    return images.mean() / reals.mean()

def infinite(images, reals):
    return float("inf")

def text(images, reals):
    return "bright"

def one_sided(real, fake):
    return real.mean()
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return {"space": SPACE, "data": "digits", "extractor": "pixels", "fid_samples": 50, "name": "x"}


def test_code_in_the_current_folder_is_used_and_hashed(options: dict[str, object]) -> None:
    request = build_request(RunOptions(**{**options, "data": "mine:noise", "metric": ["mine:brightness"]}))  # type: ignore[arg-type]
    request, inputs = load_inputs(request, None)
    assert inputs.dataset.source == "mine:noise"
    assert inputs.evaluator.metrics == ("mine:brightness",)
    assert set(inputs.facts.code) == {"mine"}
    assert inputs.code.files["mine"] == CODE.encode()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"data": "mine:nois"}, "mine has no nois .*did you mean 'noise'"),
        ({"data": "nowhere:noise"}, r"cannot find nowhere\.py"),
        ({"data": "mine:too_few"}, "64 images"),
        ({"metric": ["mine:britness"]}, "mine has no britness .*did you mean 'brightness'"),
        ({"metric": ["mine:infinite"]}, "the metric mine:infinite does not work: inf"),
        ({"metric": ["mine:text"]}, r"the metric mine:text does not work: ValueError: .*correct mine\.py"),
        ({"metric": ["brightness"]}, "the metric brightness is unknown"),
        ({"set": {"loss": "mine:one_sided"}}, "mine:one_sided"),
        ({"sampler": "mine:brightness"}, "sampler"),
        ({"extractor": "mine:missing"}, "mine has no missing"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(
    options: dict[str, object], tmp_path: Path, wrong: dict[str, object], expected: str
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=expected) as caught:
        load_inputs(build_request(RunOptions(**{**options, **wrong})), None)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_code_is_not_run_by_a_process_that_loads_another_sweep(options: dict[str, object]) -> None:
    from pipeline import user_code

    load_inputs(build_request(RunOptions(**{**options, "data": "mine:noise"})), None)  # type: ignore[arg-type]
    load_inputs(build_request(RunOptions(**options)), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be loaded by this command"):
        user_code.load("mine:noise", "a function")
