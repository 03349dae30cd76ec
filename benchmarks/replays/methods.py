"""Every method that can be replayed, by name.

`gansweep` is what `gansweep run` does by default; `gansweep:SAMPLER+PRUNER` is another of its samplers and
pruners, with the portfolio if `+portfolio` follows. All other names are peers.
"""

from __future__ import annotations

from typing import Any

from pipeline.config import SweepConfig
from replays.clock import Search
from replays.ours import OurSearch
from replays.peers import PEERS
from replays.points import points_without
from replays.world import Table

OURS = "gansweep"
CORE = (OURS, "random", "random+asha")


def known_methods() -> tuple[str, ...]:
    return (OURS, f"{OURS}:tpe+asha", f"{OURS}:random+asha", *PEERS)


def make_search(method: str, table: Table, workers: int, seed: int) -> Search:
    """The search `method` for one replay."""
    name, _, parts = method.partition(":")
    if name != OURS:
        return PEERS[name].make(table.space, seed, workers, table.full_kimg)
    sampler, pruner, *more = (parts or default_parts()).split("+")
    options: dict[str, Any] = {"sampler": sampler, "pruner": pruner}
    points = points_without(table) if "portfolio" in more else ()
    return OurSearch(table.space, seed, options, points)


def default_parts() -> str:
    config = SweepConfig()
    return f"{config.sampler}+{config.pruner}+portfolio"


def seeds_of(method: str) -> int:
    """How many seeds a method is replayed with at most."""
    return PEERS[method].seeds if method in PEERS else 100
