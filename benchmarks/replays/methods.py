"""Every method that can be replayed, by name.

`gansweep` is what `gansweep run` does by default. `gansweep:KEY=VALUE,...` changes one or more of its
choices (`OPTIONS`, `CONSTANTS`): `gansweep:sampler=tpe,portfolio=no`, `gansweep:grace=0.2`. All other names
are peers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline.user_code import read_code, use_code
from replays.clock import Search
from replays.ours import OurSearch
from replays.peers import PEERS
from replays.points import points_without
from replays.world import Table

OURS = "gansweep"
CORE = (OURS, "random", "random+asha")
OPTIONS = ("sampler", "pruner", "portfolio")
"""Options of `gansweep run`; portfolio is yes or no."""
CONSTANTS = {
    "grace": "pipeline.search.pruners:_GRACE",
    "reduction": "pipeline.search.pruners:REDUCTION",
    "startup": "pipeline.search.surrogate.sampler:STARTUP",
    "random": "pipeline.search.surrogate.sampler:RANDOM",
    "candidates": "pipeline.search.surrogate.sampler:CANDIDATES",
    "worst": "pipeline.search.surrogate.model:_WORST",
    "patience": "pipeline.training.balance:PATIENCE",  # ticks until a trial is hopeless
    "one_sided": "pipeline.search.trial_manager:ONE_SIDED",  # -1: no constraint by balance (tpe has one)
}
"""Constants of the search, by where they are."""
CHOICES = (
    *("portfolio=no", "sampler=tpe", "sampler=random", "sampler=tpe,one_sided=-1", "sampler=gp"),
    *(
        "pruner=none",
        "pruner=hyperband",
        "pruner=median",
        "pruner=replays.pruners:FirstTwo",
        "pruner=replays.pruners:FirstEight",
    ),
    *("grace=0.2", "grace=0.35", "reduction=3", "reduction=4"),
    *("startup=4", "startup=16", "random=0", "random=0.2", "candidates=100", "candidates=1000"),
    *("worst=0.5", "worst=2", "patience=99"),
)
"""One change each of what `gansweep run` does: how its defaults were chosen."""


def known_methods() -> tuple[str, ...]:
    return (OURS, f"{OURS}:portfolio=no", *PEERS)


def choices() -> tuple[str, ...]:
    return (OURS, *(f"{OURS}:{choice}" for choice in CHOICES))


@contextmanager
def open_search(method: str, table: Table, workers: int, seed: int) -> Iterator[Search]:
    """The search `method` for one replay, in which its constants hold.

    Raises:
        SystemExit: there is no such method or choice.
    """
    name, _, text = method.partition(":")
    if name != OURS:
        if name not in PEERS:
            raise SystemExit(f"no method {name!r}: use one of {', '.join(known_methods())}")
        space = replace(table.space, enqueue=tuple(points_without(table)))  # PriorBand's prior
        search = PEERS[name].make(space, seed, workers, table.full_kimg)
        try:
            yield search
        finally:
            getattr(search, "close", lambda: None)()
        return
    chosen = parse_choices(text)
    options = {key: value for key, value in chosen.items() if key in ("sampler", "pruner")}
    use_code(read_code(options.values(), [Path.cwd(), Path(__file__).parents[1]]))
    points = points_without(table) if chosen.get("portfolio", "yes") == "yes" else ()
    with ExitStack() as stack:
        for key in chosen.keys() & CONSTANTS.keys():
            module, constant = CONSTANTS[key].split(":")
            kind = type(getattr(import_module(module), constant))
            stack.enter_context(patch(f"{module}.{constant}", kind(chosen[key])))
        ours = OurSearch(table.space, seed, options, points)
        stack.callback(ours.close)
        yield ours


def parse_choices(text: str) -> Mapping[str, Any]:
    """`KEY=VALUE,...` as a mapping.

    Raises:
        SystemExit: a key is unknown.
    """
    found = dict(part.partition("=")[::2] for part in text.split(",")) if text else {}
    for key, value in found.items():
        if key not in OPTIONS and key not in CONSTANTS:
            raise SystemExit(f"no choice {key!r}: use {', '.join((*OPTIONS, *CONSTANTS))}")
        if not value or (key == "portfolio" and value not in ("yes", "no")):
            raise SystemExit(f"{key}={value} is no choice: write KEY=VALUE, portfolio is yes or no")
    return found


def seeds_of(method: str) -> int:
    """How many seeds a method is replayed with at most."""
    return PEERS[method].seeds if method in PEERS else 100
