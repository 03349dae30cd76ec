"""The sections of the page about the champion: its numbers, its samples, its fid and balance over kimg.

The samples were drawn by the trial and for the model card; nothing is measured or sampled here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import SweepPaths
from pipeline.metrics.evaluation import METRIC_DESCRIPTIONS
from pipeline.records import METRICS, TrialRecord
from pipeline.reporting.history import History, TrialView, finite, short_number
from pipeline.reporting.html import figures, pictures
from pipeline.reporting.html.markup import (
    Fact,
    esc,
    facts,
    hinted,
    measured,
    note,
    number,
    picture,
    plot,
    scroll,
    section,
    source,
)
from pipeline.reporting.leaderboard import COLUMNS
from pipeline.storage.summary_file import FinalistRow, FinalistRunRow, FinalMeasurement
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

_CARD = "champion", "card"


def champion(history: History) -> str:
    """The section with the champion's numbers, sample grid, hyper-parameters and finalists."""
    winner = history.winner
    if winner is None or winner.fid is None:
        return section("champion", "Champion", note("No trial has a fid yet."))
    best, path = history.best or winner, "finalists.0.measurement."
    final = history.finalists[0].measurement if history.finalists else None
    auc, stability, verdict = _run_numbers(history, winner)
    shown = [
        measured("fid", best.fid, "best.fid", _fid_hint(final)),
        _interval(final, path),
        measured("balance", best.balance, "best.balance", COLUMNS["balance"], ".2f"),
        Fact("auc", number(auc, ".2f"), hint=COLUMNS["auc"]),
        measured("kimg", best.kimg, "best.kimg", COLUMNS["kimg"], "g"),
        Fact("stability", number(stability, ".2f"), hint=COLUMNS["stability"]),
        Fact("verdict", verdict, hint=COLUMNS["verdict"]),
        Fact(
            "memorization, collapse",
            "; ".join(final.verdicts or ["no copies, no collapse"]) if final else "",
        ),
    ]
    settings = [Fact(str(name), short_number(value)) for name, value in winner.params.items()]
    return section(
        "champion",
        f"Champion: trial {esc(winner.number)}",
        facts(shown),
        _grid(history, winner),
        f"<h3>Its hyper-parameters</h3>{facts(settings)}",
        _loading(history),
        _finalists(history),
    )


def _run_numbers(history: History, winner: TrialView) -> tuple[object, object, str]:
    """auc, stability and verdict of the champion's run, which may be a rerun with another seed."""
    records = _records(history, winner)
    with_fid = [record for record in records if record.fid is not None]
    if not with_fid or records[-1].fid is None:
        return winner.auc, winner.stability, winner.verdict
    best = min(with_fid, key=lambda record: record.fid or 0.0)
    return best.auc, records[-1].fid / (best.fid or math.nan), records[-1].verdict


def _records(history: History, winner: TrialView) -> Sequence[TrialRecord]:
    folder = history.run_folder(winner)
    same = folder == SweepPaths(history.root).trial(winner.number)
    return winner.records if same else read_records(folder)


def _fid_hint(final: FinalMeasurement | None) -> str:
    return METRICS["fid"][1] + (f"; of {final.n} fresh samples" if final else "; as the search saw it")


def _interval(final: FinalMeasurement | None, path: str) -> Fact:
    if final is None:
        return Fact("fid interval", "")
    text = f"{number(final.fid_low)} to {number(final.fid_high)}"
    return Fact("fid interval", text, path + "fid_low", final.fid_low, _RUN["interval"])


def _grid(history: History, winner: TrialView) -> str:
    """The champion's samples at its best tick, or at the last tick before it that has samples."""
    found = pictures.grid_of(history.run_folder(winner), (history.best or winner).kimg)
    if found is None:
        return ""
    caption = f"Samples of its EMA generator at {found[0]} kimg"
    return picture(pictures.data_uri(found[1], 640), caption, kind="wide")


def _loading(history: History) -> str:
    registered = history.summary.registered if history.summary else None
    if registered is None:
        return note("Not registered (yet); after the search `gansweep register SWEEP_DIR` can do it.")
    uri = registered.model
    code = (
        f"gansweep sample {uri} -n 64 --out grid.png\n\n"
        f'import pipeline\nimages, labels = pipeline.load_generator("{uri}").sample(16, seed=0)'
    )
    return f"<h3>How to load it</h3>{scroll('commands', f'<pre>{esc(code)}</pre>')}"


