"""What `validate` says of a space beside its size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.search.space.notes import space_code_names, space_notes
from pipeline.search.space.parser import parse_space

MINE = parse_space(
    """
    [fixed]
    architecture = "mine:build"
    [search]
    lr_g = { float = [1e-5, 1e-2], log = true }
    loss = { choice = ["hinge", "mine:loss"] }
    penalty = { choice = ["none", "other:penalty"] }
    gamma = { float = [0.1, 10.0], when = { penalty = ["other:penalty"] } }
    depth_g = { int = [1, 3], when = { architecture = ["mine:build"] } }
    """
)
PLAIN = parse_space("[search]\nlr_g = { float = [1e-5, 1e-2], log = true }\n")


def test_the_users_own_names_are_found() -> None:
    assert space_code_names(MINE) == ["mine:build", "mine:loss", "other:penalty"]
    assert space_code_names(PLAIN) == []


def test_a_module_is_listed_with_its_hash_and_conditions_with_who_ignores_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("1 / 0  # it is not run")
    (tmp_path / "other.py").write_text("")
    digest = hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    mine, other, conditions = space_notes(MINE, [tmp_path])
    assert mine == f"mine (sha256 {digest[:12]}): mine:build, mine:loss"
    assert other.endswith("other:penalty")
    assert "gamma;" in conditions
    assert "gp" in conditions
    assert "depth_g" not in conditions  # its condition always holds
    assert space_notes(PLAIN, []) == []


def test_a_missing_module_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(ConfigError, match=r"cannot find other\.py"):
        space_notes(MINE, [tmp_path])


WASSERSTEIN = """
[search]
loss = {{ choice = ["hinge", "wasserstein"] }}
penalty = {{ choice = {penalty} }}
norm_d = {{ choice = {norm} }}
"""


@pytest.mark.parametrize(
    ("penalty", "norm", "noted"),
    [
        ('["none", "gp"]', '["none", "spectral"]', True),
        ('["r1", "gp"]', '["none", "spectral"]', False),
        ('["none", "gp"]', '["spectral"]', False),
        ('["gp"], when = { loss = ["wasserstein"] }', '["none"]', False),
        ('["gp"], when = { loss = ["hinge"] }', '["none"]', True),
        ('["gp"], when = { norm_d = ["none"] }', '["none", "layer"]', True),
    ],
)
def test_a_loss_that_can_be_drawn_without_the_penalty_it_needs(penalty: str, norm: str, noted: bool) -> None:
    notes = space_notes(parse_space(WASSERSTEIN.format(penalty=penalty, norm=norm)), [])
    assert any("loss wasserstein needs a penalty" in note for note in notes) is noted
    assert not any("hinge" in note for note in notes)


def test_norms_without_effect_in_an_architecture() -> None:
    text = """
    [search]
    architecture = { choice = ["dcgan", "resnet"] }
    norm_g = { choice = ["none", "batch"], when = { architecture = ["dcgan"] } }
    norm_d = { choice = ["none", "layer", "spectral"] }
    """
    assert "norm_d layer has no effect in resnet" in space_notes(parse_space(text), [])
    assert not any("norm_g batch" in note or "dcgan" in note for note in space_notes(parse_space(text), []))
