"""summary.json while a sweep runs: when it is written, and what it keeps of an earlier process."""

from __future__ import annotations

from pathlib import Path

from trial_managers import make_manager, tick

from pipeline.reporting.summary import Summary
from pipeline.search.trial_manager import TrialManager
from pipeline.storage.summary_file import FidEvaluator, RegisteredVersion, SweepSummary, read_summary


def summary_of(manager: TrialManager) -> Summary:
    return Summary(manager.paths, manager.config, FidEvaluator(samples=9), manager)


def written(manager: TrialManager) -> SweepSummary:
    found = read_summary(manager.paths.summary)
    assert found is not None
    return found


def test_the_end_of_the_last_running_trial_is_written_at_once(tmp_path: Path) -> None:
    """Within the two seconds in which other events are not."""
    manager = make_manager(tmp_path)
    summary = summary_of(manager)
    summary.write()
    manager.begin([summary])
    for number in range(2):
        assert manager.ask() is not None
        manager.report(tick(number, 30, 40.0 - number))
    manager.finish(0)
    assert written(manager).trials.ended == 0
    manager.finish(1)
    after = written(manager)
    assert (after.trials.complete, after.trials.running, after.kimg_total) == (2, 0, 60)
    assert after.best is not None
    assert (after.best.trial, after.best.fid, after.evaluator.samples) == (1, 39.0, 9)


def test_the_registered_version_of_an_earlier_process_is_kept(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    version = RegisteredVersion("s", 1, "champion", "models:/s/1")
    summary_of(manager).set_registered(version)
    again = summary_of(manager)
    again.set_state("finished")
    assert (written(manager).registered, written(manager).state) == (version, "finished")
    again.set_registered(None)
    assert written(manager).registered is None
