"""The second opinion: whether an extractor that took no part in the search agrees on the winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.storage.summary_file import FinalistRow, SecondOpinion


@dataclass(frozen=True)
class _Fids:
    """A finalist's best run: its fid and interval in the extractor of the search, and in the second."""

    trial: int
    first: tuple[float, float, float]
    second: tuple[float, float, float]


def compare_winners(finalists: Sequence[FinalistRow]) -> SecondOpinion | None:
    """The second extractor's opinion on the winner among finalists, which are best first.

    It disagrees where another finalist has the lowest fid in it, and the two are apart in both extractors:
    neither pair of intervals overlaps. Finalists with verdicts do not count. None: the winner has a verdict,
    or was not measured in a second extractor.
    """
    known = [fids for row in finalists if (fids := _fids(row)) is not None]
    if not finalists or not known or known[0].trial != finalists[0].best.trial:
        return None
    winner, best = known[0], min(known, key=lambda fids: fids.second[0])
    values = finalists[0].measurement.values
    apart = winner.first[2] < best.first[1] and best.second[2] < winner.second[1]
    return SecondOpinion(
        extractor=str(values["second_extractor"]),
        hash=str(values["second_evaluator"]),
        samples=finalists[0].measurement.n,
        trial=best.trial,
        agrees=not apart,
        text=_text(winner, best, apart, len(known)),
    )


def _fids(row: FinalistRow) -> _Fids | None:
    found = row.measurement
    second = [found.values.get(f"second_{key}") for key in ("fid", "low", "high")]
    numbers = [float(value) for value in second if isinstance(value, int | float)]
    if found.fid is None or found.verdicts or len(numbers) < 3:
        return None
    return _Fids(
        row.best.trial, (found.fid, found.fid_low, found.fid_high), (numbers[0], numbers[1], numbers[2])
    )


def _text(winner: _Fids, best: _Fids, apart: bool, count: int) -> str:
    if count == 1:
        return (
            f"trial {winner.trial} has fid {_interval(winner.second)}, no other finalist to compare it with"
        )
    if best == winner:
        return f"agrees, trial {winner.trial} is best (fid {_interval(winner.second)})"
    both = ", ".join(f"trial {one.trial} has fid {_interval(one.second)}" for one in (best, winner))
    if apart:
        return f"disagrees, trial {best.trial} is best, not trial {winner.trial}: {both}"
    return f"agrees within the intervals: {both}"


def _interval(fid: tuple[float, float, float]) -> str:
    return "{:.4g} in [{:.4g}, {:.4g}]".format(*fid)
