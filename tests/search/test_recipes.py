"""Recipes: they hold the published values, a space must have all they set, `--recipe` starts from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import image_facts

from pipeline.config import SweepConfig, TrialConfig
from pipeline.errors import ConfigError, SpaceError, UserError
from pipeline.search import recipes
from pipeline.search.space.builtin import builtin_spaces, load_space
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space
from pipeline.sweep.request import Request
from pipeline.sweep.run import run_sweep
from pipeline.sweep.space_choice import resolve_for_images
from pipeline.training.trainer import Trainer

NAMES = ["dcgan", "fastgan", "r1", "r3gan", "sngan", "wgan-gp"]

PUBLISHED: dict[str, dict[str, Any]] = {
    "dcgan": {"lr_g": 2e-4, "beta1": 0.5, "batch_size": 128, "norm_d": "batch", "penalty": "none"},
    "sngan": {"loss": "hinge", "norm_d": "spectral", "n_critic": 5, "beta1": 0.0, "beta2": 0.9},
    "wgan-gp": {"loss": "wasserstein", "penalty": "gp", "gamma": 10.0, "n_critic": 5, "norm_d": "none"},
    "r1": {"loss": "nonsaturating", "penalty": "r1", "penalty_interval": 16, "beta1": 0.0, "lr_g": 2.5e-3},
    "r3gan": {
        "loss": "relativistic",
        "penalty": "r1r2",
        "architecture": "r3gan",
        "beta1": 0.0,
        "beta2": 0.9,
    },
    "fastgan": {
        "loss": "hinge",
        "architecture": "fastgan",
        "norm_d": "spectral",
        "batch_size": 8,
        "lr_g": 2e-4,
        "beta1": 0.5,
    },
}

WIDE = """
[search]
lr_g = { float = [1e-5, 1e-2], log = true }
lr_d = { float = [1e-5, 1e-2], log = true }
loss = { choice = ["nonsaturating", "hinge"] }
penalty = { choice = ["none", "r1"] }
gamma = { float = [1e-3, 10.0], log = true, when = { penalty = ["r1"] } }
penalty_interval = { choice = [1, 16], when = { penalty = ["r1"] } }
batch_size = { choice = [32, 64] }
ema_halflife_kimg = { float = [1.0, 50.0], log = true }
n_critic = { choice = [1, 5] }
norm_d = { choice = ["none", "spectral"] }
beta1 = { choice = [0.0, 0.5] }
beta2 = { choice = [0.9, 0.99] }
"""


def with_point(*lines: str, space: str = WIDE) -> Space:
    return parse_space(space + "\n[[enqueue]]\n" + "\n".join(lines))


def refused(act: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return caught.value


# Files


def test_the_names_of_the_recipes_do_not_change() -> None:
    assert list(recipes.builtin_recipes()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_holds_what_was_published(name: str) -> None:
    values = recipes.load_recipe(name).at(32, True, {})
    assert {key: values[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert TrialConfig.from_dict(values)


@pytest.mark.parametrize(("size", "batch"), [(28, 32), (256, 16), (1024, 4)])
def test_r1_follows_the_images_as_stylegan2_ada_does(size: int, batch: int) -> None:
    values = recipes.load_recipe("r1").at(size, False, {"batch_size": batch})
    assert values["gamma"] == pytest.approx(0.0002 * size**2 / batch)
    assert values["ema_halflife_kimg"] == pytest.approx(10 * batch / 32)
    assert "batch_size" not in values or values["batch_size"] == 32  # the caller's replaces it


@pytest.mark.parametrize(("size", "gamma"), [(32, 0.05), (64, 0.7211), (256, 150.0)])
def test_gamma_of_r3gan_follows_the_size_through_the_published_values(size: int, gamma: float) -> None:
    assert recipes.load_recipe("r3gan").at(size, False, {})["gamma"] == pytest.approx(gamma, rel=1e-3)


def test_the_average_of_fastgan_decays_by_a_thousandth_each_step() -> None:
    halflife = recipes.load_recipe("fastgan").at(64, False, {"batch_size": 16})["ema_halflife_kimg"]
    assert 0.5 ** (16 / (1000 * halflife)) == pytest.approx(0.999, rel=1e-6)


def test_labels_decide_whether_a_recipe_is_conditional() -> None:
    sngan = recipes.load_recipe("sngan")
    assert sngan.at(32, True, {})["conditional"] is True
    assert sngan.at(32, True, {})["condition_g"] == "batchnorm"
    assert not {"conditional", "condition_g"} & sngan.at(32, False, {}).keys()


def test_r3gan_has_cosine_schedules() -> None:
    values = recipes.load_recipe("r3gan").at(32, False, {})
    assert values["schedule"] == "cosine"
    assert values["lr_g"] * values["lr_final"] == pytest.approx(5e-5)
    assert values["gamma"] * values["gamma_final"] == pytest.approx(0.005)
    assert (values["beta2"], values["beta2_final"]) == (0.9, 0.99)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("loss = ", ["recipe mine is not valid TOML"]),
        ("los = 'hinge'", ["recipe mine: los is no field", "'loss'"]),
        ("loss = 'hing'", ["recipe mine: loss = hing is unknown", "'hinge'"]),
        ("lr_g = 3.0", ["lr_g = 3.0 is out of range"]),
        ("[labelled]\nconditionl = true", ["conditionl is no field", "'conditional'"]),
        ("[auto]\ngamma = 1.0", ["[auto] cannot have 1.0", "a factor and powers"]),
        ("[auto]\ngamma = { size = 2 }", ["a factor and powers"]),
        ("[auto]\ngamma = { factor = 1.0, sise = 2 }", ["a factor and powers", "sise"]),
        ("[auto]\ngama = { factor = 1.0 }", ["gama is no field", "'gamma'"]),
    ],
)
def test_a_wrong_recipe_has_a_message_of_one_line(text: str, parts: list[str]) -> None:
    line = str(refused(lambda: recipes.parse_recipe(text, "mine")))
    assert all(part in line for part in parts), line


def test_an_automatic_value_out_of_its_bounds_is_refused() -> None:
    mine = recipes.parse_recipe("[auto]\ngamma = { factor = 1.0, size = 9 }", "mine")
    with pytest.raises(ConfigError, match="gamma = .* is out of range"):
        mine.at(64, False, {})


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains(make_trainer: Callable[..., Trainer], name: str) -> None:
    values = recipes.load_recipe(name).at(8, True, {})
    trainer = make_trainer(**values, kimg=1)
    before = [p.detach().clone() for p in trainer.G.parameters()]
    trainer.advance(1)
    assert all(math.isfinite(mean) for mean in trainer.metrics.read().values())
    assert any((p != b).any() for p, b in zip(trainer.G.parameters(), before, strict=True))


# In a space


def test_an_enqueued_recipe_is_its_searched_values() -> None:
    (point,) = with_point('recipe = "sngan"', "lr_g = 1e-3").enqueue
    assert point == {
        "lr_g": 1e-3,  # the point's own value replaces the recipe's
        "lr_d": 2e-4, "loss": "hinge", "penalty": "none", "batch_size": 64, "n_critic": 5,
        "norm_d": "spectral", "beta1": 0.0, "beta2": 0.9,
    }  # fmt: skip


def test_values_that_depend_on_the_images_are_filled_in_when_they_are_known() -> None:
    space = with_point('recipe = "r1"')
    assert parse_space(space.to_toml()) == space
    (point,) = space.on_images(image_facts(64)).enqueue
    assert point["gamma"] == pytest.approx(0.0002 * 64**2 / 32)
    assert point["ema_halflife_kimg"] == 10.0
    assert "recipe" not in point
    assert space.config(point).penalty_interval == 16


def test_the_batch_size_of_the_point_counts() -> None:
    (point,) = with_point('recipe = "r1"', "batch_size = 64").on_images(image_facts(64)).enqueue
    assert point["gamma"] == pytest.approx(0.0002 * 64**2 / 64)
    fixed = WIDE.replace("batch_size = { choice = [32, 64] }", "")
    error = refused(lambda: with_point('recipe = "r1"', space=f"[fixed]\nbatch_size = 64\n{fixed}"))
    assert "the space lacks what recipe r1 sets: batch_size = 32" in str(error)


def test_an_automatic_value_outside_of_its_range() -> None:
    error = refused(lambda: with_point('recipe = "r1"').on_images(image_facts(8)))
    assert "recipe = r1 at 8 px: gamma = 0.0004 is outside its range" in str(error)


def test_a_fixed_or_default_value_equal_to_the_recipes_is_enough() -> None:
    """norm_g = batch is the default, n_critic is fixed to the recipe's."""
    space = WIDE.replace("n_critic = { choice = [1, 5] }", "")
    assert with_point('recipe = "sngan"', space="[fixed]\nn_critic = 5\n" + space).enqueue[0]["lr_g"] == 2e-4


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (['recipe = "r3gan"'], ['architecture = "r3gan"', 'schedule = "cosine"', "--recipe"]),
        (['recipe = "wgan-gp"'], ["loss = wasserstein is outside its range"]),
        (['recipe = "sngn"'], ["there is no recipe sngn", "'sngan'"]),
        (["recipe = 3"], ["recipe = 3 is no name"]),
        (['recipe = "sngan"', "width_g = 16"], ["width_g is not searched"]),
    ],
)
def test_a_space_that_lacks_what_a_recipe_sets_is_refused(lines: list[str], parts: list[str]) -> None:
    line = str(refused(lambda: with_point(*lines)))
    assert all(part in line for part in parts), line


