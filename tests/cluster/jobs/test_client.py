"""What the end of a job means, and its log (real jobs: integration/ray)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.cluster.jobs.client import JobLog, exit_code


@pytest.mark.parametrize(
    ("state", "driver", "code"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", 0, 130)],
)
def test_the_end_of_a_job_is_an_exit_code(state: str, driver: int | None, code: int) -> None:
    job = SimpleNamespace(status=SimpleNamespace(value=state), driver_exit_code=driver)
    assert exit_code(job) == code


def test_a_log_received_again_is_written_once() -> None:
    written: list[str] = []
    log = JobLog(written.append)
    for pieces in (("ab", "cd"), ("a", "bcde", "f"), ("abcdef",), ("abcdefg", "h")):
        log.restart()
        for piece in pieces:
            log.add(piece)
    assert "".join(written) == "abcdefgh"
