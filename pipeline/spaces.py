"""A search space: what a file of search_spaces/ says, checked against `TrialConfig`, and its hash.

Owns: the TOML format. Refuses: Optuna's and Ray's types (`pipeline.search` translates).

    [fixed]                                    # every trial has these
    kimg = 100
    [search]                                   # every trial draws these
    lr_g = { float = [1e-5, 1e-2], log = true }
    width_g = { int = [8, 64], log = true }
    loss = { choice = ["hinge", "nonsaturating"] }
    gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1", "gp"] } }
    [[enqueue]]                                # tried first, in this order; what is left out is drawn
    recipe = "sngan"                           # a published point; the space searches or fixes what it sets
    lr_g = 2e-4                                # goes before the recipe's
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline import recipes
from pipeline.config import TrialConfig, check_value
from pipeline.errors import ConfigError, SpaceError, nearest

_TABLES = ("fixed", "search", "enqueue")
_NOT_SEARCHED = ("kimg", "tick_kimg", "seed")  # budgets compare by kimg; the seed is not a merit


@dataclass(frozen=True)
class Distribution:
    """What one parameter is drawn from: `choices`, or numbers in [low, high], on a log scale or not.

    when: other parameter -> the values with which this one takes part; else it keeps its default.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def contains(self, value: Any) -> bool:
        """Whether the value could have been drawn."""
        return value in self.choices if self.choices else self.low <= value <= self.high

    def widened(self, name: str, point: Mapping[str, Any]) -> Distribution:
        """The same, grown as far as needed to have and to use the point's value for `name`."""
        if name not in point:
            return self
        when = {o: (*v, point[o]) if point.get(o, v[0]) not in v else v for o, v in self.when.items()}
        value = point[name]
        if self.contains(value):
            return dataclasses.replace(self, when=when)
        if self.choices:
            return dataclasses.replace(self, choices=(*self.choices, value), when=when)
        if self.log and value <= 0:
            raise SpaceError(
                f"{name} is searched on a log scale", seen=value, fix=f"pass --set {name}={value}"
            )
        return dataclasses.replace(self, low=min(self.low, value), high=max(self.high, value), when=when)


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
        fixed = {**self.fixed, **_check_fixed(values, "--set")}
        search = _alive({n: d for n, d in self.search.items() if n not in values}, fixed)
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
        said = recipes.load(recipe).at(size, labelled, known)
        said = {name: value for name, value in said.items() if name not in kept}
        search = {name: d.widened(name, said) for name, d in self.search.items()}
        fixed = {**self.fixed, **{n: v for n, v in said.items() if n not in search}}
        search = _alive(search, fixed)
        if not search:
            raise SpaceError("a space searches at least one parameter", seen="none", fix="widen the space")
        points = ({n: v for n, v in point.items() if n in search} for point in (said, *self.enqueue))
        return Space(fixed, _in_order(search, fixed, recipe), tuple(points))

    def _settled(self, point: dict[str, Any], size: int, labelled: bool) -> dict[str, Any]:
        recipe = point.pop("recipe", None)
        if recipe is None:
            return point
        where = f"[[enqueue]] recipe = {recipe} at {size} px"
        for name, value in recipes.load(recipe).at(size, labelled, {**self.fixed, **point}).items():
            if name in self.search and name not in point:
                point[name] = _check_drawable(name, value, self.search[name], where)
        return point

    def to_toml(self, prefix: str = "") -> str:
        """TOML text that `parse` reads back to an equal space; prefix: the parent table with a dot."""
        lines = [f"[{prefix}fixed]", *(f"{n} = {toml(v)}" for n, v in self.fixed.items())]
        lines += ["", f"[{prefix}search]"]
        lines += [f"{name} = {_toml_distribution(d)}" for name, d in self.search.items()]
        for point in self.enqueue:
            lines += ["", f"[[{prefix}enqueue]]", *(f"{n} = {toml(v)}" for n, v in point.items())]
        return "\n".join(lines) + "\n"

    def differences(self, other: Space) -> list[str]:
        """The keys in which two spaces differ, as `search.lr_g`."""
        ours, theirs = self._flat(), other._flat()
        return sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))

    def _flat(self) -> dict[str, Any]:
        tables = {"fixed": self.fixed, "search": self.search}
        flat = {f"{table}.{name}": value for table, rows in tables.items() for name, value in rows.items()}
        return {**flat, "enqueue": [dict(point) for point in self.enqueue]}


