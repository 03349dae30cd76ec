"""A checked space and the spaces made from it: with values fixed, started from a recipe, for given images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import TrialConfig
from pipeline.errors import SpaceError
from pipeline.search import recipes
from pipeline.search.space.conditions import check_names_of_whens, reachable_names, sort_by_conditions
from pipeline.search.space.distribution import Distribution, Value, check_drawable, check_fixed
from pipeline.search.space.points import check_point
from pipeline.search.space.portfolio import load_portfolio, point_in_space
from pipeline.search.space.rules import ImageFacts, Rule, apply_rules
from pipeline.search.space.toml import dump_toml


@dataclass(frozen=True)
class Space:
    """A checked space. Every `when` in `search` refers to earlier parameters.

    fixed: values that every trial has. search: what is drawn. enqueue: points that are tried first. rules:
    what depends on the images. overrides: values that go before those of the rules. portfolio: whether the
    points of `search.space.portfolio` follow those of `enqueue`. All three are empty once the images are
    known (`on_images`).
    """

    fixed: Mapping[str, Value]
    search: Mapping[str, Distribution]
    enqueue: tuple[Mapping[str, Value], ...] = ()
    rules: tuple[Rule, ...] = ()
    overrides: Mapping[str, Value] = field(default_factory=dict)
    portfolio: bool = False

    @property
    def hash(self) -> str:
        """16 hex digits over the contents of the space, without comments and order."""
        known = dataclasses.asdict(self)
        parts = {n: part for n, part in known.items() if part or n not in ("rules", "overrides", "portfolio")}
        text = json.dumps(parts, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def unconditional(self) -> tuple[str, ...]:
        """The searched parameters that every trial has: no `when` of theirs looks at a searched one."""
        return tuple(n for n, d in self.search.items() if not d.when.keys() & self.search.keys())

    def possible_values(self, name: str) -> tuple[Any, ...]:
        """All values that a parameter with choices can have, on any images."""
        if name in self.overrides:
            return (self.overrides[name],)
        if name in self.search:
            values = self.search[name].choices
        else:
            values = (self.fixed.get(name, getattr(TrialConfig(), name)),)
        by_rules = (value for rule in self.rules for value in rule.possible_values(name))
        return tuple(dict.fromkeys((*values, *by_rules)))

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
        checked = check_fixed(values, "--set")
        if self.rules:
            return dataclasses.replace(self, overrides={**self.overrides, **checked})
        fixed = {**self.fixed, **checked}
        search = reachable_names({n: d for n, d in self.search.items() if n not in values}, fixed)
        if not search:
            raise SpaceError("no parameter is left to search", fix="leave out a --set")
        points = ({n: v for n, v in p.items() if n in search or n == "recipe"} for p in self.enqueue)
        return Space(fixed=fixed, search=search, enqueue=tuple(points), portfolio=self.portfolio)

    def on_images(self, facts: ImageFacts, recipe: str = "", overrides: Collection[str] = ()) -> Space:
        """The same space as its rules make it, with the values of its recipes and the portfolio's points.

        recipe, overrides: as `start_from` takes them.

        Raises:
            SpaceError: such a value is out of its range, or the rules contradict each other.
        """
        space = self._by_rules(facts).override(self.overrides) if self.rules else self
        points = [space._resolved(dict(point), facts.size, facts.labelled) for point in space.enqueue]
        space = dataclasses.replace(space, enqueue=tuple(points))
        if recipe:
            space = space.start_from(recipe, facts.size, facts.labelled, overrides)
        return space._with_portfolio(facts.size) if self.portfolio else space

    def _with_portfolio(self, size: int) -> Space:
        more = (point_in_space(point, self.search, self.fixed, size) for point in load_portfolio())
        points = (*self.enqueue, *(point for point in more if point))
        return dataclasses.replace(self, enqueue=points, portfolio=False)

    def _by_rules(self, facts: ImageFacts) -> Space:
        where = f"the rules for {facts.size} px on a {facts.device}"
        applied = apply_rules(self.rules, facts, self.fixed, self.search, self.overrides, where)
        check_names_of_whens(applied.search, applied.fixed, where)
        search = reachable_names(applied.search, applied.fixed)
        search = sort_by_conditions(search, applied.fixed, where)
        points = []
        for point in (*self.enqueue, *applied.enqueue):
            searched = {name: v for name, v in point.items() if name in search or name == "recipe"}
            points.append(check_point(searched, search, applied.fixed, where))
        return Space(fixed=applied.fixed, search=search, enqueue=tuple(points))

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
        return Space(
            fixed, sort_by_conditions(search, fixed, recipe), tuple(points), portfolio=self.portfolio
        )

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
        rules = {"rule": [rule.table() for rule in self.rules]} if self.rules else {}
        first = {"portfolio": True} if self.portfolio else {}
        return {**first, "fixed": dict(self.fixed), "search": search, **points, **rules}

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
        return {**flat, "enqueue": [dict(point) for point in self.enqueue], "portfolio": self.portfolio}
