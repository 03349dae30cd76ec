"""The sections of the page about the champion: what it is, how it looks, its life.

Owns: what each of them shows. Refuses: measuring, drawing samples (the trial and the card did).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import SweepPaths
from pipeline.metrics.evaluation import MEANINGS
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
from pipeline.training.checkpoint import read_records

_RUN = {
    "trial": "and its configuration trained again with other seeds",
    "kimg": "of its best tick",
    "search fid": "the best of its ticks, as the search saw it",
    "fresh fid": "mean of fids just like it, with fresh latents",
    "luck": "fresh fid - search fid: above 0, the search saw it better than it is (the winner's curse)",
    "final fid": "of more samples; the mean over a trial's seeds decides",
    "interval": "95 % of measurements of this size lie in it",
    "verdict": "why it may not be promoted",
}
_CARD = "champion", "card"


def champion(history: History) -> str:
    won = history.winner
    if won is None or won.fid is None:
        return section("champion", "Champion", note("No trial has a fid yet."))
    best, path = history.summary.get("best") or {}, "finalists.0.measurement."
    final = (history.finals[0].get("measurement") or {}) if history.finals else {}
    auc, stability, verdict = _of_run(history, won)
    shown = [
        measured("fid", best.get("fid", won.fid), "best.fid", _of_samples(final)),
        _interval(final, path),
        measured("balance", best.get("balance", won.balance), "best.balance", COLUMNS["balance"], ".2f"),
        Fact("auc", number(auc, ".2f"), hint=COLUMNS["auc"]),
        measured("kimg", best.get("kimg", won.kimg), "best.kimg", COLUMNS["kimg"], "g"),
        Fact("stability", number(stability, ".2f"), hint=COLUMNS["stability"]),
        Fact("verdict", verdict, hint=COLUMNS["verdict"]),
        Fact("honesty", "; ".join(final.get("verdicts") or ["no copies, no collapse"]) if final else ""),
    ]
    settings = [Fact(str(name), short_number(value)) for name, value in won.params.items()]
    return section(
        "champion",
        f"Champion: trial {esc(won.number)}",
        facts(shown),
        _grid(history, won),
        f"<h3>Its hyper-parameters</h3>{facts(settings)}",
        _loading(history),
        _finalists(history),
    )


def _of_run(history: History, won: TrialView) -> tuple[object, object, str]:
    """auc, stability and verdict of the champion's run: the finals may choose another seed."""
    records = _records(history, won)
    known = [record for record in records if record.fid is not None]
    if not known or records[-1].fid is None:
        return won.auc, won.stability, won.verdict
    best = min(known, key=lambda record: record.fid or 0.0)
    return best.auc, records[-1].fid / (best.fid or math.nan), records[-1].verdict


def _records(history: History, won: TrialView) -> Sequence[TrialRecord]:
    folder = history.run_folder(won)
    same = folder == SweepPaths(history.root).trial(won.number)
    return won.records if same else read_records(folder)


def _of_samples(final: Mapping[str, Any]) -> str:
    n = final.get("n")
    return METRICS["fid"][1] + (f"; of {n} fresh samples" if n else "; as the search saw it")


def _interval(final: Mapping[str, Any], path: str) -> Fact:
    low, high = finite(final.get("fid_low")), finite(final.get("fid_high"))
    text = "" if low is None or high is None else f"{number(low)} to {number(high)}"
    return Fact("fid interval", text, path + "fid_low", low, _RUN["interval"])


def _grid(history: History, won: TrialView) -> str:
    """The champion's samples at its best tick, or the last tick before that has any."""
    best = history.summary.get("best") or {}
    found = pictures.grid_of(history.run_folder(won), best.get("kimg", won.kimg))
    if found is None:
        return ""
    caption = f"Samples of its EMA generator at {found[0]} kimg"
    return picture(pictures.data_uri(found[1], 640), caption, kind="wide")


def _loading(history: History) -> str:
    registered = history.summary.get("registered") or {}
    if not registered:
        return note("Not registered (yet); after the search `gansweep register SWEEP_DIR` can do it.")
    alias = registered.get("alias")
    uri = f"models:/{registered.get('name')}@{alias}" if alias else str(registered.get("uri"))
    code = (
        f"gansweep sample {uri} -n 64 --out grid.png\n\n"
        f'import pipeline\nimages, labels = pipeline.load_generator("{uri}").sample(16, seed=0)'
    )
    return f"<h3>How to load it</h3>{scroll('commands', f'<pre>{esc(code)}</pre>')}"


def _finalists(history: History) -> str:
    """Every number measured again of the best trials, one column each."""
    finals = history.finals
    values = [final.get("measurement") or {} for final in finals]
    names = [str(name) for name, value in (values[0] if values else {}).items() if finite(value) is not None]
    if not names:
        return ""
    heads = "".join(
        f'<th scope="col">trial {esc((f.get("best") or {}).get("trial", "?"))}</th>' for f in finals
    )
    lines = "".join(
        f'<tr><th scope="row"{hinted(MEANINGS.get(name, ""))}>{esc(name)}</th>'
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
    return f"<h3>Finalists, measured again with fresh latents</h3>{_runs(finals)}{everything}"


def _runs(finals: Sequence[Mapping[str, Any]]) -> str:
    """Every training of the finalists: what the search saw, and what was left of it."""
    heads = "".join(f'<th scope="col"{hinted(meaning)}>{name}</th>' for name, meaning in _RUN.items())
    lines = "".join(
        _run(f"finalists.{i}.runs.{j}.", (final.get("best") or {}).get("trial", "?"), j, run)
        for i, final in enumerate(finals)
        for j, run in enumerate(final.get("runs") or [])
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return scroll("finalists", table) if lines else ""


def _run(path: str, trial: object, index: int, run: Mapping[str, Any]) -> str:
    seen, fresh = finite(run.get("search_fid")), finite(run.get("fresh_fid"))
    gap = None if seen is None or fresh is None else fresh - seen
    told = "; ".join([*run.get("verdicts", []), run.get("problem", "")]).strip("; ")
    name = f"{trial}" + (f", seed {index}" if index else "")
    low, high = number(run.get("fid_low")), number(run.get("fid_high"))

    def cell(key: str) -> str:
        return _cell(path + key, run.get(key))

    return (
        f"<tr><td>{esc(name)}</td>{cell('kimg')}{cell('search_fid')}{cell('fresh_fid')}<td>{number(gap)}</td>"
        f"{cell('fid')}<td>{low} to {high}</td><td>{esc(told or 'ok')}</td></tr>"
    )


def looks(history: History) -> str:
    """Real beside generated, and the nearest neighbours: the pictures of the champion's card."""
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
    won = history.winner
    if won is None or won.fid is None:
        return section("life", "Its life", note("No trial has a fid yet."))
    folder, records = history.run_folder(won), _records(history, won)
    drawn = plot(
        "life", "fid and balance of the champion over kimg", figures.life(history, records), height=460
    )
    text = "Good generators are seen at a balance of 0.2 to 0.8 (shaded): below it one side has won."
    return section("life", "Its life: fid and balance over kimg", drawn, note(text), _film(folder, won))


def _film(folder: Path, won: TrialView) -> str:
    strip = pictures.filmstrip(folder, won)
    if strip is None:
        return ""
    kimg, uri = strip
    caption = f"The same latents from first to last: a row per tick ({', '.join(map(str, kimg))} kimg)"
    return picture(uri, caption, kind="wide")


def _cell(key: str, value: object) -> str:
    return f"<td{source(key, value)}>{number(value)}</td>"
