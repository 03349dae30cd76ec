"""Which of the user's own code a sweep has, and its copy in the sweep's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import ConfigError
from pipeline.search.space.parser import parse_space
from pipeline.sweep.code import code_names, read_sweep_code, write_code

SPACE = parse_space(
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
    assert set(code_names(SPACE, own)) == {
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
    code = read_sweep_code(SPACE, config(), [tmp_path / "beside", tmp_path])
    write_code(code, paths)
    assert {path.name for path in paths.code.iterdir()} == {"mine.py", "nets.py"}
    assert read_sweep_code(SPACE, config(), [paths.code]).hashes == code.hashes
    assert code.hashes["nets"] == hashlib.sha256(b"linear = None\n").hexdigest()


def test_a_sweep_without_own_code_has_no_folder_for_it(tmp_path: Path) -> None:
    write_code(read_sweep_code(parse_space(PLAIN), config(), [tmp_path]), SweepPaths(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_nowhere_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mime.py").touch()
    (tmp_path / "nets.py").touch()
    with pytest.raises(ConfigError, match=r"cannot find mine\.py .*did you mean 'mime'"):
        read_sweep_code(SPACE, config(), [tmp_path])
