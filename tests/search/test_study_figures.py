"""The figures of a study."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.search.space.parser import parse_space
from pipeline.search.study_figures import draw_study

SPACE = parse_space("[search]\nlr_g = { float = [1e-5, 1e-2], log = true }\nwidth_g = { int = [8, 64] }")


def points_of(count: int) -> list[tuple[dict[str, Any], float]]:
    """Parameters and fids of `count` trials; the fid depends on lr_g alone."""
    rng = np.random.default_rng(0)
    rates = 10 ** rng.uniform(-5, -2, count)
    params = [{"lr_g": float(rate), "width_g": int(rng.integers(8, 65))} for rate in rates]
    return [(each, 10 + abs(float(np.log(each["lr_g"])))) for each in params]


def test_importances_need_enough_trials_and_have_their_uncertainty() -> None:
    assert draw_study(SPACE, points_of(3))["importances"] is None
    figures = draw_study(SPACE, points_of(20))
    bars = figures["importances"].data[0]
    assert list(bars.y) == ["width_g", "lr_g"], "the important one is on top"
    assert bars.x[1] - bars.error_x.arrayminus[1] > bars.x[0] + bars.error_x.array[0], (
        "the lines do not overlap"
    )
    assert len(figures["coordinates"].data) == 20
