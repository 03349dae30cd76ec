"""What a trial logs in its worker, carried to the driver with its next report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

Line = tuple[int, str]
"""A level of `logging`, and the text of one line."""


@contextmanager
def collected_lines() -> Iterator[list[Line]]:
    """The lines at INFO and above that this package logs meanwhile; whoever sends them empties the list."""
    handler, logger = _Collector(), logging.getLogger("pipeline")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def log_lines(number: int, lines: list[Line]) -> None:
    """Log the lines of trial `number` in the driver."""
    for level, text in lines:
        logging.getLogger(__name__).log(level, "trial %d: %s", number, text)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))
