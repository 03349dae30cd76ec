"""The figures of the page."""

from __future__ import annotations

import pytest

from pipeline.reporting.html.figures import expected_best_in_random_order


def test_the_expected_best_of_a_random_order_goes_from_the_mean_to_the_minimum() -> None:
    assert expected_best_in_random_order([4.0, 1.0, 7.0]) == pytest.approx([4.0, 2.0, 1.0])
    many = [float(n) for n in range(200)]
    assert expected_best_in_random_order(many)[0] == pytest.approx(99.5)
    assert expected_best_in_random_order(many)[99] == pytest.approx(201 / 101 - 1), (
        "expected minimum of n numbers of 1 to N: (N+1)/(n+1)"
    )
