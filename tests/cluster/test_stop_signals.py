"""Signals of a sweep: what each does, by phase, and that handlers and masks are put back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trial_managers import make_manager

from pipeline.cluster.stop_signals import StopSignals
from pipeline.search.trial_manager import TrialManager

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def manager(tmp_path: Path) -> TrialManager:
    return make_manager(tmp_path)


@pytest.fixture(autouse=True)
def _hang_up_by_default() -> Iterator[None]:
    """Not as under nohup, in which the tests may run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in STOPPING]


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_interrupts_the_search_and_the_handlers_are_put_back(
    manager: TrialManager, number: signal.Signals
) -> None:
    before = handlers()
    with StopSignals(manager) as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does when it starts
        signals.ray_started()
        signal.raise_signal(number)
    assert (manager.interrupted, manager.reason) == (True, "interrupted")
    assert manager.paths.stop.exists()
    assert handlers() == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_hang_up_while_ray_starts_waits_until_it_has_started(manager: TrialManager) -> None:
    """Its processes inherit the blocked signal, so that a terminal that hangs up does not end them."""
    with StopSignals(manager) as signals:
        signal.raise_signal(signal.SIGHUP)
        child = [sys.executable, "-c", "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"]
        assert "SIGHUP" in subprocess.run(child, capture_output=True, text=True, check=True).stdout
        assert not manager.interrupted
        signals.ray_started()
        assert manager.interrupted


def test_two_hang_ups_are_one(manager: TrialManager) -> None:
    """Kernel and shell both send one; a second of the others would end the process at once."""
    with StopSignals(manager) as signals:
        signals.ray_started()
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert manager.interrupted


def test_under_nohup_a_hang_up_is_ignored(manager: TrialManager) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals(manager) as signals:
        signals.ray_started()
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert not manager.interrupted


def test_after_the_search_a_signal_raises_and_at_the_close_it_does_nothing(manager: TrialManager) -> None:
    with StopSignals(manager) as signals:
        signals.searched()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with StopSignals(manager) as signals:
        signals.closing()
        signal.raise_signal(signal.SIGTERM)
    assert not manager.interrupted


def test_outside_the_main_thread_no_handlers_are_installed(manager: TrialManager) -> None:
    """Python refuses them there; a search in a thread ends by `manager.interrupted`."""
    seen: list[Any] = []

    def search() -> None:
        with StopSignals(manager) as signals:
            signals.ray_started()
            seen.extend(handlers())

    before = handlers()
    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == handlers() == before
    assert not manager.interrupted
