"""Our choices, cross-validated: the best on all tables but one, judged on that one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from replays.methods import OURS

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Chosen:
    """method: the best on all tables but `table`. Ratios are geometric means of `compute_ratio` over workers.

    there: of `method` on `table`. least: of the best method there. default: of `gansweep` there.
    """

    table: str
    method: str
    there: float
    default: float
    least: float


def cross_validate(lines: Sequence[Line]) -> Iterator[Chosen]:
    """One for each table. Takes part: what `gansweep` and its changes did, where replayed on all tables.

    lines: of `replay.results`.
    """
    ours = [line for line in lines if line["method"].partition(":")[0] == OURS]
    places = {(line["table"], line["workers"]) for line in ours}
    by_method: dict[str, dict[tuple[str, int], float]] = {}
    for line in ours:
        ratio = line["compute_ratio"] or math.inf  # never reached
        by_method.setdefault(line["method"], {})[line["table"], line["workers"]] = math.log(ratio)
    complete = {method: found for method, found in by_method.items() if found.keys() == places}
    tables = sorted({table for table, _ in places})
    if OURS not in complete or len(complete) < 2 or len(tables) < 2:
        return
    for table in tables:
        elsewhere = {
            m: fmean(v for (t, _), v in found.items() if t != table) for m, found in complete.items()
        }
        here = {m: fmean(v for (t, _), v in found.items() if t == table) for m, found in complete.items()}
        method = min(elsewhere, key=elsewhere.__getitem__)
        ratios = (math.exp(value) for value in (here[method], here[OURS], min(here.values())))
        yield Chosen(table, method, *ratios)


def print_chosen(lines: Sequence[Line]) -> None:
    """What was chosen without each table, and what it is worth there."""
    for found in cross_validate(lines):
        print(
            f"chosen without {found.table}: {found.method}; compute / random there {found.there:.3f},"
            f" gansweep {found.default:.3f}, the best of all choices {found.least:.3f}"
        )
