"""When a second extractor disagrees on the winner: only where the two are apart in both extractors."""

from __future__ import annotations

import pytest

from pipeline.metrics.second_opinion import compare_winners
from pipeline.storage.summary_file import FinalistBest, FinalistRow, FinalMeasurement


def row(trial: int, fid: float, second: float | None, *verdicts: str, half: float = 1.0) -> FinalistRow:
    """A finalist with intervals of +- half in both extractors."""
    values: dict[str, object] = {}
    if second is not None:
        values = {"second_extractor": "efficientnet", "second_evaluator": "h"}
        values |= {"second_fid": second, "second_low": second - half, "second_high": second + half}
    best = FinalistBest(trial=trial, fid=fid, balance=0.5, kimg=1, params={}, search_fid=fid)
    measured = FinalMeasurement(
        n=500, fid=fid, fid_low=fid - half, fid_high=fid + half, verdicts=verdicts, values=values
    )
    return FinalistRow(best=best, measurement=measured)


@pytest.mark.parametrize(
    ("others", "trial", "agrees", "text"),
    [
        ([row(2, 20, 40)], 7, True, "agrees, trial 7 is best (fid 30 in [29, 31])"),
        ([row(2, 20, 20)], 2, False, "disagrees, trial 2 is best, not trial 7: "),
        ([row(2, 20, 29)], 2, True, "agrees within the intervals: "),
        ([row(2, 11, 20)], 2, True, "agrees within the intervals: "),
        ([row(2, 20, 20, "copies")], 7, True, "trial 7 has fid 30 in [29, 31], no other finalist"),
        ([row(2, 20, 20, "copies"), row(3, 30, 10)], 3, False, "disagrees, trial 3 is best"),
        ([], 7, True, "trial 7 has fid 30"),
    ],
    ids=["agrees", "apart", "second overlaps", "first overlaps", "verdict", "verdict and other", "alone"],
)
def test_opinions(others: list[FinalistRow], trial: int, agrees: bool, text: str) -> None:
    found = compare_winners([row(7, 10, 30), *others])
    assert found is not None
    assert (found.trial, found.agrees, found.samples) == (trial, agrees, 500)
    assert found.text.startswith(text)


@pytest.mark.parametrize(
    "rows", [[], [row(7, 10, None), row(2, 20, None)], [row(7, 10, 30, "copies"), row(2, 20, 20)]]
)
def test_no_opinion_without_a_measured_winner(rows: list[FinalistRow]) -> None:
    assert compare_winners(rows) is None
