"""Every user error is one printable line with rule, value and fix, and survives a process border."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors
from pipeline.errors import GansweepError, UserError, nearest

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GansweepError)]
USER_KINDS = [kind for kind in KINDS if issubclass(kind, UserError)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_at_the_top_of_the_file_is_the_tree(kind: type[GansweepError]) -> None:
    # `except UserError` must not swallow the two that a trial recovers from.
    assert issubclass(kind, UserError) == (
        kind.__name__ not in ("GansweepError", "CheckpointError", "TrialError")
    )
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", USER_KINDS)
def test_message_is_rule_value_and_fix(kind: type[UserError]) -> None:
    error = kind("lr_g lies in [0, 1]", seen=7, fix="the default is 0.1")
    assert str(error) == "lr_g lies in [0, 1]; got 7; the default is 0.1"
    assert (error.rule, error.seen, error.fix) == ("lr_g lies in [0, 1]", 7, "the default is 0.1")


@pytest.mark.parametrize("kind", USER_KINDS)
@pytest.mark.parametrize("send", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_a_user_error_survives_pickling(kind: type[UserError], send: object) -> None:
    # Ray pickles what a worker raises; an exception with keyword arguments does not survive by itself.
    error = kind("a rule", seen=["a", 1.5], fix="a fix")
    twin = send(error)  # type: ignore[operator]
    assert type(twin) is kind
    assert (twin.rule, twin.seen, twin.fix, str(twin)) == (error.rule, error.seen, error.fix, str(error))


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        ("two\n lines\tand  more", "two lines and more"),
        ("", "nothing"),
        (" \n", "nothing"),
        (None, "None"),
        ({"a": [1]}, "{'a': [1]}"),
        ("x" * 201, "x" * 197 + "..."),
        ("\x1b[31mred", r"\x1b[31mred"),  # no colours, no cursor movements from a file
        ("caf\udce9.toml", r"caf\udce9.toml"),  # a Latin-1 file name as Python reads it
        pytest.param(10**5000, "a number of thousands of digits", id="a huge number"),
        pytest.param([0xF**9000], "a number of thousands of digits", id="a list of it"),
    ],
)
def test_the_value_seen_is_shown_on_one_printable_line(seen: object, shown: str) -> None:
    assert str(UserError("a rule", seen=seen, fix="a fix")) == f"a rule; got {shown}; a fix"


@given(st.text(), st.text() | st.lists(st.integers() | st.floats()), st.text())
def test_any_message_is_one_line_that_can_be_written(rule: str, seen: object, fix: str) -> None:
    text = str(UserError(rule, seen=seen, fix=fix))
    assert text.isprintable()
    assert text.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lrd", "did you mean 'lr_d'?"),
        ("widht", "did you mean 'width'?"),
        ("zzz", "valid names: lr_d, lr_g, width"),
        ("", "valid names: lr_d, lr_g, width"),
    ],
)
def test_nearest(name: str, said: str) -> None:
    assert nearest(name, ["width", "lr_g", "lr_d"]) == said