def _finalists(history: History) -> str:
    """The finalists' runs, and every number that was measured of them, one column for each finalist."""
    finalists = history.finalists
    values = [final.measurement.values for final in finalists]
    names = [str(name) for name, value in (values[0] if values else {}).items() if finite(value) is not None]
    if not names:
        return ""
    heads = "".join(f'<th scope="col">trial {final.best.trial}</th>' for final in finalists)
    lines = "".join(
        f'<tr><th scope="row"{hinted(METRIC_DESCRIPTIONS.get(name, ""))}>{esc(name)}</th>'
        + "".join(
            _cell(f"finalists.{i}.measurement.{name}", value.get(name)) for i, value in enumerate(values)
        )
        + "</tr>"
        for name in names
    )
    table = f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    everything = (
        f"<details><summary>all that was measured of them</summary>{scroll('measurements', table)}</details>"
    )
    return f"<h3>Finalists, measured again with fresh latents</h3>{_runs(finalists)}{everything}"


def _runs(finalists: Sequence[FinalistRow]) -> str:
    """A table of every run of the finalists: its fid in the search, and measured again."""
    heads = "".join(f'<th scope="col"{hinted(meaning)}>{name}</th>' for name, meaning in _RUN.items())
    lines = "".join(
        _run_row(f"finalists.{i}.runs.{j}.", final.best.trial, j, run)
        for i, final in enumerate(finalists)
        for j, run in enumerate(final.runs)
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return scroll("finalists", table) if lines else ""


def _run_row(path: str, trial: object, index: int, run: FinalistRunRow) -> str:
    search_fid, fresh = run.search_fid, run.fresh_fid
    gap = None if search_fid is None or fresh is None else fresh - search_fid
    verdict = "; ".join([*run.verdicts, run.problem]).strip("; ")
    name = f"{trial}" + (f", seed {index}" if index else "")
    low, high = number(run.fid_low), number(run.fid_high)

    def cell(key: str) -> str:
        return _cell(path + key, getattr(run, key))

    return (
        f"<tr><td>{esc(name)}</td>{cell('kimg')}{cell('search_fid')}{cell('fresh_fid')}<td>{number(gap)}</td>"
        f"{cell('fid')}<td>{low} to {high}</td><td>{esc(verdict or 'ok')}</td></tr>"
    )


def looks(history: History) -> str:
    """The section with the pictures of the champion's card: real beside generated, nearest neighbours."""
    card = history.root.joinpath(*_CARD)
    beside = picture(
        pictures.data_uri(card / "real_and_generated.png", 1000),
        "Training images on the left, samples on the right",
        kind="wide",
    )
    near = picture(
        pictures.data_uri(card / "neighbours.png", 1000),
        "Samples over their two nearest training images",
        "Samples (first row) over the training image nearest to each (second row) and the second nearest"
        " (third): a copy would look the same twice.",
        kind="wide",
    )
    absent = note("Drawn when the search is over.")
    return section(
        "looks", "Real beside generated", beside or absent, "<h3>Nearest neighbours</h3>", near or absent
    )


def life(history: History) -> str:
    """The section with the champion's fid, balance and samples over kimg."""
    winner = history.winner
    if winner is None or winner.fid is None:
        return section("life", "Its life", note("No trial has a fid yet."))
    folder, records = history.run_folder(winner), _records(history, winner)
    figure = plot(
        "life", "fid and balance of the champion over kimg", figures.life(history, records), height=460
    )
    text = "Good generators have a balance of 0.2 to 0.8 (shaded): below it one side has won."
    return section("life", "Its life: fid and balance over kimg", figure, note(text), _film(folder))


def _film(folder: Path) -> str:
    strip = pictures.filmstrip(folder)
    if strip is None:
        return ""
    kimg, uri = strip
    caption = f"The same latents from first to last: a row per tick ({', '.join(map(str, kimg))} kimg)"
    return picture(uri, caption, kind="wide")


def _cell(key: str, value: object) -> str:
    return f"<td{source(key, value)}>{number(value)}</td>"
