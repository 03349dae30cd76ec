"""Lines that a worker logs, collected there and logged in the driver."""

from __future__ import annotations

import logging

import pytest

from pipeline.cluster.worker_log import collected_lines, log_lines


def test_lines_of_this_package_are_collected_from_info_on() -> None:
    log = logging.getLogger("pipeline.training.anything")
    with collected_lines() as lines:
        log.info("%d of %d", 1, 2)
        log.debug("too fine")
        log.warning("careful")
        logging.getLogger("another.package").warning("not ours")
        assert lines == [(logging.INFO, "1 of 2"), (logging.WARNING, "careful")]
        lines.clear()  # as after each report
        log.error("later")
        assert lines == [(logging.ERROR, "later")]
    log.warning("after the block")
    assert len(lines) == 1


def test_the_logger_is_left_as_it_was() -> None:
    logger = logging.getLogger("pipeline")
    before = logger.level, list(logger.handlers)
    with collected_lines():
        assert logger.level == logging.INFO
        assert len(logger.handlers) == len(before[1]) + 1
    assert (logger.level, logger.handlers) == before


def test_the_driver_logs_them_with_the_number_of_their_trial(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    log_lines(7, [(logging.INFO, "100 % done"), (logging.WARNING, "careful")])
    logged = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert logged == [(logging.INFO, "trial 7: 100 % done"), (logging.WARNING, "trial 7: careful")]
