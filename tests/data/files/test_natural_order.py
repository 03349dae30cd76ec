"""Names in the order in which a person counts."""

from __future__ import annotations

import random

from pipeline.data.files.natural_order import natural_key


def test_numbers_by_their_value_letters_whatever_their_case() -> None:
    ordered = ["0", "1", "02", "2", "10", "1" * 5000, "a/2.png", "A/3.png", "a/10.png", "a2/1.png", "B", "b"]
    for seed in range(5):
        shuffled = random.Random(seed).sample(ordered, len(ordered))
        assert sorted(shuffled, key=natural_key) == ordered


def test_any_name_has_a_place() -> None:
    names = ["", "/", "٣", "²", "\udcff1", "-1", "1.5", "a//b", "a", "a/b", "1", "1/2"]
    ordered = sorted(names, key=natural_key)
    for seed in range(5):
        assert sorted(random.Random(seed).sample(names, len(names)), key=natural_key) == ordered