def load(name: str) -> Space:
    """Read a space from a file, or a shipped one by its name (`mnist5k`, `dcgan`, ...).

    Raises:
        SpaceError: unreadable, or what it says breaks a rule.
    """
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError("a space is a readable TOML file", seen=str(path), fix=str(error)) from error
    return parse(text, path.name)


def find(name: str) -> Path:
    """The file of a space: a path as given, else a file shipped under that name."""
    if os.path.isfile(name):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    shipped = shipped_spaces()
    if name.removesuffix(".toml") in shipped:
        return shipped[name.removesuffix(".toml")]
    if Path(name).name.removesuffix(".toml") in shipped and Path(name).parent.name == "search_spaces":
        return shipped[Path(name).name.removesuffix(".toml")]
    raise SpaceError(
        "a space is a TOML file or a shipped name", seen=name, fix=nearest(Path(name).stem, shipped)
    )


def shipped_spaces() -> dict[str, Path]:
    """Name -> file of every space that comes with gansweep."""
    installed = Path(str(resources.files("pipeline"))) / "search_spaces"
    beside = Path(__file__).resolve().parent.parent / "search_spaces"
    folder = installed if installed.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def parse(text: str, name: str = "space") -> Space:
    """Check the TOML text of a space.

    Raises:
        SpaceError: with the file's `name`, the rule, the value seen and the fix.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, or a number of 5,000 digits
        raise SpaceError(
            f"{name}: a space is valid TOML", seen=str(error), fix="correct that line"
        ) from error
    return from_tables(tables, name)


def from_tables(tables: Mapping[str, Any], name: str = "space") -> Space:
    """Check a space that has been read already; raises as `parse` does."""
    for table in tables:
        if table not in _TABLES:
            raise SpaceError(
                f"{name}: a space has the tables [fixed], [search] and [[enqueue]]",
                seen=f"[{table}]",
                fix=nearest(table, _TABLES),
            )
    fixed, search = tables.get("fixed", {}), tables.get("search", {})
    points = tables.get("enqueue", [])
    if not isinstance(fixed, dict):
        raise SpaceError(f"{name}: fixed is a table", seen=fixed, fix="write [fixed], then key = value")
    if not isinstance(search, dict) or not search:
        raise SpaceError(
            f"{name}: a space has a [search] table with at least one parameter",
            seen="none" if not search else type(search).__name__,
            fix="add for example: lr_g = { float = [1e-5, 1e-2], log = true }",
        )
    if not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
        raise SpaceError(f"{name}: enqueue is a list of tables", seen=points, fix="write [[enqueue]]")
    fixed = _check_fixed(fixed, f"{name} [fixed]")
    drawn = {key: _distribution(key, value, f"{name} [search]") for key, value in search.items()}
    both = sorted(fixed.keys() & drawn.keys())
    if both:
        raise SpaceError(f"{name}: a parameter is fixed or searched", seen=both[0], fix="keep one of the two")
    ordered = _in_order(drawn, fixed, name)
    points = tuple(_check_point(point, ordered, fixed, f"{name} [[enqueue]]") for point in points)
    return Space(fixed=fixed, search=ordered, enqueue=points)


def toml(value: Any) -> str:
    """One TOML value: text, number, truth or a list of these."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return repr(value)


