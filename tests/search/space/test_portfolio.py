"""The portfolio's points in other spaces: what is relative, what is clipped, what is left to the sampler."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SpaceError
from pipeline.search.space.builtin import builtin_spaces, load_builtin
from pipeline.search.space.parser import parse_space
from pipeline.search.space.portfolio import load_portfolio, point_in_space
from pipeline.search.space.rules import ImageFacts

SPACE = parse_space("""
portfolio = true
[fixed]
kimg = 200
[search]
lr_g = { float = [1e-4, 1e-2], log = true }
width_g = { int = [16, 64], log = true }
width_d = { choice = [32, 64, 128] }
batch_size = { choice = [32, 64] }
loss = { choice = ["hinge", "lsgan"] }
penalty = { choice = ["none", "r1"] }
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
ema_halflife_kimg = { float = [1.0, 20.0], log = true }
""")
POINT = {
    "lr_g": 1e-5,
    "lr_d": 1e-3,
    "width_g": {"of_range": 0.5},
    "width_d": {"of_range": 1.0},
    "batch_size": 64,
    "loss": "wasserstein",
    "penalty": "r1",
    "gamma": {"factor": 0.1, "size": 2, "batch_size": -1},
    "ema_halflife_kimg": {"of_trial": 0.05},
}


def facts(size: int, channels: int = 3) -> ImageFacts:
    return ImageFacts(size=size, channels=channels, images=2000, classes=0, smallest_class=0, device="cpu")


def test_a_point_fits_the_space_that_takes_it() -> None:
    found = point_in_space(POINT, SPACE.search, SPACE.fixed, 32)
    assert found == {
        "lr_g": 1e-4,  # the nearest end of the range
        "width_g": 32,
        "width_d": 128,
        "batch_size": 64,
        "penalty": "r1",
        "gamma": pytest.approx(0.1 * 32**2 / 64),
        "ema_halflife_kimg": 10.0,
    }  # neither lr_d, which is not searched, nor a loss that is none of the choices


def test_the_strength_fits_the_batch_size_that_the_space_takes() -> None:
    space = parse_space("""
    [search]
    gamma = { float = [0.01, 100.0], log = true }
    batch_size = { choice = [64, 128] }
    beta1 = { choice = [0.0, 0.9] }
    """)
    point = {**POINT, "batch_size": 32, "beta1": 0.5}
    assert point_in_space(point, space.search, {"penalty": "r1"}, 32) == {
        "gamma": pytest.approx(0.1 * 32**2 / 64),
        "batch_size": 64,
        "beta1": 0.9,
    }
    unknown = {name: value for name, value in point.items() if name != "batch_size"}
    assert point_in_space(unknown, space.search, {"penalty": "r1"}, 32) == {"beta1": 0.9}


@pytest.mark.parametrize("fixed", [{}, {"penalty": "gp"}])
def test_what_belongs_to_another_penalty_is_left_out(fixed: dict[str, str]) -> None:
    penalty = "" if fixed else 'penalty = { choice = ["r1", "r1r2"] }'
    space = parse_space(f"""
    [search]
    gamma = {{ float = [0.01, 100.0], log = true }}
    penalty_interval = {{ choice = [1, 16] }}
    loss = {{ choice = ["hinge", "wasserstein"] }}
    {penalty}
    """)
    point = {**POINT, "penalty": "dragan", "penalty_interval": 4}
    assert point_in_space(point, space.search, fixed, 32) == {"loss": "wasserstein"}


def test_a_parameter_whose_condition_fails_is_left_out() -> None:
    assert "gamma" not in point_in_space({**POINT, "penalty": "none"}, SPACE.search, SPACE.fixed, 32)


def test_the_points_follow_those_of_the_space() -> None:
    own = parse_space(SPACE.to_toml() + "\n[[enqueue]]\nlr_g = 2e-3\n")
    resolved = own.on_images(facts(32))
    assert resolved.enqueue[0] == {"lr_g": 2e-3}
    assert len(resolved.enqueue) == 1 + len(load_portfolio())
    assert not resolved.portfolio
    assert parse_space(resolved.to_toml()) == resolved


def test_a_space_without_it_has_no_more_points() -> None:
    plain = parse_space(SPACE.to_toml().replace("portfolio = true", ""))
    assert plain.on_images(facts(32)).enqueue == ()
    assert plain.differences(SPACE) == ["portfolio"]
    assert plain.hash != SPACE.hash


def test_portfolio_is_true_or_false() -> None:
    with pytest.raises(SpaceError, match="portfolio = 3 is wrong"):
        parse_space(SPACE.to_toml().replace("portfolio = true", "portfolio = 3"))


def test_a_file_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[[point]]\nlr = 1\n")
    with pytest.raises(SpaceError, match="lr"):
        load_portfolio(tmp_path / "p.toml")


@pytest.mark.parametrize("name", sorted(builtin_spaces().keys() - {"smoke"}))
def test_every_space_that_comes_with_gansweep_has_it(name: str) -> None:
    space = load_builtin(name)
    assert space.portfolio
    for size, channels in ((28, 1), (64, 3)):
        resolved = space.on_images(facts(size, channels))
        assert len(resolved.enqueue) >= 6
        for point in resolved.enqueue:
            resolved.config(point)


def test_with_a_recipe_the_points_are_those_of_the_space_that_it_makes() -> None:
    resolved = load_builtin("lucic2018").on_images(facts(32), "r3gan")
    assert resolved.start_from("r3gan", 32, False).enqueue[0] == resolved.enqueue[0]
    expected = [point_in_space(p, resolved.search, resolved.fixed, 32) for p in load_portfolio()]
    assert list(resolved.enqueue[-len(expected) :]) == expected
