"""A checked space and the spaces made from it: with values fixed, started from a recipe, for given images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import TrialConfig
from pipeline.errors import SpaceError
from pipeline.search import recipes
from pipeline.search.space.conditions import reachable_names, sort_by_conditions
from pipeline.search.space.distribution import Distribution, Value, check_drawable, check_fixed
from pipeline.search.space.toml import dump_toml


@dataclass(frozen=True)
class Space:
    """A checked space. Every `when` in `search` refers to earlier parameters.

    fixed: values that every trial has. search: what is drawn. enqueue: points that are tried first.
    """

    fixed: Mapping[str, Value]
    search: Mapping[str, Distribution]
    enqueue: tuple[Mapping[str, Value], ...] = ()

    @property
    def hash(self) -> str:
        """16 hex digits over the contents of the space, without comments and order."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def unconditional(self) -> tuple[str, ...]:
        """The searched parameters that every trial has: no `when` of theirs looks at a searched one."""
        return tuple(n for n, d in self.search.items() if not d.when.keys() & self.search.keys())

    def possible_values(self, name: str) -> tuple[Any, ...]:
        """All values that a parameter with choices can have: its choices, or the one that is fixed."""
        if name in self.search:
            return self.search[name].choices
        return (self.fixed[name] if name in self.fixed else getattr(TrialConfig(), name),)

    def active(self, name: str, drawn: Mapping[str, Value]) -> bool:
        """Whether the condition of `name` holds, given the values drawn before it."""
        known = {**self.fixed, **drawn}
        return all(known.get(other) in values for other, values in self.search[name].when.items())

    def config(self, drawn: Mapping[str, object], **more: object) -> TrialConfig:
        """The configuration of a trial with the values `drawn`; `more` replaces any."""
        return TrialConfig.from_dict({**self.fixed, **drawn, **more})

    def override(self, values: Mapping[str, object]) -> Space:
        """The same space with some parameters fixed, and no longer searched or enqueued.

        Parameters whose `when` can no longer hold are removed as well.

        Raises:
            SpaceError: a value is not valid, or nothing is left to search.
        """
        fixed = {**self.fixed, **check_fixed(values, "--set")}
        search = reachable_names({n: d for n, d in self.search.items() if n not in values}, fixed)
        if not search:
            raise SpaceError("no parameter is left to search", fix="leave out a --set")
        points = ({n: v for n, v in p.items() if n in search or n == "recipe"} for p in self.enqueue)
        return Space(fixed=fixed, search=search, enqueue=tuple(points))

    def on_images(self, size: int, labelled: bool) -> Space:
        """The same space with the values of its enqueued recipes that depend on the images.

        size: of an image in pixels.

        Raises:
            SpaceError: such a value is out of its range.
        """
        points = (self._resolved(dict(point), size, labelled) for point in self.enqueue)
        return dataclasses.replace(self, enqueue=tuple(points))

    def start_from(self, recipe: str, size: int, labelled: bool, overrides: Collection[str] = ()) -> Space:
        """The same space, started from a recipe: its searched values are enqueued first, the others fixed.

        Ranges are widened to hold the recipe's values. overrides: fixed parameters that keep their values.

        Raises:
            SpaceError: there is no such recipe, or it leaves nothing to search.
        """
        known = {name: self.fixed[name] for name in overrides}
        values = recipes.load_recipe(recipe).at(size, labelled, known)
        values = {name: value for name, value in values.items() if name not in overrides}
        search = {name: d.widened(name, values) for name, d in self.search.items()}
        fixed = {**self.fixed, **{n: v for n, v in values.items() if n not in search}}
        search = reachable_names(search, fixed)
        if not search:
            raise SpaceError("no parameter is left to search", fix="widen the space")
        points = ({n: v for n, v in point.items() if n in search} for point in (values, *self.enqueue))
        return Space(fixed, sort_by_conditions(search, fixed, recipe), tuple(points))

    def _resolved(self, point: dict[str, Value], size: int, labelled: bool) -> dict[str, Value]:
        recipe = point.pop("recipe", None)
        if recipe is None:
            return point
        where = f"[[enqueue]] recipe = {recipe} at {size} px"
        for name, value in recipes.load_recipe(recipe).at(size, labelled, {**self.fixed, **point}).items():
            if name in self.search and name not in point:
                point[name] = check_drawable(name, value, self.search[name], where)
        return point

    def tables(self) -> dict[str, object]:
        """The tables that `space_from_tables` reads back to an equal space, for `dump_toml`."""
        search = {name: d.table() for name, d in self.search.items()}
        points = {"enqueue": [dict(point) for point in self.enqueue]} if self.enqueue else {}
        return {"fixed": dict(self.fixed), "search": search, **points}

    def to_toml(self) -> str:
        """TOML text that `parse_space` reads back to an equal space."""
        return dump_toml(self.tables())

    def differences(self, other: Space) -> list[str]:
        """The keys in which two spaces differ, such as `search.lr_g`."""
        ours, theirs = self._flat(), other._flat()
        return sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))

    def _flat(self) -> dict[str, object]:
        tables = {"fixed": self.fixed, "search": self.search}
        flat = {f"{table}.{name}": value for table, rows in tables.items() for name, value in rows.items()}
        return {**flat, "enqueue": [dict(point) for point in self.enqueue]}
