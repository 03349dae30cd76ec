"""Numbers as texts for people."""

from __future__ import annotations

import math

import pytest

from pipeline.storage import readable


@pytest.mark.parametrize(("value", "text"), [(12.345, "12.35"), (3, "3.00"), (None, "-"), (math.nan, "-")])
def test_a_number_that_is_unknown_is_a_dash(value: float | None, text: str) -> None:
    assert readable.readable_number(value, ".2f") == text


def test_what_is_no_number_is_not_finite() -> None:
    values = [2, 0.5, True, "2", None, math.inf]
    assert [readable.finite(value) for value in values] == [2, 0.5, None, None, None, None]


def test_hyper_parameters_are_short() -> None:
    texts = [readable.short_number(value) for value in (0.00123456, 1000, "hinge")]
    assert texts == ["0.00123", "1000", "hinge"]


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (1000, "1.0 kB"), (4_200_000, "4.2 MB"), (3e15, "3000.0 TB")]
)
def test_bytes_on_a_disk(count: float, text: str) -> None:
    assert readable.readable_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(2**29, "0.5 GiB"), (24 * 2**30, "24 GiB"), (2929.7 * 2**30, "2929.7 GiB")]
)
def test_bytes_in_memory(count: float, text: str) -> None:
    assert readable.readable_memory(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (1800, "30 min"), (11520, "3.2 h")]
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert readable.readable_duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.9, "1:01"), (3723, "1:02:03")])
def test_a_clock(seconds: float, text: str) -> None:
    assert readable.clock(seconds) == text
