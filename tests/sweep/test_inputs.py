"""The user's own code of a sweep: which it is, its copy, and its trial before anything is written."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from images import noise, write_folder, write_npz

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import ConfigError, SweepError, UserError
from pipeline.search.space.parser import parse_space
from pipeline.sweep.build_request import build_request
from pipeline.sweep.inputs import code_names, load_inputs, load_same_inputs, write_code
from pipeline.sweep.manifest import manifest_of
from pipeline.sweep.options import RunOptions
from pipeline.user_code import read_code

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
    measured = {"extractor": "pixels", "second_extractor": "none", "fid_samples": 50}
    return {"space": SPACE, "data": "digits", "name": "x", **measured}


def test_code_in_the_current_folder_is_used_and_hashed(options: dict[str, object]) -> None:
    request = build_request(RunOptions(**{**options, "data": "mine:noise", "metric": ["mine:brightness"]}))  # type: ignore[arg-type]
    request, inputs = load_inputs(request, None)
    assert inputs.dataset.source == "mine:noise"
    assert inputs.evaluator.metrics == ("mine:brightness",)
    assert set(inputs.facts.code) == {"mine"}
    assert inputs.code.files["mine"] == CODE.encode()


def test_changed_code_is_refused_before_it_runs(options: dict[str, object], tmp_path: Path) -> None:
    request = build_request(RunOptions(**{**options, "data": "mine:noise"}))  # type: ignore[arg-type]
    request, inputs = load_inputs(request, None)
    manifest = manifest_of(request, inputs.facts, "")
    (tmp_path / "mine.py").write_text("raise ZeroDivisionError")
    with pytest.raises(SweepError, match="another code"):
        load_inputs(request, manifest)


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


CODE_SPACE = parse_space(
    """
    [fixed]
    penalty = "mine:zero_centred"
    [search]
    architecture = { choice = ["mlp", "nets:linear"] }
    loss = { choice = ["hinge", "mine:exponential"] }
    """
)


def config(**changes: str) -> SweepConfig:
    return SweepConfig(name="x", **changes)  # type: ignore[arg-type]


def test_every_name_that_a_sweep_can_run_is_found() -> None:
    own = config(
        data="mine:stripes",
        extractor="feats:rows",
        sampler="optuna.samplers:NSGAIISampler",
        pruner="mine:Patient",
        metrics="mine:brightness, mine:contrast",
    )
    assert set(code_names(CODE_SPACE, own)) == {
        *("nets:linear", "mine:exponential", "mine:zero_centred", "mine:stripes", "feats:rows"),
        *("optuna.samplers:NSGAIISampler", "mine:Patient", "mine:brightness", "mine:contrast"),
    }


@pytest.mark.parametrize("data", ["mnist5k", "folder:photos", "npz:images"])
def test_a_built_in_source_is_no_code_though_it_looks_like_it(data: str) -> None:
    assert list(code_names(parse_space(PLAIN), config(data=data))) == []


PLAIN = "[search]\nlr_g = { float = [1e-4, 1e-2] }"


def test_what_was_copied_is_read_again_with_the_same_hashes(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "mine.py").write_text("raise RuntimeError('reading runs nothing')\n")
    (tmp_path / "nets.py").write_text("linear = None\n")
    paths = SweepPaths(tmp_path / "sweep")
    paths.root.mkdir()
    code = read_code(code_names(CODE_SPACE, config()), [tmp_path / "beside", tmp_path])
    write_code(code, paths)
    assert {path.name for path in paths.code.iterdir()} == {"mine.py", "nets.py"}
    assert read_code(code_names(CODE_SPACE, config()), [paths.code]).hashes == code.hashes
    assert code.hashes["nets"] == hashlib.sha256(b"linear = None\n").hexdigest()


def test_a_sweep_without_own_code_has_no_folder_for_it(tmp_path: Path) -> None:
    write_code(read_code(code_names(parse_space(PLAIN), config()), [tmp_path]), SweepPaths(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_nowhere_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mime.py").touch()
    (tmp_path / "nets.py").touch()
    with pytest.raises(ConfigError, match=r"cannot find mine\.py .*did you mean 'mime'"):
        read_code(code_names(CODE_SPACE, config()), [tmp_path])


def test_images_in_out_are_none_of_the_sweep_whoever_asks(options: dict[str, object], tmp_path: Path) -> None:
    write_folder(tmp_path, noise((80, 8, 8, 1)))
    write_folder(tmp_path / "runs" / "mine", noise((9, 8, 8, 1), 1))
    options = {**options, "data": "folder:.", "out": "runs"}
    request, inputs = load_inputs(build_request(RunOptions(**options)), None)  # type: ignore[arg-type]
    manifest = manifest_of(request, inputs.facts, "")
    assert (manifest.facts.data.train, manifest.facts.data.held_out) == (64, 16)
    write_folder(tmp_path / "runs" / "x", noise((9, 8, 8, 1), 2))
    load_inputs(request, manifest)
    assert load_same_inputs(request.paths, manifest).facts == inputs.facts


def test_auto_is_the_extractor_that_it_was_when_the_sweep_began(options: dict[str, object]) -> None:
    """An earlier version chose another one for these images, and `auto` is what the user gives again."""
    request, inputs = load_inputs(build_request(RunOptions(**options)), None)  # type: ignore[arg-type]
    request = replace(request, config=replace(request.config, extractor="auto"))
    manifest = manifest_of(request, inputs.facts, "")
    assert load_inputs(request, manifest)[1].evaluator.extractor_name == "pixels"
    assert load_same_inputs(request.paths, manifest).evaluator.hash == inputs.evaluator.hash


def test_images_of_a_size_that_no_network_draws(
    options: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are prepared at the nearest size, by a rerun too, and told; an explicit size is refused."""
    caplog.set_level("INFO", "pipeline")
    file = write_npz(tmp_path / "a.npz", images=noise((80, 18, 18)))
    given: dict[str, object] = {**options, "space": "dcgan", "data": f"npz:{file}"}
    request, inputs = load_inputs(build_request(RunOptions(**given)), None)  # type: ignore[arg-type]
    assert inputs.dataset.size == 16
    assert "dcgan cannot draw 18 px: prepared at 16 px; --image-size takes another" in caplog.text
    manifest = manifest_of(request, inputs.facts, "")
    assert load_same_inputs(request.paths, manifest).dataset.fingerprint == inputs.dataset.fingerprint
    with pytest.raises(ConfigError, match="--image-size 16 or 20"):
        load_inputs(build_request(RunOptions(**given, image_size=18)), None)  # type: ignore[arg-type]