def test_a_parameter_fixed_by_set_is_not_taken_from_the_recipe() -> None:
    space = with_point('recipe = "r1"').override({"gamma": 3.0})
    (point,) = space.on_images(image_facts(64)).enqueue
    assert "gamma" not in point
    assert point["ema_halflife_kimg"] == 10.0
    assert space.config(point).gamma == 3.0


# --recipe


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("space", sorted(builtin_spaces()))
def test_every_space_starts_from_every_recipe(space: str, name: str) -> None:
    started = load_space(space).start_from(name, 28, True)
    values = recipes.load_recipe(name).at(28, True, {})
    config = started.config(started.enqueue[0]).to_dict()
    assert {key: config[key] for key in values} == values
    drawable = [n for n in started.enqueue[0] if not started.search[n].contains(started.enqueue[0][n])]
    assert not drawable
    assert all(started.active(n, started.enqueue[0]) for n in values if n in started.search)
    assert parse_space(started.to_toml()) == started


def test_searched_values_are_enqueued_before_others_and_the_rest_is_fixed() -> None:
    started = with_point("lr_g = 1e-3").start_from("wgan-gp", 28, False)
    assert started.enqueue[1] == {"lr_g": 1e-3}
    assert started.enqueue[0]["loss"] == "wasserstein"
    assert started.search["loss"].choices == ("nonsaturating", "hinge", "wasserstein")
    assert started.search["gamma"].when["penalty"] == ("r1", "gp")
    assert started.fixed["norm_g"] == "batch"


