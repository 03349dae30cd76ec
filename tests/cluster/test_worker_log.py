"""Lines that a worker logs, collected there."""

from __future__ import annotations

import logging

from pipeline.cluster.worker_log import collected_lines


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
