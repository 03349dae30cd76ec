"""The log of a trial's worker: its lines go to the driver with the trial's reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.cluster.messages import Line


@contextmanager
def collected_lines() -> Iterator[list[Line]]:
    """The lines that this package logs inside the block at INFO and above; the caller empties the list."""
    handler, logger = _Collector(), logging.getLogger("pipeline")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.append((record.levelno, record.getMessage()))
        except Exception:  # a wrong format fails no trial
            self.handleError(record)
