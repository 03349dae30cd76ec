"""Standard streams that outlive their reader: training does not end because nobody looks on any more."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import IO, TextIO, cast

_GONE = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN}
"""What a write fails with where a pipe's reader has left, a terminal has vanished, or a socket is closed."""

_UNUSABLE = (OSError, ValueError, AttributeError)
"""Nobody reads the stream; it is closed; there is none."""


class LastingOutput(io.FileIO):
    """A standard stream whose writes do not fail. What has no reader is dropped.

    error: why something could not be written although there is a reader: a full disk; None = all was.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error: OSError | None = None
        self._gone = False

    def write(self, data: object) -> int:
        """Write all of `data`, also where the stream does not block; returns its length."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        size = len(view)
        while view and not self._gone:
            try:
                written = super().write(view)
            except OSError as error:
                if error.errno not in _GONE:
                    self.error = error
                    break
                self._gone = True
            else:
                view = view[written or 0 :]
                if written is None:
                    self._wait()
        return size

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        poll.poll()


class LastingStderr(io.TextIOBase):
    """The `sys.stderr` of the moment, as a stream whose writes do not fail: a notebook's, or a script's."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode())
        except _UNUSABLE:
            pass
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(*_UNUSABLE):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(*_UNUSABLE):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def _stream(self) -> TextIO:
        # rich's live display puts a stream that writes to a console, this one perhaps, into sys.stderr
        return cast("TextIO", getattr(sys.stderr, "rich_proxied_file", sys.stderr))


def lasting_stderr() -> IO[str]:
    """`LastingStderr`, with the type that rich asks for."""
    return cast("IO[str]", LastingStderr())


def make_streams_last() -> None:
    """Put lasting streams in the place of this process's standard streams, for a command.

    A stream that was closed when the process began becomes /dev/null: otherwise the next file that is opened
    would be taken for it. What the encoding of a terminal lacks is written as an escape.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _lasting(sys.stdout, 1)
    sys.stderr = _lasting(sys.stderr, 2)


def unwritten() -> OSError | None:
    """Why results could not be written to stdout although somebody wants them; None = all is well."""
    output = getattr(sys.stdout, "buffer", None)
    if not isinstance(output, LastingOutput):
        return None
    sys.stdout.flush()
    return output.error


def reader_left(stream: IO[str]) -> bool:
    """Whether nobody will read what is written to `stream`: a closed pipe, a terminal that has vanished."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file behind it
        return False


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        os.dup2(opened, descriptor)  # a child inherits it
        if opened != descriptor:
            os.close(opened)
        os.set_inheritable(descriptor, True)


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    return io.TextIOWrapper(
        cast("IO[bytes]", LastingOutput(descriptor)),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
        write_through=bool(stream and getattr(stream, "write_through", False)),
    )