def _toml_distribution(d: Distribution) -> str:
    parts = [f"choice = {toml(d.choices)}"]
    if not d.choices:
        bounds = [int(d.low), int(d.high)] if d.whole else [float(d.low), float(d.high)]
        parts = [f"{'int' if d.whole else 'float'} = {toml(bounds)}", *(["log = true"] if d.log else [])]
    if d.when:
        parts.append("when = { " + ", ".join(f"{n} = {toml(v)}" for n, v in d.when.items()) + " }")
    return "{ " + ", ".join(parts) + " }"


def _field(name: str, where: str) -> dataclasses.Field[Any]:
    fields = TrialConfig.fields()
    if name not in fields:
        raise SpaceError(f"{where}: every key names a hyper-parameter", seen=name, fix=nearest(name, fields))
    return fields[name]


def _check(name: str, value: Any, where: str) -> Any:
    try:
        return check_value(_field(name, where), value)
    except ConfigError as error:
        raise SpaceError(f"{where}: {error.rule}", seen=error.seen, fix=error.fix) from error


def _check_fixed(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {name: _check(name, value, where) for name, value in values.items()}


def _distribution(name: str, value: Any, where: str) -> Distribution:
    field_ = _field(name, where)
    if name in _NOT_SEARCHED:
        raise SpaceError(f"{where}: {name} is the same for all trials", seen=name, fix="put it in [fixed]")
    form = f"{name} = {{ float|int = [low, high] }} or {{ choice = [...] }}"
    if not isinstance(value, dict) or len(value.keys() & {"float", "int", "choice"}) != 1:
        raise SpaceError(f"{where}: {name} is one distribution", seen=value, fix=f"write {form}")
    for key in value:
        if key not in ("float", "int", "choice", "log", "when"):
            fix = nearest(key, ("float", "int", "choice", "log", "when"))
            raise SpaceError(f"{where}: a distribution has known keys", seen=f"{name}.{key}", fix=fix)
    when = _when(name, value.get("when", {}), where)
    if "choice" in value:
        choices = value["choice"]
        if not isinstance(choices, list) or not choices or "log" in value:
            raise SpaceError(f"{where}: choice is a list of values, without log", seen=value, fix=form)
        return Distribution(choices=tuple(_check(name, c, where) for c in choices), when=when)
    return _range(name, value, field_, when, where)


def _range(
    name: str, value: dict[str, Any], field_: Any, when: dict[str, tuple[Any, ...]], where: str
) -> Distribution:
    kind = "int" if "int" in value else "float"
    bounds, log = value[kind], value.get("log", False)
    if str(field_.type) != kind:
        fix = f"{name} takes {{ {'choice' if str(field_.type) in ('str', 'bool') else field_.type} = [...] }}"
        raise SpaceError(f"{where}: a distribution has its parameter's kind", seen=f"{name}.{kind}", fix=fix)
    if not isinstance(bounds, list) or len(bounds) != 2 or not isinstance(log, bool):
        raise SpaceError(
            f"{where}: {kind} is [low, high] and log is true or false", seen=value, fix=f"correct {name}"
        )
    low, high = (_check(name, bound, where) for bound in bounds)
    if not low < high:
        fix = "swap them" if low > high else "put it in [fixed]"
        raise SpaceError(f"{where}: {name}'s low bound is below its high one", seen=bounds, fix=fix)
    if log and low <= 0:
        raise SpaceError(f"{where}: {name} on a log scale begins above 0", seen=bounds, fix="raise the bound")
    return Distribution(low=low, high=high, whole=kind == "int", log=log, when=when)


def _when(name: str, value: Any, where: str) -> dict[str, tuple[Any, ...]]:
    if not isinstance(value, dict) or not all(isinstance(v, list) and v for v in value.values()):
        raise SpaceError(f"{where}: when is {{ other = [values] }}", seen=value, fix=f"correct {name}.when")
    return {other: tuple(_check(other, v, where) for v in values) for other, values in value.items()}


def _in_order(
    search: dict[str, Distribution], fixed: Mapping[str, Any], name: str
) -> dict[str, Distribution]:
    """Sort so that a `when` looks back only; refuse absent names, impossible values and circles."""
    for parameter, distribution in search.items():
        for other, values in distribution.when.items():
            if other not in search and other not in fixed:
                raise SpaceError(
                    f"{name}: a when names a parameter of this space",
                    seen=f"{parameter}.when.{other}",
                    fix=nearest(other, [*search, *fixed]),
                )
            if not _possible(other, values, search, fixed):
                raise SpaceError(
                    f"{name}: a when names a value that {other} can take",
                    seen=list(values),
                    fix=f"correct {parameter}.when",
                )
    ordered: dict[str, Distribution] = {}
    while len(ordered) < len(search):
        ready = [
            p
            for p, d in search.items()
            if p not in ordered and all(o in ordered or o not in search for o in d.when)
        ]
        if not ready:
            circle = ", ".join(p for p in search if p not in ordered)
            raise SpaceError(f"{name}: whens do not form a circle", seen=circle, fix="remove one of them")
        ordered.update({p: search[p] for p in ready})
    return ordered


def _possible(
    name: str, values: tuple[Any, ...], search: Mapping[str, Distribution], fixed: Mapping[str, Any]
) -> bool:
    """Whether a trial can have one of `values` for `name`."""
    if name in search:
        return any(search[name].contains(value) for value in values)
    return name in fixed and fixed[name] in values


def _alive(search: dict[str, Distribution], fixed: Mapping[str, Any]) -> dict[str, Distribution]:
    """Without what can never take part, and then without what hung on that."""
    alive = {
        name: d
        for name, d in search.items()
        if all(_possible(other, values, search, fixed) for other, values in d.when.items())
    }
    return alive if len(alive) == len(search) else _alive(alive, fixed)


def _check_point(
    point: Mapping[str, Any], search: Mapping[str, Distribution], fixed: Mapping[str, Any], where: str
) -> dict[str, Any]:
    checked = {}
    for name, value in point.items():
        if name == "recipe":
            continue
        _field(name, where)
        if name not in search:
            raise SpaceError(
                f"{where}: a point names searched parameters", seen=name, fix=nearest(name, search)
            )
        checked[name] = _check_drawable(name, _check(name, value, where), search[name], where)
    return _with_recipe(point["recipe"], checked, search, fixed, where) if "recipe" in point else checked


def _check_drawable(name: str, value: Any, distribution: Distribution, where: str) -> Any:
    if not distribution.contains(value):
        raise SpaceError(f"{where}: {name} lies inside its own range", seen=value, fix="widen the range")
    return value


def _with_recipe(
    named: Any,
    point: dict[str, Any],
    search: Mapping[str, Distribution],
    fixed: Mapping[str, Any],
    where: str,
) -> dict[str, Any]:
    """The point with what its recipe says; `recipe` stays in it where images have a say (`on_images`)."""
    if not isinstance(named, str):
        raise SpaceError(f"{where}: a recipe is named", seen=named, fix="write recipe = 'sngan'")
    recipe = recipes.load(named)
    said = {name: value for name, value in recipe.values.items() if name not in point}
    defaults = {name: field_.default for name, field_ in TrialConfig.fields().items()}
    known = {**defaults, **fixed}
    lacking = [f"{n} = {toml(v)}" for n, v in said.items() if n not in search and known[n] != v]
    lacking += [f"{n} (by the images)" for n in recipe.auto if n not in search and n not in point]
    if lacking:
        raise SpaceError(
            f"{where}: the space searches or fixes all that recipe {named} sets",
            seen="no " + ", ".join(lacking),
            fix="add these, or start the whole sweep from it with --recipe",
        )
    searched = {n: _check_drawable(n, v, search[n], where) for n, v in said.items() if n in search}
    waits = [n for n in (*recipe.auto, *recipe.labelled) if n in search and n not in point]
    return {**searched, **point, **({"recipe": named} if waits else {})}
