"""A checked space, and what is made of it: with values fixed, begun from a recipe, on certain images.

Owns: `Space` and its hash. Refuses: reading files.
"""

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
from pipeline.search.space.conditions import in_order, reachable_names
from pipeline.search.space.distribution import (
    Distribution,
    check_drawable,
    check_fixed,
    distribution_to_toml,
    to_toml,
)


@dataclass(frozen=True)
class Space:
    """A checked space. `search` is in an order in which every `when` looks back only."""

    fixed: Mapping[str, Any]
    search: Mapping[str, Distribution]
    enqueue: tuple[Mapping[str, Any], ...] = ()

    @property
    def hash(self) -> str:
        """16 hex digits over everything the space says; comments and order do not count."""
        said = json.dumps(dataclasses.asdict(self), sort_keys=True, default=list)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def active(self, name: str, drawn: Mapping[str, Any]) -> bool:
        """Whether `name` takes part, given what has been drawn before it."""
        known = {**self.fixed, **drawn}
        return all(known.get(other) in values for other, values in self.search[name].when.items())

    def config(self, drawn: Mapping[str, Any], **more: Any) -> TrialConfig:
        """The trial that a draw stands for."""
        return TrialConfig.from_dict({**self.fixed, **drawn, **more})

    def override(self, values: Mapping[str, Any]) -> Space:
        """The same space with some parameters fixed; what was searched or enqueued of them is gone.

        So is what can no longer take part, because its `when` asks for a value that was fixed away.
        """
        fixed = {**self.fixed, **check_fixed(values, "--set")}
        search = reachable_names({n: d for n, d in self.search.items() if n not in values}, fixed)
        if not search:
            raise SpaceError("a space searches at least one parameter", seen="none", fix="leave out a --set")
        points = ({n: v for n, v in p.items() if n in search or n == "recipe"} for p in self.enqueue)
        return Space(fixed=fixed, search=search, enqueue=tuple(points))

    def on_images(self, size: int, labelled: bool) -> Space:
        """The same space with numbers for what its enqueued recipes leave to the images.

        Raises:
            SpaceError: one of them lies outside of its range.
        """
        points = (self._settled(dict(point), size, labelled) for point in self.enqueue)
        return dataclasses.replace(self, enqueue=tuple(points))

    def start(self, recipe: str, size: int, labelled: bool, kept: Collection[str] = ()) -> Space:
        """The same space, begun from a recipe: searched values are enqueued first, the others fixed.

        Ranges grow to hold the recipe's values. kept: fixed parameters that the recipe leaves alone.

        Raises:
            SpaceError: there is no such recipe, or it leaves nothing to search.
        """
        known = {name: self.fixed[name] for name in kept}
        said = recipes.load_recipe(recipe).at(size, labelled, known)
        said = {name: value for name, value in said.items() if name not in kept}
        search = {name: d.widened(name, said) for name, d in self.search.items()}
        fixed = {**self.fixed, **{n: v for n, v in said.items() if n not in search}}
        search = reachable_names(search, fixed)
        if not search:
            raise SpaceError("a space searches at least one parameter", seen="none", fix="widen the space")
        points = ({n: v for n, v in point.items() if n in search} for point in (said, *self.enqueue))
        return Space(fixed, in_order(search, fixed, recipe), tuple(points))

    def _settled(self, point: dict[str, Any], size: int, labelled: bool) -> dict[str, Any]:
        recipe = point.pop("recipe", None)
        if recipe is None:
            return point
        where = f"[[enqueue]] recipe = {recipe} at {size} px"
        for name, value in recipes.load_recipe(recipe).at(size, labelled, {**self.fixed, **point}).items():
            if name in self.search and name not in point:
                point[name] = check_drawable(name, value, self.search[name], where)
        return point

    def to_toml(self, prefix: str = "") -> str:
        """TOML text that `parse` reads back to an equal space; prefix: the parent table with a dot."""
        lines = [f"[{prefix}fixed]", *(f"{n} = {to_toml(v)}" for n, v in self.fixed.items())]
        lines += ["", f"[{prefix}search]"]
        lines += [f"{name} = {distribution_to_toml(d)}" for name, d in self.search.items()]
        for point in self.enqueue:
            lines += ["", f"[[{prefix}enqueue]]", *(f"{n} = {to_toml(v)}" for n, v in point.items())]
        return "\n".join(lines) + "\n"

    def differences(self, other: Space) -> list[str]:
        """The keys in which two spaces differ, as `search.lr_g`."""
        ours, theirs = self._flat(), other._flat()
        return sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))

    def _flat(self) -> dict[str, Any]:
        tables = {"fixed": self.fixed, "search": self.search}
        flat = {f"{table}.{name}": value for table, rows in tables.items() for name, value in rows.items()}
        return {**flat, "enqueue": [dict(point) for point in self.enqueue]}
