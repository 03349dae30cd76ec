"""The progress of a sweep from an event log that grows."""

from __future__ import annotations

from pathlib import Path

from sweep_folders import append_events, trial_events

from pipeline.reporting.live.progress import SweepProgress


def test_new_events_are_added_and_an_incomplete_line_is_read_later(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    progress = SweepProgress(path)
    progress.update()
    append_events(path, *trial_events(1, (10, 9.0, 0.5)))
    with path.open("a") as file:
        file.write('{"event": "rec')
    progress.update()
    assert progress.best_fids == [9.0]
    assert [trial.number for trial in progress.running] == [1]
    assert progress.seconds == 63.0
    with path.open("a") as file:
        file.write(
            'ord", "trial": 1, "record": {"trial": 1, "kimg": 20, "fid": 7.0, "verdict": "healthy"}}\n'
        )
    append_events(path, {"event": "end", "trial": 1, "status": "FINISHED"})
    progress.update()
    assert (progress.best_fids, progress.running, progress.kimg) == ([9.0, 7.0], [], 20)
    assert progress.last_ended[0].ended == "complete"


def test_a_resumed_trial_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    progress = SweepProgress(path)
    append_events(path, *trial_events(1, (10, 9.0, 0.5), end="KILLED"), *trial_events(1))
    progress.update()
    assert [trial.number for trial in progress.running] == [1]
    assert not progress.last_ended
