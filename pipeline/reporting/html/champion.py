"""The sections of the page about the champion: its numbers, its samples, its fid and balance over kimg.

The samples were drawn by the trial and for the model card; nothing is measured or sampled here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config import SweepPaths
from pipeline.metrics.measurement import METRIC_DESCRIPTIONS
from pipeline.records import METRICS, TrialRecord
from pipeline.reporting.history import History, TrialView
from pipeline.reporting.html import figures, pictures
from pipeline.reporting.html.cells import Cell, figure_json, measured
from pipeline.reporting.leaderboard import COLUMNS
from pipeline.storage.readable import finite, readable_number, short_number
from pipeline.storage.summary_file import FinalistRow, FinalistRunRow, FinalMeasurement, LeaderboardRow
from pipeline.training.checkpoint import read_records

_RUN = {
    "trial": "and its configuration trained again with other seeds",
    "kimg": "of its best tick",
    "search fid": "the best of its ticks, as the search saw it",
    "fresh fid": "mean of fids measured as in the search, with fresh latents",
    "gap": "fresh fid - search fid: above 0, the search's fid was too good (the winner's curse)",
    "final fid": "of more samples; the mean over a trial's seeds decides",
    "interval": "95 % of measurements with this many samples lie in it",
    "verdict": "why it may not be promoted",
}
"""The columns of the table of finalists' runs, and what each means."""

_OPINION = "an extractor that took no part in the search measures the finalists' samples as well"


def champion_section(history: History) -> dict[str, object]:
    """What templates/champion.html.j2 shows of the champion; empty if no trial has a fid."""
    winner = history.winner
    if winner is None or winner.fid is None:
        return {}
    folder = history.run_folder(winner)
    records = read_records(folder)
    registered = history.summary.registered if history.summary else None
    return {
        "trial": winner.number,
        "facts": _facts(history, winner, records),
        "params": {name: Cell(short_number(value)) for name, value in winner.params.items()},
        "grid": pictures.grid(folder, (history.best or winner).kimg),
        "model": registered.model if registered else "",
        "runs": _runs(history.finalists),
        "measurements": _measurements(history.finalists),
        "life": figure_json(figures.life(history, records)),
        "film": pictures.filmstrip(folder),
    }


def looks(history: History) -> tuple[str, str]:
    """The card's pictures: real beside generated, nearest neighbours; empty if there is none."""
    card = SweepPaths(history.root).packed / "card"
    beside, near = card / "real_and_generated.png", card / "neighbours.png"
    return pictures.data_uri(beside, 1000), pictures.data_uri(near, 1000)


def _facts(history: History, winner: TrialView, records: Sequence[TrialRecord]) -> dict[str, Cell]:
    best = history.best or winner
    final = history.finalists[0].measurement if history.finalists else None
    opinion = history.summary.second_opinion if history.summary else None
    run = _row_of_run(winner, records)
    samples = f"of {final.n} fresh samples" if final else "as the search saw it"
    found = ("; ".join(final.verdicts) or "no copies, no collapse") if final else ""
    return {
        "fid": measured(best.fid, "best.fid", f"{METRICS['fid'].meaning}; {samples}"),
        "fid interval": _interval(final),
        "balance": measured(best.balance, "best.balance", COLUMNS["balance"], ".2f"),
        "auc": Cell(readable_number(run.auc, ".2f"), COLUMNS["auc"]),
        "kimg": measured(best.kimg, "best.kimg", COLUMNS["kimg"], "g"),
        "stability": Cell(readable_number(run.stability, ".2f"), COLUMNS["stability"]),
        "verdict": Cell(run.verdict, COLUMNS["verdict"]),
        "memorization, collapse": Cell(found),
        **({"second opinion": Cell(str(opinion), _OPINION)} if opinion else {}),
    }


def _row_of_run(winner: TrialView, records: Sequence[TrialRecord]) -> LeaderboardRow:
    """The row of the champion's run, which may be a rerun with another seed."""
    row = LeaderboardRow.of_records(winner.trial, records, state=winner.state, params={}, cause="")
    return winner if row.stability is None else row


def _interval(final: FinalMeasurement | None) -> Cell:
    if final is None:
        return Cell("")
    text = f"{readable_number(final.fid_low)} to {readable_number(final.fid_high)}"
    return Cell(text, _RUN["interval"], "finalists.0.measurement.fid_low", final.fid_low)


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
    return [heads, *rows]


def _run_row(path: str, name: str, run: FinalistRunRow) -> list[Cell]:
    known = run.search_fid is not None and run.fresh_fid is not None
    gap = run.fresh_fid - run.search_fid if known and run.fresh_fid and run.search_fid else None
    return [
        Cell(name),
        *(measured(getattr(run, key), path + key) for key in ("kimg", "search_fid", "fresh_fid")),
        Cell(readable_number(gap)),
        measured(run.fid, path + "fid"),
        Cell(f"{readable_number(run.fid_low)} to {readable_number(run.fid_high)}"),
        Cell("; ".join(filter(None, [*run.verdicts, run.problem])) or "ok"),
    ]
