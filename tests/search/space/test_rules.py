"""Rules of a space: when they hold, what they set, scaled numbers, and the message for each mistake."""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import Any

import pytest
from factories import image_facts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SpaceError
from pipeline.search.space.builtin import load_space
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution
from pipeline.search.space.notes import outline, space_code_names, space_notes
from pipeline.search.space.parser import parse_space, space_from_tables

BASE = """
[fixed]
kimg = 50
batch_size = 32
[search]
lr_g = { float = [1e-4, 1e-2], log = true }
width_g = { int = [8, 32] }
[[enqueue]]
lr_g = 1e-3
width_g = 16
"""


def ruled(rules: str, **facts: Any) -> Space:
    """`BASE` with these rules, for images of `image_facts`."""
    return parse_space(BASE + rules).on_images(image_facts(**facts))


@pytest.mark.parametrize(
    ("when", "holds", "fails"),
    [
        ("device = 'gpu'", {"device": "gpu"}, {"device": "cpu"}),
        ("channels = 3", {"channels": 3}, {"channels": 1}),
        ("labelled = true", {"classes": 2}, {"classes": 0}),
        ("labelled = false", {"classes": 0}, {"classes": 2}),
        ("size_from = 64", {"size": 64}, {"size": 63}),
        ("size_below = 64", {"size": 63}, {"size": 64}),
        ("images_from = 5000", {"images": 5000}, {"images": 4999}),
        ("images_below = 5000", {"images": 4999}, {"images": 5000}),
        ("smallest_class_from = 20", {"images": 200, "classes": 10}, {"images": 199, "classes": 10}),
        ("smallest_class_from = 20", {"classes": 2}, {"classes": 2, "smallest_class": 19}),
        ("smallest_class_from = 1", {"classes": 2}, {"classes": 0}),
        ("size_from = 32, device = 'gpu'", {"device": "gpu", "size": 32}, {"device": "gpu", "size": 28}),
        ("", {}, None),
    ],
)
def test_a_rule_holds_where_all_its_conditions_do(
    when: str, holds: dict[str, Any], fails: dict[str, Any] | None
) -> None:
    rules = f"[[rule]]\nwhen = {{ {when} }}\nfixed = {{ beta1 = 0.25 }}"
    assert ruled(rules, **holds).fixed == {"kimg": 50, "batch_size": 32, "beta1": 0.25}
    if fails is not None:
        assert ruled(rules, **fails) == parse_space(BASE)


def test_later_rules_win_and_fixed_and_searched_replace_each_other() -> None:
    space = ruled("""
        [[rule]]
        [rule.fixed]
        width_g = 64
        [rule.search]
        batch_size = { choice = [16, 32] }
        beta1 = { choice = [0.0, 0.5] }
        [[rule]]
        fixed = { beta1 = 0.9 }
    """)
    assert space.fixed == {"kimg": 50, "width_g": 64, "beta1": 0.9}
    assert list(space.search) == ["lr_g", "batch_size"]
    assert space.enqueue == ({"lr_g": 1e-3},)  # what is no longer searched is left out
    assert not space.rules


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ("fixed = { batch_size = 64 }", 64),
        ("search = { batch_size = { choice = [16, 256, 128] } }", 128),
        ("search = { batch_size = { int = [16, 64], log = true } }", 32),
        ("search = { batch_size = { int = [16, 64] } }", 40),
        ("fixed = { batch_size = { factor = 1, size = 1 } }", 64),
    ],
)
def test_scaled_numbers_follow_size_and_batch(batch: str, expected: int) -> None:
    space = ruled(f"""
        [[rule]]
        [rule.fixed]
        kimg = {{ factor = 163840, size = -2 }}
        ema_halflife_kimg = {{ factor = 0.5, batch_size = 1 }}
        [rule.search]
        gamma = {{ float = [0.5, 2.0], log = true, scale = {{ factor = 2e-4, size = 2, batch_size = -1 }} }}
        width_d = {{ int = [1, 3], scale = {{ factor = 0.26, size = 1 }} }}
        [[rule.enqueue]]
        gamma = {{ factor = 2e-4, size = 2, batch_size = -1 }}
        width_d = {{ factor = 1, size = 1 }}
        [[rule]]
        {batch}
    """)
    gamma = 2e-4 * 64**2 / expected
    assert (space.fixed["kimg"], space.fixed["ema_halflife_kimg"]) == (40, expected / 2)
    assert space.search["gamma"].low == pytest.approx(gamma / 2)
    assert space.search["gamma"].high == pytest.approx(gamma * 2)
    assert space.search["width_d"] == Distribution(low=17, high=50, whole=True)
    assert space.enqueue[1] == {"gamma": pytest.approx(gamma), "width_d": 50}  # kept within its range


