"""When a worker that does not report counts as hung."""

from __future__ import annotations

from pathlib import Path

import pytest
from trial_managers import make_manager, tick

from pipeline.search.hang_watch import HangWatch, hang_bound_sec


def test_a_trial_hangs_when_it_has_not_reported_for_longer_than_its_bound(tmp_path: Path) -> None:
    now = 0.0
    manager = make_manager(tmp_path)
    watch = HangWatch(manager, lambda: now)
    manager.ask()
    assert watch.hung([0]) == []
    now = 7199.0  # no trial has a tick yet, so their length is unknown
    assert watch.hung([0]) == []
    manager.report(tick(0, 1, 9.0, train_seconds=50.0, eval_seconds=10.0))
    assert watch.hung([0]) == []
    now += 1199.0
    assert watch.hung([0]) == []
    now += 2.0  # 20 ticks of 60 s
    assert watch.hung([0]) == [0]
    assert "bound is 1200 s" in manager.trials[0].hang_reason
    assert watch.hung([0]) == []  # its worker is being ended: the next one gets the same time


def test_a_trial_that_waits_for_a_machine_does_not_hang(tmp_path: Path) -> None:
    now = 0.0
    manager = make_manager(tmp_path, hang_after_sec=60.0)
    watch = HangWatch(manager, lambda: now)
    manager.ask()
    watch.hung([0])
    now = 100.0
    assert watch.hung([]) == []
    now = 200.0
    assert watch.hung([0]) == []
    now = 319.0  # its worker is starting
    assert watch.hung([0]) == []
    manager.report(tick(0, 1, 9.0))
    watch.hung([0])
    now = 378.0
    assert watch.hung([0]) == []
    now = 380.0
    assert watch.hung([0]) == [0]
    now = 499.0  # the next one starts
    assert watch.hung([0]) == []


@pytest.mark.parametrize(
    ("seconds", "bound"), [((), 7200.0), ((1.0, 2.0), 600.0), ((40.0, 10.0, 50.0), 1000.0)]
)
def test_the_bound_follows_the_longest_tick(tmp_path: Path, seconds: tuple[float, ...], bound: float) -> None:
    manager = make_manager(tmp_path)
    manager.ask()
    manager.ask()
    for kimg in range(1, len(seconds) + 1):
        manager.report(tick(0, kimg, 9.0, train_seconds=sum(seconds[:kimg]), eval_seconds=0.0))
    assert hang_bound_sec(manager.trials, 0) == hang_bound_sec(manager.trials, 1) == bound
    assert hang_bound_sec(manager.trials, 0, given=7.0) == 7.0
