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

    def make() -> object:
        taken = {argument: value for argument, value in known.items() if takes(found, argument)}
        return found(**taken, **(row.arguments if row else {}))

    row: Any = table.get(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some classes and arguments of Optuna's are experimental
        try:
            found = table.load(name)
            made = make() if row else user_code.run(f"{table.field} = {name} cannot be made", name, make)
        except ImportError as error:  # of a row's: `user_code` raises ConfigErrors
            problem = f"--{table.field} {{seen}} needs a package that is not installed"
            fix = f"pip install {row.package}"
            raise ConfigError(problem, rule=f"it is {row.meaning}", seen=name, fix=fix) from error
    if not isinstance(made, base):
        problem = f"{table.field} = {{seen}} is no {base.__name__}"
        fix = f"inherit from optuna.{table.field}s.{base.__name__}"
        raise ConfigError(problem, rule=f"it must be {table.form}", seen=name, fix=fix)
    return made


def takes(make: Callable[..., object], argument: str) -> bool:
    """Whether a class or function has a parameter of this name."""
    return argument in inspect.signature(make).parameters