def test_a_point_reckons_with_its_own_batch_and_set_goes_before_all() -> None:
    rules = """
        [[rule]]
        [rule.search]
        batch_size = { choice = [16, 32, 64] }
        gamma = { float = [0.1, 10.0], scale = { factor = 1, batch_size = -1 } }
        [[rule.enqueue]]
        batch_size = 16
        gamma = { factor = 1, batch_size = -1 }
    """
    assert ruled(rules).enqueue[1] == {"batch_size": 16, "gamma": 1 / 16}
    assert ruled(rules).search["gamma"].low == 0.1 / 32
    space = parse_space(BASE + rules).override({"batch_size": 64, "kimg": 7}).on_images(image_facts())
    assert space.fixed == {"kimg": 7, "batch_size": 64}
    assert space.enqueue[1] == {"gamma": 1 / 64}
    assert space.search["gamma"].low == 0.1 / 64


def test_set_goes_before_a_rule_even_where_its_recipe_has_another_value() -> None:
    space = load_space("photos").override({"penalty": "r1r2", "loss": "hinge", "batch_size": 64})
    resolved = space.on_images(image_facts())
    assert {name: resolved.fixed[name] for name in ("penalty", "loss", "batch_size")} == space.overrides
    assert not resolved.enqueue[0].keys() & space.overrides.keys()
    assert not resolved.overrides
    with pytest.raises(SpaceError, match="no parameter is left to search"):
        parse_space(BASE + "[[rule]]").override({"lr_g": 1e-3, "width_g": 8}).on_images(image_facts())


def test_numbers_are_kept_within_the_bounds_of_their_parameter() -> None:
    rules = "[[rule]]\nfixed = { kimg = { factor = 1, size = -9 }, beta1 = { factor = 1e30 } }"
    assert ruled(rules).fixed == {"kimg": 1, "batch_size": 32, "beta1": 0.999}


def test_conditions_on_what_a_rule_fixes_end_with_it() -> None:
    rules = """
        [[rule]]
        [rule.search]
        penalty = { choice = ["none", "r1"] }
        gamma = { float = [0.1, 1.0], when = { penalty = ["r1"] } }
        [[rule]]
        when = { size_from = 64 }
        fixed = { penalty = "none" }
    """
    assert list(ruled(rules, size=32).search)[2:] == ["penalty", "gamma"]
    assert list(ruled(rules, size=64).search) == ["lr_g", "width_g"]


def test_a_space_with_rules_reads_back_and_its_code_is_found() -> None:
    space = parse_space(BASE + "[[rule]]\nsearch = { loss = { choice = ['hinge', 'mine:loss'] } }")
    assert parse_space(space.to_toml()) == space
    assert space_code_names(space) == ["mine:loss"]
    assert space.hash != parse_space(BASE).hash
    assert space_code_names(space.override({"loss": "other:loss"})) == ["other:loss"]


# --- Mistakes ------------------------------------------------------------------------------------

BAD = {
    "when = { devise = 'cpu' }": "when: devise is no condition.*'device'",
    "when = { device = 'tpu' }": "device = tpu is no condition .device is cpu or gpu",
    "when = { size_from = -1 }": "a whole number from 0",
    "when = { size_from = 6.5 }": "a whole number from 0",
    "when = { images_below = true }": "a whole number from 0",
    "when = { labelled = 1 }": "true or false",
    "when = 3": "when is no table",
    "wen = { }": "wen is unknown.*'when'",
    "fixed = { kimgs = 3 }": "kimgs is no hyper-parameter",
    "fixed = { kimg = -3 }": "out of range",
    "fixed = { kimg = { size = 2 } }": "a factor and powers",
    "fixed = { kimg = { factor = 1, sise = 2 } }": "a factor and powers",
    "fixed = { kimg = { factor = inf } }": "a factor and powers",
    "fixed = { kimg = { factor = nan } }": "a factor and powers",
    "fixed = { kimg = { factor = true } }": "a factor and powers",
    "fixed = { kimg = { factor = 1, size = 1e9 } }": "a factor and powers",
    "fixed = { loss = { factor = 1 } }": "loss is no number",
    "fixed = { batch_size = { factor = 1, batch_size = 1 } }": "batch_size follows itself",
    "search = { kimg = { int = [1, 2] } }": "kimg cannot be searched",
    "search = { gamma = { float = [1, 2], scal = { factor = 1 } } }": r"gamma\.scal is no key",
    "search = { gamma = { float = [2, 1], scale = { factor = 1 } } }": "two bounds above 0",
    "search = { gamma = { float = 1, scale = { factor = 1 } } }": "two bounds above 0",
    "search = { gamma = { choice = [1.0], scale = { factor = 1 } } }": "two bounds above 0",
    "search = { gamma = { int = [1, 2], scale = { factor = 1 } } }": "wrong type",
    "search = { gamma = { float = [1, 2], scale = 3 } }": "a factor and powers",
    "search = 3": "search is no table",
    "enqueue = 3": "enqueue is no list",
    "enqueue = [{ recipe = 3 }]": "recipe = 3 is no name",
    "enqueue = [{ recipe = 'r2' }]": "there is no recipe r2",
    "enqueue = [{ lr = 3 }]": "lr is no hyper-parameter",
    "fixed = { gamma = 1 }\nsearch = { gamma = { float = [1, 2] } }": "gamma is both fixed and searched",
}


