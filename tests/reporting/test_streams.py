"""Standard streams whose reader leaves, whose terminal vanishes, whose disk is full."""

from __future__ import annotations

import io
import logging
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.reporting.log_lines import err_console, log_to_terminal
from pipeline.reporting.streams import LastingOutput, LastingStderr, reader_left

FULL = Path("/dev/full")


def test_what_has_a_reader_is_written_and_what_has_none_is_dropped() -> None:
    reading, writing = os.pipe()
    output = LastingOutput(writing)
    assert output.write(b"one\n") == 4
    assert os.read(reading, 100) == b"one\n"
    os.close(reading)
    assert output.write(b"two\n") == 4
    assert output.write(b"three\n") == 6
    assert output.error is None
    os.close(writing)


def test_a_terminal_that_vanishes() -> None:
    screen, terminal = pty.openpty()
    output = LastingOutput(terminal)
    output.write(b"one")
    assert os.read(screen, 100) == b"one"
    os.close(screen)
    with open(terminal, "wb", closefd=False, buffering=0) as plain, pytest.raises(OSError, match="Errno 5"):
        plain.write(b"two")
    assert output.write(b"two") == 3
    assert output.error is None
    os.close(terminal)


def test_a_stream_that_does_not_block_gets_all_of_it() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data, received = bytes(300_000), bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(os.read(reading, 4096))

    thread = threading.Thread(target=read)
    thread.start()
    assert LastingOutput(writing).write(data) == len(data)
    thread.join(timeout=20)
    assert received == data
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_is_remembered() -> None:
    descriptor = os.open(FULL, os.O_WRONLY)
    output = LastingOutput(descriptor)
    assert output.write(b"one") == 3
    assert output.error is not None
    assert output.error.strerror == "No space left on device"
    os.close(descriptor)


class _Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", ["gone", "closed", "none", "ascii"])
def test_log_lines_and_errors_never_fail(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    small = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    closed = io.StringIO()
    closed.close()
    streams = {"gone": _Broken(), "closed": closed, "none": None, "ascii": small}
    monkeypatch.setattr("sys.stderr", streams[stream])
    log_to_terminal()
    logging.getLogger("pipeline.tests").warning("Éclair …")
    err_console.print("once more")
    LastingStderr().flush()
    if stream == "ascii":
        small.seek(0)
        assert small.read().splitlines() == ["warning: \\xc9clair \\u2026", "once more"]


def test_whether_anybody_reads() -> None:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:
        assert not reader_left(stream)
        os.close(reading)
        assert reader_left(stream)
    assert not reader_left(io.StringIO())


_CLOSED = """
import os, sys
from pipeline.reporting.streams import make_streams_last, unwritten
make_streams_last()
first = os.open("/dev/null", os.O_RDONLY)
print("a result"), print("an error", file=sys.stderr), sys.stdin.read(0)
assert unwritten() is None
sys.exit(0 if first > 2 else 7)
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_stream_that_was_closed(closed: str) -> None:
    command = ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, _CLOSED]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if ">&- " in f"{closed} ".replace("2>&-", "") else "a result\n")
