"""The three numbers at the top of the page: each with its meaning and whether it is good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.metrics.measurement import METRIC_DESCRIPTIONS
from pipeline.records import METRICS
from pipeline.reporting.history import History, TrialView
from pipeline.reporting.html.cells import Cell, measured
from pipeline.reporting.leaderboard import COLUMNS
from pipeline.storage.readable import finite, readable_number, short_number
from pipeline.storage.summary_file import FinalMeasurement

INTERVAL = "95 % of measurements with this many samples lie in it"

_PATH = "finalists.0.measurement."


@dataclass(frozen=True)
class Number:
    """sentence: what it means, and whether it is good. level: good, caution, or empty where neither is."""

    name: str
    value: Cell
    sentence: str
    level: str = ""
    aside: Cell = Cell("")


def three_numbers(history: History) -> list[Number]:
    """fid, balance, and how much of the variety of the training images is there; those that are known."""
    winner = history.winner
    if winner is None or winner.fid is None:
        return []
    final = history.finalists[0].measurement if history.finalists else None
    found = [_fid(history, winner, final), *_balance(history, winner), *_variety(history, winner, final)]
    return found[:3]


def _fid(history: History, winner: TrialView, final: FinalMeasurement | None) -> Number:
    best, meaning = history.best or winner, "Distance to the training images: lower is better."
    value = measured(best.fid, "best.fid", METRICS["fid"].meaning)
    if final is None:
        return Number("fid", value, f"{meaning} As measured during the search.")
    text = f"{readable_number(final.fid_low)} to {readable_number(final.fid_high)}"
    aside = Cell(text, f"{INTERVAL}: {final.n}", _PATH + "fid_low", finite(final.fid_low))
    second = next(iter(history.finalists[1:]), None)
    if second is None:
        return Number("fid", value, meaning, aside=aside)
    after = f"trial {second.best.trial} ({readable_number(second.measurement.fid)})"
    if second.measurement.fid_low <= final.fid_high:
        return Number("fid", value, f"{meaning} A tie with {after} within the uncertainty.", "", aside)
    return Number("fid", value, f"{meaning} Clearly better than the next, {after}.", "good", aside)


def _balance(history: History, winner: TrialView) -> Iterator[Number]:
    balance = (history.best or winner).balance
    if balance is None:
        return
    value = measured(balance, "best.balance", COLUMNS["balance"], ".2f")
    if 0.2 <= balance <= 0.8:
        text, level = "Generator and discriminator are well matched: good is 0.2 to 0.8.", "good"
    elif balance > 0.8:
        text, level = "The discriminator is close to guessing: good is 0.2 to 0.8.", "caution"
    else:
        won = "generator" if (winner.auc or 0.0) < 0.5 and winner.auc is not None else "discriminator"
        text, level = f"The {won} has the upper hand: good is 0.2 to 0.8.", "caution"
    yield Number("balance", value, text, level)


def _variety(history: History, winner: TrialView, final: FinalMeasurement | None) -> Iterator[Number]:
    values = final.values if final else {}
    for name, words in (("coverage", "have a sample nearby"), ("recall", "lie among the samples")):
        share = finite(values.get(name))
        if share is not None:
            value = measured(share, _PATH + name, METRIC_DESCRIPTIONS[name], ".2f")
            yield Number(name, value, f"{share:.0%} of the training images {words}: {_amount(share)}.",
                         "good" if share >= 0.75 else "caution")  # fmt: skip
    best = history.best or winner
    full = f"; a full trial has {history.full_kimg}" if history.full_kimg else ""
    text = f"Thousands of training images shown when this fid was measured{full}."
    yield Number("kimg", measured(best.kimg, "best.kimg", COLUMNS["kimg"], "g"), text)
    if winner.stability is not None:
        yield Number("stability", Cell(short_number(winner.stability), COLUMNS["stability"]), "")


def _amount(share: float) -> str:
    if share >= 0.75:
        return "most of their variety is there"
    return "a part of their variety is missing" if share >= 0.4 else "much of their variety is missing"
