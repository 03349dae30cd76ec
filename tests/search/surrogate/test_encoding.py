"""Points of a space as vectors."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.search.space.parser import parse_space
from pipeline.search.surrogate.encoding import Encoder

SPACE = parse_space("""
[search]
lr_g = { float = [1e-5, 1e-2], log = true }
width_g = { int = [8, 64], log = true }
depth_g = { int = [1, 3] }
loss = { choice = ["hinge", "lsgan"] }
penalty = { choice = ["none", "r1"] }
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
""")
RNG = np.random.default_rng(0)


def test_numbers_lie_on_the_scale_of_their_range() -> None:
    lr, depth = SPACE.search["lr_g"], SPACE.search["depth_g"]
    assert lr.to_unit(1e-5) == 0
    assert lr.to_unit(10**-3.5) == pytest.approx(0.5)
    assert depth.to_unit(2) == 0.5
    assert lr.from_unit(2.0) == pytest.approx(1e-2)
    assert depth.from_unit(-1.0) == 1


def test_draws_are_points_of_the_space() -> None:
    encoder = Encoder(SPACE)
    for places in encoder.draw(RNG, 100):
        found = encoder.params(places)
        assert ("gamma" in found) == (found["penalty"] == "r1")
        assert all(SPACE.search[name].contains(value) for name, value in found.items())
        assert isinstance(found["width_g"], int)
        SPACE.config(found)


def test_every_integer_is_drawn_equally_often() -> None:
    drawn = Encoder(SPACE).draw(np.random.default_rng(0), 3000)[:, 2]
    counts = [int(np.isclose(drawn, place).sum()) for place in (0.0, 0.5, 1.0)]
    assert sum(counts) == 3000
    assert min(counts) > 900


def test_a_condition_on_a_number_outside_its_range_never_holds() -> None:
    text = """
    [search]
    gamma = { float = [0.1, 10.0], log = true }
    width_d = { int = [8, 200] }
    lr_g = { float = [1e-5, 1e-2], log = true, when = { gamma = [0.0, 10.0] } }
    beta1 = { float = [0.0, 0.9], when = { width_d = [199] } }
    """
    encoder = Encoder(parse_space(text))
    places = encoder.draw(RNG, 3)
    places[:, encoder.names.index("gamma")] = [0.0, 0.5, 1.0]
    places[:, encoder.names.index("width_d")] = [190 / 192, 191 / 192, 1.0]
    vectors = encoder.vectors(places)
    found = {n: vectors[:, encoder.columns[n].start] != 0.5 for n in ("lr_g", "beta1")}
    assert found["lr_g"].tolist() == [False, False, True]
    assert found["beta1"].tolist() == [False, True, False]


def test_the_vector_of_places_is_that_of_their_values() -> None:
    encoder = Encoder(SPACE)
    drawn = encoder.draw(RNG, 50)
    for places, vector in zip(drawn, encoder.vectors(drawn), strict=True):
        assert np.allclose(encoder.vector(encoder.params(places)), vector)


def test_points_without_a_conditional_parameter_are_alike_in_it() -> None:
    encoder = Encoder(SPACE)
    column = encoder.columns["gamma"]
    base = {"lr_g": 1e-3, "width_g": 16, "depth_g": 1, "loss": "hinge", "penalty": "none"}
    assert encoder.vector(base)[column].tolist() == [0.5]
    assert encoder.vector(base).shape == (encoder.width,) == (8,)
