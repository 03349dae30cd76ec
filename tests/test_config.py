"""Every field has a meaning and bounds that hold; the names are a public interface and do not change."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.errors import ConfigError

Config = type[TrialConfig] | type[SweepConfig]
Field = dataclasses.Field[Any]

FREE_TEXT = set(
    "name data classes background space extractor extractor_weights second_extractor metrics address price "
    "require".split()
)


def config_fields(wanted: Callable[[Field], object] = lambda field: True) -> list[ParameterSet]:
    configs: tuple[Config, ...] = (TrialConfig, SweepConfig)
    return [
        pytest.param(config, field, id=f"{config.__name__}.{name}")
        for config in configs
        for name, field in config.fields().items()
        if wanted(field)
    ]


FIELDS = config_fields()
NUMBERS = config_fields(lambda field: field.type in ("int", "float"))
WHOLE = config_fields(lambda field: field.type == "int")
CHOICES = config_fields(lambda field: "choices" in field.metadata)


def refused(config: Config, name: str, value: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.from_dict({name: value})
    assert "\n" not in str(caught.value)
    return caught.value


def test_field_names_do_not_change() -> None:
    """A field of `TrialConfig` is a key in the spaces of users and in old sweeps."""
    assert list(TrialConfig.fields()) == [
        "architecture", "width_g", "width_d", "depth_g", "depth_d", "z_dim", "conditional",
        "condition_g", "norm_g", "norm_d", "loss", "penalty", "gamma", "penalty_interval", "n_critic",
        "d_warmup_kimg",
        "batch_size", "lr_g", "lr_d", "beta1", "beta2", "ema_halflife_kimg",
        "schedule", "burn_in_kimg", "lr_final", "beta2_final", "gamma_final", "ema_start",
        "mirror", "augment", "augment_p", "augment_start", "augment_target", "augment_kimg",
        "controller", "auc_low", "auc_high",
        "kimg", "tick_kimg", "precision", "seed",
    ]  # fmt: skip


def test_choices_do_not_disappear() -> None:
    """As for the names; new ones may be added."""
    frozen = {
        "architecture": {"mlp", "dcgan", "resnet", "fastgan", "r3gan"},
        "condition_g": {"embed", "batchnorm"},
        "norm_g": {"none", "batch"},
        "norm_d": {"none", "batch", "layer", "spectral"},
        "loss": {"minimax", "nonsaturating", "hinge", "lsgan", "wasserstein", "relativistic"},
        "penalty": {"none", "r1", "r1r2", "gp", "dragan"},
        "schedule": {"constant", "cosine"},
        "augment": {"none", "diffaugment", "ada"},
        "controller": {"none", "skip", "lr_ratio"},
        "precision": {"float32", "bfloat16"},
    }
    choices = {n: set(f.metadata.get("choices", ())) for n, f in TrialConfig.fields().items()}
    assert {n: c for n, c in choices.items() if c}.keys() == frozen.keys()
    assert all(frozen[n] <= choices[n] for n in frozen)


@pytest.mark.parametrize(("config", "field"), FIELDS)
def test_every_field_has_a_meaning_and_bounds_or_choices(config: Config, field: Field) -> None:
    assert len(field.metadata["meaning"]) >= 8
    assert "\n" not in field.metadata["meaning"]
    if field.type in ("int", "float"):
        assert -math.inf < field.metadata["low"] < field.metadata["high"] < math.inf
        assert "unit" in field.metadata
    elif field.type == "str" and not (config is SweepConfig and field.name in FREE_TEXT):
        assert len(set(field.metadata["choices"])) >= 2
    else:
        assert field.type in ("bool", "str")


@pytest.mark.parametrize(("config", "field"), FIELDS)
def test_every_default_is_allowed_and_of_its_type(config: Config, field: Field) -> None:
    value = getattr(config(), field.name)
    assert value == field.default
    assert type(value).__name__ == field.type


@pytest.mark.parametrize(("config", "field"), NUMBERS)
def test_bounds_are_allowed_and_what_is_beyond_is_refused(config: Config, field: Field) -> None:
    name, low, high = field.name, field.metadata["low"], field.metadata["high"]
    long_trial = {"kimg": 10**6} if name == "tick_kimg" else {}  # a tick is cut to its trial's length
    assert [getattr(config.from_dict({**long_trial, name: bound}), name) for bound in (low, high)] == [
        low,
        high,
    ]
    step = 1 if field.type == "int" else 1e-9
    for beyond in (low - step, high * (1 + 1e-9) if field.type == "float" else high + 1):
        error = refused(config, name, beyond)
        assert str(error).startswith(
            f"{name} = {beyond!r} is out of range ({name} lies in [{low:g}, {high:g}])"
        )
        assert str(field.default) in error.fix


NO_NUMBERS = [math.nan, math.inf, -math.inf, True, False, "1", None, [1]]


@pytest.mark.parametrize("value", [*NO_NUMBERS, *(pytest.param(10**n, id=f"1e{n}") for n in (400, 5000))])
@pytest.mark.parametrize(("config", "field"), NUMBERS)
def test_a_number_is_a_finite_number(config: Config, field: Field, value: object) -> None:
    assert str(refused(config, field.name, value)).startswith(f"{field.name} = ")


@pytest.mark.parametrize(("config", "field"), WHOLE)
def test_a_float_is_a_whole_number_only_if_it_has_no_fraction(config: Config, field: Field) -> None:
    value = float(getattr(config(), field.name))
    built = getattr(config.from_dict({field.name: value}), field.name)
    assert type(built) is int
    assert built == field.default
    assert "is no whole number" in refused(config, field.name, value + 0.5).problem


@pytest.mark.parametrize(("config", "field"), CHOICES)
def test_a_choice_is_one_of_its_list(config: Config, field: Field) -> None:
    for choice in field.metadata["choices"]:
        assert getattr(config.from_dict({field.name: choice}), field.name) == choice
    last = tuple(field.metadata["choices"])[-1]
    typo = f"{last}x"
    error = refused(config, field.name, typo)
    assert str(error).startswith(f"{field.name} = {typo} is unknown ({field.name} is one of ")
    assert f"'{last}'" in error.fix
    assert "= 3 is no text" in str(refused(config, field.name, 3))


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_a_flag_is_true_or_false(value: object) -> None:
    assert f"conditional = {value} is not true or false" in str(refused(TrialConfig, "conditional", value))


@pytest.mark.parametrize(
    ("config", "name", "meant"),
    [
        (TrialConfig, "lrg", "'lr_g'"),
        (TrialConfig, "batchsize", "'batch_size'"),
        (SweepConfig, "trial", "'trials'"),
    ],
)
def test_an_unknown_key_names_the_nearest(config: Config, name: str, meant: str) -> None:
    error = refused(config, name, 1)
    assert f"{name} is no field" in str(error)
    assert meant in error.fix


def test_an_unknown_key_without_a_similar_one_lists_all() -> None:
    assert all(name in refused(TrialConfig, "qqq", 1).fix for name in TrialConfig.fields())


def test_a_config_is_frozen_and_goes_through_json() -> None:
    config = TrialConfig(lr_g=1e-3, conditional=True, loss="hinge", seed=2**63 - 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr_g = 1.0  # type: ignore[misc]
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_tick_is_no_longer_than_the_trial() -> None:
    assert TrialConfig(kimg=3, tick_kimg=5).tick_kimg == 3
    assert TrialConfig(kimg=7, tick_kimg=5).tick_kimg == 5
    assert (
        TrialConfig(kimg=7, tick_kimg=1, batch_size=500, n_critic=5).tick_kimg == 3
    )  # 2.5: G makes a step in each
    assert TrialConfig(kimg=1, tick_kimg=1, batch_size=4096).tick_kimg == 1


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "x" * 100])
def test_names_that_are_good_folder_names(name: str) -> None:
    assert SweepConfig(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "-rf", ".hidden", "x" * 101, "a\n", "caf\xe9", "a\0"]
)
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    assert refused(SweepConfig, "name", name).problem == "--name {seen} cannot be used"


def test_the_paths_of_a_sweep_are_distinct_and_inside_its_folder() -> None:
    paths = SweepPaths(Path("runs/a"))
    names = [name for name, member in vars(SweepPaths).items() if isinstance(member, property)]
    locations = [getattr(paths, name) for name in names] + [paths.trial(3), paths.trial(30)]
    assert len(set(locations)) == len(locations)
    assert all(path.is_relative_to(paths.root) and path != paths.root for path in locations)
    # Scripts of users read these: they are part of the command line's interface.
    assert (paths.config.name, paths.summary.name, paths.report.name) == (
        "sweep.toml", "summary.json", "report.html",
    )  # fmt: skip
    assert paths.trial(3) == Path("runs/a/trials/3")


def test_own_metrics_are_named_by_module_and_function() -> None:
    config = SweepConfig(metrics="mine:brightness, other.file:share_of_grey,")
    assert config.metric_names == ("mine:brightness", "other.file:share_of_grey")
    assert SweepConfig().metric_names == ()
    with pytest.raises(ConfigError, match="the metric brightness is unknown.*module:function"):
        SweepConfig(metrics="mine:edges,brightness")
