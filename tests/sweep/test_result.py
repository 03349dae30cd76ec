"""What a result says, in a notebook too."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sweep_folders import summary_of

from pipeline.storage.summary_file import Best, LeaderboardRow, RegisteredVersion
from pipeline.sweep.result import Result


def test_a_result_of_a_finished_sweep(tmp_path: Path) -> None:
    row = LeaderboardRow(trial=3, state="complete", fid=7.5, balance=0.4, kimg=20, params={"lr_g": 1e-3})
    best = Best(trial=3, fid=7.25, balance=0.4, kimg=20, params={})
    version = RegisteredVersion(name="faces", version=2, alias="champion", uri="models:/faces/2")
    summary = dataclasses.replace(summary_of(), leaderboard=(row,), best=best, registered=version)
    (tmp_path / "report.html").touch()
    result = Result(
        name="s",
        state="finished",
        folder=tmp_path,
        location="runs/s",
        tracking_uri="sqlite:///x",
        summary=summary,
    )
    assert result.champion == "models:/faces@champion"
    assert result.report == tmp_path / "report.html"
    (flat,) = result.to_dicts()
    assert (flat["trial"], flat["fid"], flat["lr_g"]) == (3, 7.5, 1e-3)
    assert "params" not in flat
    assert repr(result) == (
        "Result(name=s, state=finished, trials=1, fid=7.25, trial=3, registered=models:/faces@champion, "
        "folder=runs/s)"
    )
    assert result._repr_html_().count("<tr>") == 9
    summary = dataclasses.replace(summary, registered=dataclasses.replace(version, alias="candidate"))
    assert dataclasses.replace(result, summary=summary).champion is None
    (tmp_path / "report.html").unlink()
    assert dataclasses.replace(result, summary=None).report is None