def test_a_range_is_widened_to_the_value_and_no_further() -> None:
    space = parse_space("[search]\nlr_g = { float = [1e-3, 1e-2], log = true }\nn_critic = { int = [6, 9] }")
    started = space.start_from("sngan", 28, False)
    assert (started.search["lr_g"].low, started.search["lr_g"].high) == (2e-4, 1e-2)
    assert (started.search["n_critic"].low, started.search["n_critic"].high) == (5, 9)


def test_parameters_fixed_by_set_are_kept_and_used_by_automatic_values() -> None:
    space = parse_space(WIDE).override({"batch_size": 64, "loss": "hinge"})
    started = space.start_from("r1", 64, False, overrides={"batch_size", "loss"})
    assert (started.fixed["batch_size"], started.fixed["loss"]) == (64, "hinge")
    assert started.enqueue[0]["gamma"] == pytest.approx(0.0002 * 64**2 / 64)


def test_zero_on_a_log_scale_is_refused() -> None:
    space = parse_space("[search]\nbeta1 = { float = [0.1, 0.9], log = true }")
    error = refused(lambda: space.start_from("r1", 28, False))
    assert isinstance(error, SpaceError)
    assert "--set beta1=0.0" in error.fix


@pytest.mark.parametrize("name", ["r1", "wgan-gp"])
def test_a_run_resolves_its_recipe(tmp_path: Path, name: str) -> None:
    measured = {"extractor": "pixels", "second_extractor": "none", "fid_samples": 50}
    config = SweepConfig.from_dict({"name": "x", "data": "digits", "space": "smoke", **measured})
    request = Request(
        space=load_space("smoke"), config=config, out=tmp_path, register=None, recipe=name, dry_run=True,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip
    outcome = run_sweep(request)
    assert outcome.state == "planned"
    resolved = resolve_for_images(request, image_facts(8, channels=1, classes=10)).space
    assert resolved.hash in dict(outcome.plan)["space"]
    assert resolved.config(resolved.enqueue[0]).penalty == recipes.load_recipe(name).values["penalty"]
