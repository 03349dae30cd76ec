"""TOML that people read: a distribution on a line, and what was written before is read."""

from __future__ import annotations

import tomllib

from pipeline.search.space.parser import parse_space
from pipeline.search.space.toml import dump_toml

WRITTEN = """\
[fixed]
kimg = 50

[search]
lr_g = {float = [1e-05, 0.01], log = true}
width_g = {int = [8, 64]}
penalty = {choice = ["none", "r1"]}
gamma = {float = [0.1, 10.0], log = true, when = {penalty = ["r1"]}}

[[enqueue]]
lr_g = 0.0002
penalty = "r1"
"""
BEFORE = WRITTEN.replace("{", "{ ").replace("}", " }")
"""As versions before wrote it."""


def test_a_distribution_takes_one_line() -> None:
    assert parse_space(WRITTEN).to_toml() == WRITTEN


def test_a_space_of_an_earlier_version_is_the_same_space() -> None:
    assert parse_space(BEFORE) == parse_space(WRITTEN)
    assert parse_space(BEFORE).hash == parse_space(WRITTEN).hash


def test_names_with_dots_and_empty_tables_read_back() -> None:
    tables = {"code": {"optuna.samplers": "ab"}, "space": {"fixed": {}, "search": {}, "enqueue": [{}, {}]}}
    assert tomllib.loads(dump_toml(tables)) == tables
