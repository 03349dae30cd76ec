"""The top of the page and the section on what won: verdict, pictures, three numbers, walks, training.

The samples were drawn by the trial and for the model card; nothing is measured or sampled here.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import SweepPaths
from pipeline.records import TrialRecord
from pipeline.reporting.explain.narrative import shared_values, what_won
from pipeline.reporting.explain.verdict import judge
from pipeline.reporting.history import History, TrialView
from pipeline.reporting.html import commands, figures, pictures
from pipeline.reporting.html.cells import Cell, figure_json, measured
from pipeline.reporting.html.numbers import three_numbers
from pipeline.reporting.leaderboard import COLUMNS
from pipeline.storage.readable import readable_number, short_number
from pipeline.storage.summary_file import LeaderboardRow
from pipeline.tracking.registry.latent_walk import WALKS
from pipeline.training.checkpoint import read_records

_WALKS = {
    "walk_latents": "From one random latent to the next{fixed}. Smooth changes speak against memorization.",
    "walk_classes": "From one class to the next: every image keeps its latent.",
}
"""The sprites of the card, and what they show."""


def top_section(history: History) -> dict[str, object]:
    """What templates/top.html.j2 shows: the verdict, and the champion if there is one."""
    winner = history.winner
    real, generated, count = pictures.real_and_generated(SweepPaths(history.root).packed / "card")
    grid = None
    if not generated and winner is not None and winner.fid is not None:
        grid = pictures.grid(history.run_folder(winner), (history.best or winner).kimg)
    return {
        "verdict": judge(history),
        "trial": winner.number if winner is not None and winner.fid is not None else None,
        "real": real,
        "generated": generated,
        "count": count,
        "grid": grid,
        "numbers": three_numbers(history),
        "sample": commands.sample(history),
        "load": commands.load_arguments(history),
    }


def walks(history: History) -> list[dict[str, object]]:
    """The walks of the card, each with its frames and what it shows; none for a sweep without them."""
    card = SweepPaths(history.root).packed / "card"
    classes = (card / "walk_classes.webp").is_file()
    found = []
    for name, text in _WALKS.items():
        uri, frames = pictures.sprite(card / f"{name}.webp")
        if uri:
            text = text.format(fixed=", the class being fixed" if classes else "")
            found.append({"name": name, "uri": uri, "frames": frames, "walks": WALKS, "text": text})
    return found


def won_section(history: History) -> dict[str, object]:
    """What templates/won.html.j2 shows of the champion's training; empty if no trial has a fid."""
    winner = history.winner
    if winner is None or winner.fid is None:
        return {}
    folder = history.run_folder(winner)
    records = read_records(folder)
    return {
        "sentences": [*what_won(history), *shared_values(history)],
        "facts": _facts(history, winner, records),
        "params": {name: Cell(short_number(value)) for name, value in winner.params.items()},
        "life": figure_json(figures.life(history, records)),
        "film": pictures.filmstrip(folder),
    }


def _facts(history: History, winner: TrialView, records: Sequence[TrialRecord]) -> dict[str, Cell]:
    best, run = history.best or winner, _row_of_run(winner, records)
    return {
        "kimg": measured(best.kimg, "best.kimg", COLUMNS["kimg"], "g"),
        "auc": Cell(readable_number(run.auc, ".2f"), COLUMNS["auc"]),
        "stability": Cell(readable_number(run.stability, ".2f"), COLUMNS["stability"]),
        "verdict": Cell(run.verdict, COLUMNS["verdict"]),
    }


def _row_of_run(winner: TrialView, records: Sequence[TrialRecord]) -> LeaderboardRow:
    """The row of the champion's run, which may be a rerun with another seed."""
    row = LeaderboardRow.of_records(winner.trial, records, state=winner.state, params={}, cause="")
    return winner if row.stability is None else row
