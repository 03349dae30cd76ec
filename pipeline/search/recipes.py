"""Published recipes as named points: values of `TrialConfig` fields, some set by the images.

Owns: the TOML format of search_spaces/recipes. Refuses: code in a recipe; what a space does with it.

    loss = "hinge"                             # any field of TrialConfig
    [labelled]                                 # and these, where the images have labels
    conditional = true
    [auto]                                     # factor * size^a * batch_size^b, for numbers
    gamma = { factor = 2e-4, size = 2, batch_size = -1 }
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import TrialConfig, check_names, check_value
from pipeline.errors import ConfigError, SpaceError, nearest
from pipeline.search.builtin_files import builtin_dir

_POWERS = ("size", "batch_size")


@dataclass(frozen=True)
class Recipe:
    """A named point. `values` hold on any images; `labelled` and `auto` wait for them."""

    name: str
    values: Mapping[str, Any]
    labelled: Mapping[str, Any]
    auto: Mapping[str, Mapping[str, float]]

    def at(self, size: int, labelled: bool, known: Mapping[str, Any]) -> dict[str, Any]:
        """All its values on images of `size` pixels; a `known` batch size goes before its own.

        Raises:
            ConfigError: one that follows the images leaves its bounds.
        """
        said = {**self.values, **(self.labelled if labelled else {})}
        batch = {**said, **known}.get("batch_size", TrialConfig.fields()["batch_size"].default)
        for name, rule in self.auto.items():
            said[name] = rule["factor"] * size ** rule.get("size", 0) * batch ** rule.get("batch_size", 0)
        return {name: check_value(TrialConfig.fields()[name], value) for name, value in said.items()}


@functools.cache
def load_recipe(name: str) -> Recipe:
    """Read a shipped recipe.

    Raises:
        SpaceError: there is none of that name.
    """
    recipes = builtin_recipes()
    if name not in recipes:
        raise SpaceError("a recipe is a shipped name", seen=name, fix=nearest(name, recipes))
    return parse_recipe(recipes[name].read_text(encoding="utf-8"), name)


def builtin_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with gansweep."""
    return {path.stem: path for path in sorted((builtin_dir() / "recipes").glob("*.toml"))}


def parse_recipe(text: str, name: str) -> Recipe:
    """Check the TOML text of a recipe.

    Raises:
        SpaceError: what it says breaks a rule.
    """
    try:
        values = tomllib.loads(text)
        labelled, auto = values.pop("labelled", {}), values.pop("auto", {})
        for table in (values, labelled, auto):
            check_names(table, TrialConfig.fields())
        for rule in auto.values():
            _check_rule(rule)
        recipe = Recipe(name, _checked(values), _checked(labelled), auto)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"recipe {name} is valid TOML", seen=str(error), fix="correct that line") from error
    except ConfigError as error:
        raise SpaceError(f"recipe {name}: {error.rule}", seen=error.seen, fix=error.fix) from error
    return recipe


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: check_value(TrialConfig.fields()[name], value) for name, value in values.items()}


def _check_rule(rule: Any) -> None:
    numbers = isinstance(rule, dict) and all(isinstance(v, int | float) for v in rule.values())
    if not numbers or "factor" not in rule or rule.keys() - {"factor", *_POWERS}:
        raise ConfigError(
            "an automatic value is a factor and powers of size and batch_size",
            seen=rule,
            fix="write { factor = 2e-4, size = 2, batch_size = -1 }",
        )
