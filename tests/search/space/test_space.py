"""Spaces: what is read, the message for each mistake, and that any text is a space or a SpaceError."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import TrialConfig
from pipeline.errors import SpaceError
from pipeline.search.space.builtin import builtin_spaces, load_space
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution
from pipeline.search.space.parser import parse_space, space_from_tables
from pipeline.search.space.toml import dump_toml, dump_value

BUILTIN = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.toml"))

FULL = """
[fixed]
kimg = 50
beta1 = 0.0
conditional = true
architecture = "resnet"

[search]
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1", "gp"], conditional = [true] } }
penalty = { choice = ["none", "r1", "gp"] }
penalty_interval = { choice = [1, 4, 16], when = { gamma = [0.5] } }
lr_g = { float = [1e-5, 1e-2], log = true }
d_warmup_kimg = { float = [0.0, 10.0] }
width_g = { int = [8, 64], log = true }
n_critic = { int = [1, 5] }
norm_d = { choice = ["none"], when = { architecture = ["resnet"] } }

[[enqueue]]
lr_g = 2e-4
penalty = "r1"

[[enqueue]]
"""
LR = "lr_g = { float = [1e-5, 1e-2] }\n"


# --- What is read --------------------------------------------------------------------------------


def test_a_space_has_what_its_file_says() -> None:
    space = parse_space(FULL)
    assert space.fixed == {"kimg": 50, "beta1": 0.0, "conditional": True, "architecture": "resnet"}
    assert space.search["lr_g"] == Distribution(low=1e-5, high=1e-2, log=True)
    assert space.search["d_warmup_kimg"] == Distribution(low=0.0, high=10.0)
    assert space.search["width_g"] == Distribution(low=8, high=64, whole=True, log=True)
    assert space.search["penalty"] == Distribution(choices=("none", "r1", "gp"))
    assert space.search["gamma"].when == {"penalty": ("r1", "gp"), "conditional": (True,)}
    assert space.enqueue == ({"lr_g": 2e-4, "penalty": "r1"}, {})


def test_a_boolean_is_searched_as_a_choice() -> None:
    text = f"[search]\n{LR}mirror = {{ choice = [false, true] }}\n[[enqueue]]\nmirror = true\n"
    space = parse_space(text)
    assert space.search["mirror"] == Distribution(choices=(False, True))
    assert space.enqueue == ({"mirror": True},)
    assert space.config({"mirror": True}).mirror is True
    assert space.config({}).mirror is False
    assert parse_space(space.to_toml()).search == space.search
    with pytest.raises(SpaceError, match="mirror = 0 is not true or false"):
        parse_space(text.replace("[false, true]", "[0, 1]").replace("mirror = true", "mirror = 1"))


def test_every_when_refers_to_earlier_parameters() -> None:
    order = list(parse_space(FULL).search)
    assert order.index("penalty") < order.index("gamma") < order.index("penalty_interval")
    assert order == list(parse_space(parse_space(FULL).to_toml()).search)


@pytest.mark.parametrize(
    ("drawn", "active"),
    [({"penalty": "r1"}, True), ({"penalty": "gp"}, True), ({"penalty": "none"}, False), ({}, False)],
)
def test_a_parameter_is_active_when_its_condition_holds(drawn: dict[str, Any], active: bool) -> None:
    assert parse_space(FULL).active("gamma", drawn) is active
    other = FULL.replace("conditional = true", "conditional = false").replace("[true]", "[false, true]")
    assert parse_space(other).active("gamma", drawn) is active


def test_a_parameter_without_when_is_always_active() -> None:
    assert parse_space(FULL).active("lr_g", {})
    assert parse_space(FULL).active("norm_d", {})  # its when looks at a fixed value


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("lr_g", [1e-5, 1e-3, 1e-2], [9e-6, 1.1e-2]),
        ("width_g", [8, 64], [7, 65]),
        ("penalty", ["none", "gp"], ["dragan", ""]),
    ],
)
def test_which_values_can_be_drawn(name: str, inside: list[Any], outside: list[Any]) -> None:
    distribution = parse_space(FULL).search[name]
    assert all(distribution.contains(value) for value in inside)
    assert not any(distribution.contains(value) for value in outside)


def test_a_draw_becomes_a_trial() -> None:
    config = parse_space(FULL).config({"lr_g": 1e-3, "penalty": "gp"}, seed=7)
    assert config == TrialConfig(
        kimg=50, beta1=0.0, conditional=True, architecture="resnet", lr_g=1e-3, penalty="gp", seed=7
    )


def test_values_take_the_type_of_their_parameter() -> None:
    space = parse_space(
        "[fixed]\nkimg = 50.0\nbeta1 = 0\n[search]\nwidth_g = { int = [8.0, 64] }\n"
        "gamma = { choice = [1, 2.5] }\n[[enqueue]]\nwidth_g = 16.0\ngamma = 1\n"
    )
    values = [*space.fixed.values(), *space.search["gamma"].choices, *space.enqueue[0].values()]
    assert [(v, type(v)) for v in values] == [
        (50, int), (0.0, float), (1.0, float), (2.5, float), (16, int), (1.0, float),
    ]  # fmt: skip
    assert type(space.search["width_g"].low) is int


# --- What is refused -----------------------------------------------------------------------------


def of(search: str, fixed: str = "", more: str = "") -> str:
    return f"[fixed]\n{fixed}\n[search]\n{search}\n{more}"


BAD: dict[str, tuple[str, list[str]]] = {
    # what is wrong: (the file, parts of the message: place, problem with the value, rule, fix)
    "empty": ("", ["no parameter is searched", "[search]", "lr_g = {"]),
    "comments only": ("# nothing\n\n", ["no parameter is searched"]),
    "no search": ("[fixed]\nkimg = 5\n", ["no parameter is searched", "[search]"]),
    "empty search": (of(""), ["no parameter is searched", "[search]"]),
    "search is no table": ("search = 3\n", ["no parameter is searched: 3"]),
    "fixed is no table": ("fixed = 3\n[search]\n" + LR, ["fixed is no table: 3", "[fixed]"]),
    "not TOML": ("[search\n", ["valid TOML", "line 1"]),
    "YAML": ("search:\n  lr_g: 1e-4\n", ["valid TOML", "line 1"]),
    "key twice": (of(LR + LR), ["valid TOML", "line"]),
    "a number of 5000 digits": (of(LR, f"kimg = {'1' * 5000}"), ["valid TOML", "digits"]),
    "a huge hexadecimal": (of(LR, f"kimg = 0x{'f' * 5000}"), ["[fixed]", "kimg lies in", "digits"]),
    "nested too deeply": ("a = " + "[" * 5000, ["valid TOML"]),
    "unknown table": (of(LR) + "[serach]\n", ["[serach] is unknown", "tables", "'search'"]),
    "key outside the tables": ("lr_g = 1\n" + of(LR), ["[lr_g] is unknown", "tables", "fixed"]),
    "misspelt fixed key": (
        of(LR, "batchsize = 64"),
        ["[fixed]", "batchsize is no hyper-parameter", "'batch_size'"],
    ),
    "misspelt searched key": (
        of("lrg = { float = [1e-5, 1e-2] }"),
        ["[search]", "lrg is no hyper-parameter", "'lr_g'"],
    ),
    "unknown key": (
        of(LR, "qqq = 1"),
        ["[fixed]", "qqq is no hyper-parameter", "valid names", "architecture", "z_dim"],
    ),
    "a sweep's key": (of(LR, "trials = 4"), ["[fixed]", "trials is no hyper-parameter", "valid names"]),
    "fixed out of bounds": (
        of(LR, "kimg = 0"),
        ["[fixed]", "kimg = 0 is out of range (kimg lies in [1, 1e+06])"],
    ),
    "fixed of the wrong type": (of(LR, 'kimg = "5"'), ["[fixed]", "kimg = 5 is no number", "kimg = 100"]),
    "fixed not whole": (of(LR, "kimg = 1.5"), ["kimg = 1.5 is no whole number"]),
    "fixed nan": (of(LR, "beta1 = nan"), ["beta1 = nan is out of range"]),
    "fixed inf": (of(LR, "gamma = inf"), ["gamma = inf is out of range"]),
    "fixed boolean for a number": (of(LR, "kimg = true"), ["kimg = True is no number"]),
    "fixed number for a boolean": (of(LR, "conditional = 1"), ["conditional = 1 is not true or false"]),
    "fixed date": (of(LR, "kimg = 2020-01-01"), ["kimg = datetime.date(2020, 1, 1) is no number"]),
    "fixed misspelt choice": (
        of(LR, 'loss = "hinged"'),
        ["loss = hinged is unknown (loss is one of", "'hinge'"],
    ),
    "fixed and searched": (of(LR, "lr_g = 1e-3"), ["lr_g is both fixed and searched", "keep one"]),
    "kimg searched": (
        of("kimg = { int = [10, 100] }"),
        ["kimg cannot be searched (it must be the same for all trials)", "[fixed]"],
    ),
    "tick_kimg searched": (
        of("tick_kimg = { choice = [5, 10] }"),
        ["tick_kimg cannot be searched", "[fixed]"],
    ),
    "seed searched": (of("seed = { int = [0, 9] }"), ["seed cannot be searched", "[fixed]"]),
    "a bare value": (of("lr_g = 1e-3"), ["lr_g = 0.001 is no distribution", "choice"]),
    "a list": (
        of("lr_g = [1e-5, 1e-2]"),
        ["lr_g = [1e-05, 0.01] is no distribution", "lr_g = { float|int = [low, high] }"],
    ),
    "no distribution": (of("lr_g = { log = true }"), ["lr_g = {'log': True} is no distribution"]),
    "two distributions": (
        of("n_critic = { int = [1, 2], choice = [1] }"),
        ["is no distribution", "n_critic = {"],
    ),
    "misspelt distribution": (
        of("lr_g = { flaot = [1e-5, 1e-2] }"),
        ["is no distribution", "flaot", "float|int"],
    ),
    "misspelt option": (of("lr_g = { float = [1e-5, 1e-2], lgo = true }"), ["lr_g.lgo", "'log'"]),
    "misspelt when": (of("lr_g = { float = [1e-5, 1e-2], wehn = {} }"), ["lr_g.wehn", "'when'"]),
    "float for a whole number": (
        of("n_critic = { float = [1, 5] }"),
        ["n_critic.float has the wrong type", "{ int ="],
    ),
    "int for a float": (of("gamma = { int = [1, 5] }"), ["gamma.int has the wrong type", "{ float ="]),
    "range of texts": (of("loss = { int = [1, 5] }"), ["loss.int has the wrong type", "{ choice ="]),
    "range of booleans": (
        of("conditional = { int = [0, 1] }"),
        ["conditional.int has the wrong type", "{ choice ="],
    ),
    "reversed": (
        of("lr_g = { float = [1e-2, 1e-5] }"),
        ["lr_g = [0.01, 1e-05] is empty", "low bound is below", "swap them"],
    ),
    "equal bounds": (of("lr_g = { float = [1e-2, 1e-2] }"), ["low bound is below", "put it in [fixed]"]),
    "one bound": (of("lr_g = { float = [1e-2] }"), ["float is [low, high]", "lr_g"]),
    "three bounds": (of("n_critic = { int = [1, 2, 3] }"), ["int is [low, high]", "n_critic"]),
    "bounds no list": (of("lr_g = { float = 1e-2 }"), ["float is [low, high]", "lr_g"]),
    "bound of the wrong type": (of('lr_g = { float = ["a", 1e-2] }'), ["lr_g = a is no number"]),
    "bound not whole": (of("n_critic = { int = [1, 2.5] }"), ["n_critic = 2.5 is no whole number"]),
    "bound out of bounds": (
        of("lr_g = { float = [1e-5, 2.0] }"),
        ["lr_g = 2.0 is out of range (lr_g lies in [1e-07, 1])"],
    ),
    "bound nan": (of("lr_g = { float = [nan, 1e-2] }"), ["lr_g = nan is out of range"]),
    "log from 0": (
        of("gamma = { float = [0.0, 10.0], log = true }"),
        ["gamma = [0.0, 10.0] has no log scale", "begins above 0"],
    ),
    "log no boolean": (of('lr_g = { float = [1e-5, 1e-2], log = "yes" }'), ["log is true or false", "lr_g"]),
    "choice no list": (of('loss = { choice = "hinge" }'), ["choice is a list", "loss"]),
    "choice empty": (of("loss = { choice = [] }"), ["choice is a list", "loss"]),
    "choice with log": (
        of("n_critic = { choice = [1, 2], log = true }"),
        ["is no choice (choice is a list of values, without log)"],
    ),
    "misspelt choice": (
        of('loss = { choice = ["hinge", "lsgn"] }'),
        ["loss = lsgn is unknown (loss is one of", "'lsgan'"],
    ),
    "choice of the wrong type": (
        of("n_critic = { choice = [1, true] }"),
        ["n_critic = True is no number"],
    ),
    "choice of lists": (of('loss = { choice = [["hinge"]] }'), ["loss = ['hinge'] is no text"]),
    "when names an absent parameter": (
        of('lr_g = { float = [1e-5, 1e-2], when = { penalty = ["r1"] } }\nz_dim = { choice = [8, 9] }'),
        ["lr_g.when.penalty names no parameter of this space", "z_dim"],
    ),
    "when misspelt": (
        of('penalty = { choice = ["r1", "gp"] }\ngamma = { float = [1, 2], when = { penlty = ["r1"] } }'),
        ["penlty is no hyper-parameter", "'penalty'"],
    ),
    "when impossible in a choice": (
        of('penalty = { choice = ["none", "gp"] }\ngamma = { float = [1, 2], when = { penalty = ["r1"] } }'),
        ["gamma.when names values that penalty cannot take: ['r1']"],
    ),
    "when impossible in a range": (
        of("n_critic = { int = [1, 3] }\ngamma = { float = [1, 2], when = { n_critic = [4, 5] } }"),
        ["gamma.when names values that n_critic cannot take: [4, 5]"],
    ),
    "when impossible with what is fixed": (
        of('gamma = { float = [1, 2], when = { penalty = ["r1"] } }', 'penalty = "none"'),
        ["gamma.when names values that penalty cannot take: ['r1']"],
    ),
    "when no such choice": (
        of('penalty = { choice = ["r1", "gp"] }\ngamma = { float = [1, 2], when = { penalty = ["gpp"] } }'),
        ["penalty = gpp is unknown (penalty is one of", "'gp'"],
    ),
    "when without a list": (
        of('penalty = { choice = ["r1", "gp"] }\ngamma = { float = [1, 2], when = { penalty = "r1" } }'),
        ["when is { other = [values] }", "penalty", "gamma.when"],
    ),
    "when with an empty list": (
        of('penalty = { choice = ["r1", "gp"] }\ngamma = { float = [1, 2], when = { penalty = [] } }'),
        ["when is { other = [values] }", "gamma.when"],
    ),
    "when no table": (
        of("lr_g = { float = [1e-5, 1e-2], when = true }"),
        ["lr_g.when = True cannot be read", "when is {"],
    ),
    "when of itself": (
        of("n_critic = { int = [1, 3], when = { n_critic = [1] } }"),
        ["whens form a circle: n_critic;", "remove"],
    ),
    "when in a circle": (
        of(
            "n_critic = { int = [1, 3], when = { depth_g = [1] } }\n"
            "depth_g = { int = [1, 3], when = { depth_d = [1] } }\n"
            "depth_d = { int = [1, 3], when = { n_critic = [1] } }\n" + LR
        ),
        ["whens form a circle: n_critic, depth_g, depth_d;", "remove"],
    ),
    "enqueue no list": (of(LR) + "[enqueue]\nlr_g = 1e-3\n", ["enqueue is no list of tables", "[[enqueue]]"]),
    "enqueue of numbers": (
        "enqueue = [1]\n" + of(LR),
        ["enqueue is no list of tables: [1]", "[[enqueue]]"],
    ),
    "enqueue below a range": (
        of(LR, more="[[enqueue]]\nlr_g = 1e-6"),
        ["[[enqueue]]", "lr_g = 1e-06 is outside its range"],
    ),
    "enqueue above a range": (
        of(LR, more="[[enqueue]]\nlr_g = 0.5"),
        ["[[enqueue]]", "lr_g = 0.5 is outside its range"],
    ),
    "enqueue no choice": (
        of('loss = { choice = ["hinge", "lsgan"] }', more='[[enqueue]]\nloss = "minimax"'),
        ["[[enqueue]]", "loss = minimax is outside its range"],
    ),
    "enqueue not searched": (
        of(LR, more="[[enqueue]]\nlr_d = 1e-3"),
        ["[[enqueue]]", "lr_d is not searched", "'lr_g'"],
    ),
    "enqueue of a fixed key": (
        of(LR, "kimg = 9", more="[[enqueue]]\nkimg = 9"),
        ["[[enqueue]]", "kimg is not searched"],
    ),
    "enqueue misspelt": (
        of(LR, more="[[enqueue]]\nlrg = 1e-3"),
        ["[[enqueue]]", "lrg is no hyper-parameter", "'lr_g'"],
    ),
    "enqueue of the wrong type": (
        of(LR, more='[[enqueue]]\nlr_g = "a"'),
        ["[[enqueue]]", "lr_g = a is no number"],
    ),
    "enqueue wrong in the second": (
        of(LR, more="[[enqueue]]\nlr_g = 1e-3\n[[enqueue]]\nlr_g = 1.0"),
        ["[[enqueue]]", "lr_g = 1.0 is outside its range"],
    ),
    "controls in a key": ('"\\u001b[31m\\nx" = 1\n', ["tables", r"\x1b[31m x"]),
}


@pytest.mark.parametrize("wrong", BAD)
def test_each_mistake_has_a_message_of_one_line(wrong: str) -> None:
    text, parts = BAD[wrong]
    with pytest.raises(SpaceError) as caught:
        parse_space(text, "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml")
    assert message.isprintable()
    assert [part for part in parts if part not in message] == [], message


# --- Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BUILTIN, ids=lambda path: path.stem)
def test_every_builtin_space_loads(path: Path) -> None:
    space = load_space(path.stem)
    assert space == load_space(str(path)) == load_space(f"search_spaces/{path.name}")
    assert parse_space(space.to_toml()) == space
    # Each enqueued point is a whole trial: what it leaves out has a default.
    assert all(isinstance(space.config(point), TrialConfig) for point in space.enqueue)


def test_the_default_space_is_builtin() -> None:
    assert {"mnist5k", "smoke"} <= builtin_spaces().keys() == {path.stem for path in BUILTIN}


def test_a_file_comes_before_a_builtin_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").write_text(of(LR))
    assert list(load_space("smoke").search) == ["lr_g"]


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("mnist", "'mnist5k'"),
        ("smok.toml", "'smoke'"),
        ("", "valid names"),
        ("a\0b", "valid"),
        ("x" * 5000, "valid"),
    ],
)
def test_an_unknown_space_names_the_builtin_ones(name: str, fix: str) -> None:
    with pytest.raises(SpaceError, match="there is no space") as caught:
        load_space(name)
    assert fix in caught.value.fix
    assert str(caught.value).isprintable()


def test_a_folder_is_no_space(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="there is no space"):
        load_space(str(tmp_path))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe[search]")
    with pytest.raises(SpaceError, match="the space .*a.toml cannot be read; .*utf-8"):
        load_space(str(tmp_path / "a.toml"))


def test_a_mistake_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[fixed]\n")
    with pytest.raises(SpaceError, match="^mine.toml: "):
        load_space(str(tmp_path / "mine.toml"))


# --- Written back, compared, overridden ----------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "space."])
def test_a_space_written_reads_back_equal(prefix: str) -> None:
    space = parse_space(FULL)
    tables = tomllib.loads(dump_toml({"space": space.tables()} if prefix else space.tables()))
    again = space_from_tables(tables["space"] if prefix else tables)
    assert again == space
    assert list(again.search) == list(space.search)
    assert again.hash == space.hash


def test_the_hash_does_not_change() -> None:
    # Golden: sweeps on disk and runs in MLflow carry it.
    assert parse_space(FULL).hash == "06a5b698828f324b"


def test_comments_and_order_do_not_count() -> None:
    swapped = "[search]\n" + LR + "n_critic = { int = [1, 5] }  # five\n\n[fixed]\nbeta1 = 0\nkimg = 50.0\n"
    plain = "[fixed]\nkimg = 50\nbeta1 = 0.0\n[search]\nn_critic = { int = [1, 5] }\n" + LR
    assert parse_space(swapped) == parse_space(plain)
    assert parse_space(swapped).hash == parse_space(plain).hash


CHANGES = {
    "fixed.kimg": ("kimg = 50", "kimg = 51"),
    "fixed.beta1": ("beta1 = 0.0\n", ""),
    "search.lr_g": ("[1e-5, 1e-2]", "[1e-5, 2e-2]"),
    "search.width_g": ("{ int = [8, 64], log = true }", "{ int = [8, 64] }"),
    "search.penalty": ('choice = ["none", "r1", "gp"]', 'choice = ["none", "gp", "r1"]'),
    "search.gamma": ('penalty = ["r1", "gp"]', 'penalty = ["r1"]'),
    "search.n_critic": ("n_critic = { int = [1, 5] }\n", ""),
    "search.n_critic, search.depth_g": ("n_critic = { int", "depth_g = { int"),
    "enqueue": ("lr_g = 2e-4", "lr_g = 3e-4"),
}


@pytest.mark.parametrize("keys", CHANGES)
def test_every_change_is_named_and_changes_the_hash(keys: str) -> None:
    old, new = CHANGES[keys]
    assert FULL.count(old) == 1
    before, after = parse_space(FULL), parse_space(FULL.replace(old, new))
    assert before.differences(after) == after.differences(before) == sorted(keys.split(", "))
    assert before.hash != after.hash


def test_no_difference() -> None:
    assert parse_space(FULL).differences(parse_space(FULL)) == []


def test_a_fixed_choice_is_no_longer_searched_or_enqueued() -> None:
    space = parse_space(FULL).override({"lr_g": 5e-4, "kimg": 7, "seed": 3})
    assert space.fixed == {**parse_space(FULL).fixed, "lr_g": 5e-4, "kimg": 7, "seed": 3}
    assert space.search.keys() == parse_space(FULL).search.keys() - {"lr_g"}
    assert space.enqueue == ({"penalty": "r1"}, {})
    assert "lr_g" in parse_space(FULL).search  # the space itself stays as it was


def test_parameters_whose_condition_can_no_longer_hold_are_removed() -> None:
    space = parse_space(FULL).override({"penalty": "none"})
    assert {"penalty", "gamma", "penalty_interval"}.isdisjoint(space.search)
    assert parse_space(FULL).override({"penalty": "gp"}).search.keys() == parse_space(FULL).search.keys() - {
        "penalty"
    }


@pytest.mark.parametrize(
    "values", [{"penalty": "none"}, {"penalty": "r1"}, {"architecture": "mlp"}, {"gamma": 3}, {"lr_g": 1e-3}]
)
def test_an_overridden_space_reads_back_equal(values: dict[str, Any]) -> None:
    # A sweep writes it to sweep.toml, and a resume reads it from there.
    space = parse_space(FULL).override(values)
    again = parse_space(space.to_toml())
    assert again == space
    assert again.differences(space) == []
    assert again.hash == space.hash


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrg": 1}, "--set: lrg is no hyper-parameter; did you mean 'lr_g'"),
        ({"kimg": 0}, "--set: kimg = 0 is out of range"),
        ({"lr_g": "fast"}, "--set: lr_g = fast is no number"),
        ({"loss": "hing"}, "--set: loss = hing is unknown .*did you mean 'hinge'"),
        ({"lr_g": 1e-3, "n_critic": 1}, "no parameter is left to search"),
    ],
)
def test_bad_overrides(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        parse_space(of(LR + "n_critic = { int = [1, 2] }")).override(values)


# --- Any text ------------------------------------------------------------------------------------


def outcome(text_or_tables: Any) -> Space | SpaceError:
    """A space, checked to read back equal, or a refusal, checked to be one line. Nothing else comes out."""
    try:
        read = parse_space if isinstance(text_or_tables, str) else space_from_tables
        found: Space | SpaceError = read(text_or_tables)
    except SpaceError as error:
        found = error
    if isinstance(found, Space):
        again = parse_space(found.to_toml())
        assert (again, again.hash) == (found, found.hash)
    else:
        assert str(found).isprintable()
    return found


@given(st.text())
def test_any_text_is_a_space_or_refused(text: str) -> None:
    assert isinstance(outcome(text), SpaceError)


@given(st.integers(0, len(FULL) - 1), st.integers(0, 12), st.text(max_size=3))
def test_any_small_change_of_the_text_is_a_space_or_refused(start: int, removed: int, put: str) -> None:
    outcome(FULL[:start] + put + FULL[start + removed :])


NAMES = st.sampled_from([*TrialConfig.fields(), "lrg", ""])
SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["none", "r1", "gp", "hinge", "batch", "dcgan", "float32", ""])
    | st.sampled_from([0, 1, 2, 1e-3, 0.5, 16, 10**400])
)
LISTS = st.lists(SCALARS, max_size=3)
DRAWS = st.fixed_dictionaries(
    {},
    optional={
        "int": LISTS,
        "float": LISTS,
        "choice": LISTS,
        "log": SCALARS,
        "when": st.dictionaries(NAMES, LISTS, max_size=2),
    },
)
TABLES = st.fixed_dictionaries(
    {"search": st.dictionaries(NAMES, DRAWS | SCALARS, min_size=1, max_size=3) | SCALARS},
    optional={
        "fixed": st.dictionaries(NAMES, SCALARS | LISTS, max_size=2) | SCALARS,
        "enqueue": st.lists(st.dictionaries(NAMES, SCALARS, max_size=2) | SCALARS, max_size=2) | SCALARS,
        "other": SCALARS,
    },
)


@given(TABLES)
def test_any_tables_are_a_space_or_refused(tables: dict[str, Any]) -> None:
    outcome(tables)


@st.composite
def good_distributions(draw: st.DrawFn, name: str) -> dict[str, Any]:
    field = TrialConfig.fields()[name]
    if field.type not in ("int", "float"):
        choices = list(field.metadata.get("choices", (True, False)))
        return {"choice": draw(st.lists(st.sampled_from(choices), min_size=1, unique=True))}
    low, high = field.metadata["low"], field.metadata["high"]
    numbers = st.integers(low, high) if field.type == "int" else st.floats(low, high)
    bounds = sorted(draw(st.lists(numbers, min_size=2, max_size=2, unique=True)))
    return {field.type: bounds, **({"log": draw(st.booleans())} if bounds[0] > 0 else {})}


@st.composite
def good_spaces(draw: st.DrawFn) -> dict[str, Any]:
    searchable = [name for name in TrialConfig.fields() if name not in ("kimg", "tick_kimg", "seed")]
    names = draw(st.lists(st.sampled_from(searchable), min_size=1, max_size=5, unique=True))
    return {name: draw(good_distributions(name)) for name in names}


@given(good_spaces(), st.integers(1, 10**6))
def test_every_valid_space_is_accepted_and_reads_back(search: dict[str, Any], kimg: int) -> None:
    space = outcome({"fixed": {"kimg": kimg}, "search": search})
    assert isinstance(space, Space), space
    assert space.search.keys() == search.keys()


@given(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
)
@example('"\\ \x00\x1f\x7f\x85\u2028\r\n')
def test_any_value_written_reads_back(value: object) -> None:
    for whole in (value, [value, value]):
        back = tomllib.loads(f"x = {dump_value(whole)}\n")["x"]
        assert back == whole
        assert type(back) is type(whole)
