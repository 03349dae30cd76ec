"""Whether the champion can be trusted: the finalists measured again, and what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config import SweepPaths
from pipeline.metrics.measurement import METRIC_DESCRIPTIONS
from pipeline.reporting.history import History
from pipeline.reporting.html import pictures
from pipeline.reporting.html.cells import Cell, measured
from pipeline.reporting.html.numbers import INTERVAL
from pipeline.storage.readable import finite, readable_number
from pipeline.storage.summary_file import FinalistRow, FinalistRunRow, FinalMeasurement

_RUN = {
    "trial": "and its configuration trained again with other seeds",
    "kimg": "of its best tick",
    "search fid": "the lowest of its ticks during the search",
    "fresh fid": "mean of fids measured as in the search, with fresh latents",
    "selection bias": "fresh fid - search fid: above 0, the search's fid was too low",
    "final fid": "of more samples; the mean over a trial's seeds decides",
    "interval": INTERVAL,
    "problems": "why it may not be promoted: memorization or mode collapse",
}
"""The columns of the table of finalists' runs, and what each means."""

_OPINION = "an extractor that took no part in the search measures the finalists' samples as well"


def trust_section(history: History) -> dict[str, object]:
    """What templates/trust.html.j2 shows; `runs` is empty before the finalists are measured."""
    near = SweepPaths(history.root).packed / "card" / "neighbours.png"
    opinion = history.summary.second_opinion if history.summary else None
    return {
        "runs": _runs(history.finalists) if history.finalists else [],
        "measurements": _measurements(history.finalists),
        "neighbours": pictures.data_uri(near, 1000),
        "facts": {"second opinion": Cell(str(opinion), _OPINION)} if opinion else {},
    }


def _measurements(finalists: Sequence[FinalistRow]) -> list[list[Cell]]:
    """Every number that was measured of the finalists; empty if there is none."""
    values = [_numbers(final.measurement) for final in finalists]
    names = [name for name, value in (values[0] if values else {}).items() if finite(value) is not None]
    heads = [Cell(""), *(Cell(f"trial {final.best.trial}") for final in finalists)]
    rows = [
        [
            Cell(name.removeprefix("custom."), METRIC_DESCRIPTIONS.get(name, ""), heading=True),
            *(measured(of.get(name), f"finalists.{i}.measurement.{name}") for i, of in enumerate(values)),
        ]
        for name in names
    ]
    return [heads, *rows] if rows else []


def _numbers(final: FinalMeasurement) -> dict[str, object]:
    """The values of a measurement by their paths in it; the user's own metrics are at `custom.NAME`."""
    own = final.values.get("custom")
    numbers = own.items() if isinstance(own, Mapping) else ()
    return {**final.values, **{f"custom.{name}": value for name, value in numbers}}


def _runs(finalists: Sequence[FinalistRow]) -> list[list[Cell]]:
    """Every run of the finalists: its fid in the search, and measured again."""
    heads = [Cell(name, meaning) for name, meaning in _RUN.items()]
    rows = [
        _run_row(f"finalists.{i}.runs.{j}.", f"{final.best.trial}" + (f", seed {j}" if j else ""), run)
        for i, final in enumerate(finalists)
        for j, run in enumerate(final.runs)
    ]
    return [heads, *rows] if rows else []


def _run_row(path: str, name: str, run: FinalistRunRow) -> list[Cell]:
    known = run.search_fid is not None and run.fresh_fid is not None
    gap = run.fresh_fid - run.search_fid if known and run.fresh_fid and run.search_fid else None
    return [
        Cell(name),
        *(measured(getattr(run, key), path + key) for key in ("kimg", "search_fid", "fresh_fid")),
        Cell(readable_number(gap, "+.3g")),
        measured(run.fid, path + "fid"),
        Cell(f"{readable_number(run.fid_low)} to {readable_number(run.fid_high)}"),
        Cell("; ".join(filter(None, [*run.verdicts, run.problem])) or "none"),
    ]