@pytest.mark.parametrize("rule", BAD)
def test_each_mistake_has_a_message_of_one_line(rule: str) -> None:
    with pytest.raises(SpaceError, match=BAD[rule]) as caught:
        parse_space(f"{BASE}[[rule]]\n{rule}\n", "mine.toml")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("enqueue = [{ lr_g = 0.5 }]", "the rules for 64 px on a cpu: lr_g = 0.5 is outside its range"),
        ("enqueue = [{ recipe = 'dcgan' }]", "lacks what recipe dcgan sets"),
        ("search = { gamma = { float = [1, 2], when = { penalty = ['r1'] } } }", "names no parameter"),
        ("search = { width_g = { int = [1, 2], scale = { factor = 1e9 } } }", "is empty"),
    ],
)
def test_a_contradiction_is_found_where_the_images_are_known_and_by_validate(
    rule: str, expected: str
) -> None:
    space = parse_space(f"{BASE}[[rule]]\n{rule}\n")
    with pytest.raises(SpaceError, match=expected):
        space.on_images(image_facts())
    with pytest.raises(SpaceError, match=re.sub("64 px", "32 px", expected)):
        space_notes(space, [])


def test_a_rule_outside_of_a_list_and_scale_outside_of_a_rule() -> None:
    with pytest.raises(SpaceError, match="is no list of tables"):
        parse_space(BASE + "[rule]\nfixed = { beta1 = 0.0 }")
    with pytest.raises(SpaceError, match=r"put it in a \[\[rule\]\]"):
        parse_space("[search]\ngamma = { float = [1, 2], scale = { factor = 1 } }")


WORDS = (
    *("when", "fixed", "search", "enqueue", "device", "cpu", "size_from", "kimg", "gamma", "batch_size"),
    *("factor", "size", "float", "int", "choice", "scale", "log", "recipe", "r1", "width_g", "loss"),
)
PLAIN = st.one_of(st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=3))
TREES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first tree of a busy machine
@given(st.lists(st.dictionaries(st.sampled_from(WORDS[:4]), TREES, max_size=3), max_size=2))
def test_any_rules_are_a_space_or_one_line(rules: list[object]) -> None:
    tables = {"search": {"lr_g": {"float": [1e-4, 1e-2]}}, "rule": rules}
    with contextlib.suppress(SpaceError):
        space_from_tables(tables).on_images(image_facts())


# --- photos --------------------------------------------------------------------------------------

SIZES = (8, 20, 28, 32, 64, 112, 256, 1024)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_photos_is_a_space_for_all_images(device: str) -> None:
    space = load_space("photos")
    for size, images, classes in itertools.product(SIZES, (70, 2_000, 70_000), (0, 10)):
        resolved = space.on_images(image_facts(size, images=images, classes=classes, device=device))
        assert parse_space(resolved.to_toml()) == resolved
        assert all(resolved.config(point) for point in resolved.enqueue)
        full = resolved.config({})
        assert full.tick_kimg < full.kimg or full.kimg == 1
        assert full.conditional == (classes > 0 and images >= 50 * classes)


def test_validate_shows_what_rules_make_of_images() -> None:
    space = load_space("photos")
    notes = space_notes(space, [])
    expected = outline(space.on_images(image_facts(images=1_000, classes=10)))
    assert f"cpu, 1,000 images of 64 px, 10 classes: {expected}" in notes
    assert ", conditional, augmentation" in expected
    assert len(notes) == 12
