"""Published recipes as named points: values of `TrialConfig` fields, some of which depend on the images.

The format of the TOML files in search_spaces/recipes; a recipe has no code:

    loss = "hinge"                             # any field of TrialConfig
    [labelled]                                 # set as well if the images have labels
    conditional = true
    [auto]                                     # factor * size^a * batch_size^b, for numbers
    gamma = { factor = 2e-4, size = 2, batch_size = -1 }
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pipeline.config import TrialConfig, check_names, check_value
from pipeline.errors import ConfigError, SpaceError, nearest
from pipeline.search.space.distribution import Value, in_space


@dataclass(frozen=True)
class Recipe:
    """A named point. `values` hold for any images; `labelled` and `auto` depend on the images."""

    name: str
    values: Mapping[str, Value]
    labelled: Mapping[str, Value]
    auto: Mapping[str, Mapping[str, float]]

    def at(self, size: int, labelled: bool, known: Mapping[str, Value]) -> dict[str, Value]:
        """All its values for images of `size` pixels.

        known: values from elsewhere; its batch size goes before the recipe's in `auto`.

        Raises:
            ConfigError: a value that depends on the images is out of its bounds.
        """
        values: dict[str, Value] = {**self.values, **(self.labelled if labelled else {})}
        batch = float({"batch_size": TrialConfig().batch_size, **values, **known}["batch_size"])
        for name, rule in self.auto.items():
            values[name] = scaled_number(rule, size, batch)
        return _checked(values)


@functools.cache
def load_recipe(name: str) -> Recipe:
    """Read a recipe that comes with gansweep.

    Raises:
        SpaceError: there is none of that name.
    """
    recipes = builtin_recipes()
    if name not in recipes:
        raise SpaceError("there is no recipe {seen}", seen=name, fix=nearest(name, recipes))
    return parse_recipe(recipes[name].read_text(encoding="utf-8"), name)


def builtin_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with gansweep."""
    return builtin_files("recipes/*.toml")


def builtin_files(pattern: str) -> dict[str, Path]:
    """Name -> file in `search_spaces`: inside the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("pipeline")))
    installed = package / "search_spaces"
    folder = installed if installed.is_dir() else package.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob(pattern))}


def parse_recipe(text: str, name: str) -> Recipe:
    """Check the TOML text of a recipe.

    Raises:
        SpaceError: it is not TOML, or a key or a value is wrong.
    """
    try:
        values = tomllib.loads(text)
        labelled, auto = values.pop("labelled", {}), values.pop("auto", {})
        for table in (values, labelled, auto):
            check_names(table, TrialConfig.fields())
        for rule in auto.values():
            check_scale(rule, "[auto]")
        return Recipe(name, _checked(values), _checked(labelled), auto)
    except tomllib.TOMLDecodeError as error:
        fix = "correct that line"
        raise SpaceError(f"recipe {name} is not valid TOML", seen=str(error), fix=fix) from error
    except ConfigError as error:
        raise in_space(error, f"recipe {name}") from error


def _checked(values: Mapping[str, object]) -> dict[str, Value]:
    return {name: check_value(TrialConfig.fields()[name], value) for name, value in values.items()}


def scaled_number(scale: Mapping[str, float], size: int, batch_size: float) -> float:
    """`factor * size^a * batch_size^b` of a table { factor, size, batch_size }."""
    number = scale["factor"] * size ** scale.get("size", 0) * batch_size ** scale.get("batch_size", 0)
    return float(number)


def check_scale(table: object, where: str) -> None:
    """ConfigError where a table is none for `scaled_number`. where: the place in a file, for errors."""
    scale = table if isinstance(table, dict) else {}
    limits = {"factor": 1e30, "size": 16, "batch_size": 16}  # no product of these overflows
    numbers = all(type(v) in (int, float) and abs(v) <= limits.get(name, 0) for name, v in scale.items())
    if not numbers or "factor" not in scale:
        valid = "a scaled number is a factor and powers of size and batch_size"
        fix = "write { factor = 2e-4, size = 2, batch_size = -1 }"
        raise ConfigError(f"{where} cannot have {{seen}}", rule=valid, seen=table, fix=fix)
