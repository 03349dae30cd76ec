"""Every user error is one printable line (problem, value, rule, fix) and survives pickling."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors
from pipeline.errors import GansweepError, UserError, first_line, nearest, redact

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GansweepError)]
USER_KINDS = [kind for kind in KINDS if issubclass(kind, UserError)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_docstring_shows_the_class_tree(kind: type[GansweepError]) -> None:
    # `except UserError` must not catch the two that a trial recovers from.
    assert issubclass(kind, UserError) == (
        kind.__name__ not in ("GansweepError", "CheckpointError", "TrialError")
    )
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", USER_KINDS)
def test_message_is_problem_value_rule_and_fix(kind: type[UserError]) -> None:
    error = kind(
        "lr_g = {seen} is out of range", rule="lr_g lies in [0, 1]", seen=7, fix="the default is 0.1"
    )
    assert str(error) == "lr_g = 7 is out of range (lr_g lies in [0, 1]); the default is 0.1"
    assert (error.problem, error.rule) == ("lr_g = {seen} is out of range", "lr_g lies in [0, 1]")
    assert (error.seen, error.fix) == (7, "the default is 0.1")


@pytest.mark.parametrize(
    ("problem", "rule", "seen", "message"),
    [
        ("unknown key", "", "lrg", "unknown key: lrg; a fix"),  # without {seen} the value follows
        ("unknown key", "a rule", "lrg", "unknown key: lrg (a rule); a fix"),
        ("the folder is empty", "", None, "the folder is empty; a fix"),
        ("lr_g = {seen}", "", None, "lr_g = None; a fix"),
        ("{seen} is not {seen}", "", 1, "1 is not 1; a fix"),
        ("{seen} exists", "{seen}", "{fix}", "{fix} exists ({seen}); a fix"),  # only the problem is filled in
    ],
)
def test_the_value_stands_where_the_problem_has_a_place_for_it(
    problem: str, rule: str, seen: object, message: str
) -> None:
    assert str(UserError(problem, rule=rule, seen=seen, fix="a fix")) == message


@pytest.mark.parametrize("kind", USER_KINDS)
@pytest.mark.parametrize("send", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_a_user_error_survives_pickling(kind: type[UserError], send: object) -> None:
    # Ray pickles what a worker raises; an exception with keyword arguments does not survive by itself.
    error = kind("a problem", rule="a rule", seen=["a", 1.5], fix="a fix")
    twin = send(error)  # type: ignore[operator]
    assert type(twin) is kind
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        ("two\n lines\tand  more", "two lines and more"),
        ("", "nothing"),
        (" \n", "nothing"),
        ({"a": [1]}, "{'a': [1]}"),
        ("x" * 201, "x" * 197 + "..."),
        ("\x1b[31mred", r"\x1b[31mred"),  # no colours, no cursor movements from a file
        ("caf\udce9.toml", r"caf\udce9.toml"),  # a Latin-1 file name as Python reads it
        pytest.param(10**5000, "a number of thousands of digits", id="a huge number"),
        pytest.param([0xF**9000], "a number of thousands of digits", id="a list of it"),
    ],
)
def test_the_value_is_shown_on_one_printable_line(seen: object, shown: str) -> None:
    assert str(UserError("a problem", seen=seen, fix="a fix")) == f"a problem: {shown}; a fix"


@given(st.text(), st.text(), st.text() | st.lists(st.integers() | st.floats()), st.text())
def test_any_message_is_one_line_that_can_be_written(problem: str, rule: str, seen: object, fix: str) -> None:
    text = str(UserError(problem, rule=rule, seen=seen, fix=fix))
    assert text.isprintable()
    assert text.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@host/db", "postgresql://***@host/db"),
        ("https://host/x?token=abc&a=1", "https://host/x?token=***&a=1"),
        ("http://host/x", "http://host/x"),
        ("postgresql://me:p@ss@host/db", "postgresql://***@host/db"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)
def test_redact_hides_user_names_passwords_and_tokens(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_first_line_is_the_type_and_a_short_first_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(ValueError()) == "ValueError: "
    assert len(first_line(ValueError("x" * 1000))) == 300


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lrd", "did you mean 'lr_d'?"),
        ("widht", "did you mean 'width'?"),
        ("zzz", "valid names: lr_d, lr_g, width"),
        ("", "valid names: lr_d, lr_g, width"),
    ],
)
def test_nearest(name: str, hint: str) -> None:
    assert nearest(name, ["width", "lr_g", "lr_d"]) == hint
