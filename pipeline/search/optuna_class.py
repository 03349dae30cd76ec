"""Optuna's samplers and pruners made from a row of their table, or the user's own from `module:Class`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pipeline import user_code
from pipeline.errors import ConfigError
from pipeline.tables import Table


def make_optuna_class(table: Table[Any], name: str, base: type, known: Mapping[str, object]) -> Any:
    """Make the sampler or pruner `name`, with those of the `known` arguments that it takes.

    base: the class of Optuna's that it must inherit from.

    Raises:
        ConfigError: its package is missing, or the user's own cannot be made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some classes and arguments of Optuna's are experimental
        if name in table:
            return _make_row(table, name, known)
        make = table.load(name)
        problem = f"{table.field} = {name} cannot be made"
        made = user_code.run(problem, name, lambda: make(**_taken(make, known)))
    if not isinstance(made, base):
        raise ConfigError(
            f"{table.field} = {{seen}} is no {base.__name__}",
            rule=f"it must be {table.form}",
            seen=name,
            fix=f"inherit from optuna.{table.field}s.{base.__name__}",
        )
    return made


def takes(make: Callable[..., object], argument: str) -> bool:
    """Whether a class or function has a parameter of this name."""
    return argument in inspect.signature(make).parameters


def _make_row(table: Table[Any], name: str, known: Mapping[str, object]) -> Any:
    row = table[name]
    try:
        make = table.load(name)
        return make(**_taken(make, known), **row.arguments)
    except ImportError as error:
        raise ConfigError(
            f"--{table.field} {{seen}} needs a package that is not installed",
            rule=f"it is {row.meaning}",
            seen=name,
            fix=f"pip install {row.package}",
        ) from error


def _taken(make: Callable[..., object], known: Mapping[str, object]) -> dict[str, object]:
    return {argument: value for argument, value in known.items() if takes(make, argument)}
