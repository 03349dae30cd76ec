"""The study's journal survives a kill; a full disk is in tests/storage/test_full_disk.py."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from trial_managers import make_manager, tick

from pipeline.search.journal import repair_journal


def test_a_torn_line_and_the_lock_of_a_killed_process_are_repaired(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.ask()
    path = tmp_path / "study.journal"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 6, "trial')
    os.symlink(path, f"{path}.lock")  # of a process that was killed while it wrote
    started = time.monotonic()
    again = make_manager(tmp_path)
    again.ask()
    again.report(tick(0, 1, 9.0))
    assert time.monotonic() - started < 5
    assert make_manager(tmp_path).study.trials[0].intermediate_values == {1: 9.0}


@pytest.mark.parametrize("damage", [b"x" * 200_000, b"", b"\n"])
def test_repair_removes_the_torn_line_only(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(b'{"a":1}\n{"b":2}\n' + damage)
    repair_journal(path)
    assert path.read_bytes() == b'{"a":1}\n{"b":2}\n' + (b"\n" if damage == b"\n" else b"")
    path.write_bytes(b"no line at all")
    repair_journal(path)
    assert path.read_bytes() == b""
