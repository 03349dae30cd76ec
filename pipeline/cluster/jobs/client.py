"""A sweep as a Ray job: submitted, followed, asked for, stopped.

Owns: the use of Ray's Job SDK, and the exit code that a job's end means. Refuses: what the job is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.cluster.jobs import head
from pipeline.cluster.jobs.packaging import JobPackage, runtime_env
from pipeline.errors import ConfigError

OVER = ("SUCCEEDED", "FAILED", "STOPPED")
MARK = "gansweep"
"""A key of the metadata that only jobs of ours have; its value is the sweep's name."""


def submit_job(address: str, package: JobPackage, name: str) -> str:
    """Send the folder and start the job; returns its id.

    Raises:
        ConfigError: the folder is too large, or the cluster does not take the job.
    """
    client = _client(address)
    try:
        job: str = client.submit_job(
            entrypoint=package.command,
            submission_id=f"{name}-{secrets.token_hex(3)}",
            runtime_env=runtime_env(package),
            metadata={MARK: name},
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            "the cluster takes the job",
            seen=str(error).strip().splitlines()[0],
            fix="name large files in .rayignore, or look into the dashboard",
        ) from error
    return job


def follow_job(address: str, job: str, write: Callable[[str], None]) -> int:
    """Write the job's log as it grows, until the job is over; returns the exit code of `gansweep run` there.

    A connection that breaks (a tunnel) is made again; nothing is written twice.
    """
    client, log = _client(address), Log(write)
    while True:
        with contextlib.suppress(Exception):  # whatever broke: the job's state decides whether to go on
            asyncio.run(_tail(client, job, log))
        found = _patiently(lambda: client.get_job_info(job))
        if found.status.value in OVER:
            break
        time.sleep(1.0)
    log.begin()
    log.add(_patiently(lambda: client.get_job_logs(job)))
    return exit_code(found)


class Log:
    """A text that is heard from its beginning again and again, and written once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written, self._heard = write, 0, 0

    def begin(self) -> None:
        """What comes now is the text from its beginning."""
        self._heard = 0

    def add(self, text: str) -> None:
        """The next piece of it; what was written before is left out."""
        new = text[max(0, self._written - self._heard) :]
        self._heard += len(text)
        if new:
            self._write(new)
            self._written = self._heard


def exit_code(job: Any) -> int:
    """What `gansweep run` ended with; a job that was stopped is an interruption."""
    if job.status.value == "STOPPED":
        return 130
    code = job.driver_exit_code
    return int(code if code is not None else job.status.value != "SUCCEEDED")


def describe_job(address: str, job: str) -> dict[str, str]:
    """What is known of a job, line by line; its message is Ray's."""
    found = _found(_client(address), job)
    times = {"started": found.start_time, "ended": found.end_time}
    lines = {
        "job": job,
        "state": found.status.value,
        "sweep": (found.metadata or {}).get(MARK, ""),
        "command": found.entrypoint,
        **{key: _moment(value) for key, value in times.items() if value},
        "message": " ".join((found.message or "").split()),
    }
    return {key: value for key, value in lines.items() if value}


def list_jobs(address: str) -> Iterator[tuple[str, str, str, str]]:
    """Our jobs, newest first: id, state, sweep, start."""
    jobs = [job for job in _client(address).list_jobs() if MARK in (job.metadata or {})]
    for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True):
        yield str(job.submission_id), job.status.value, job.metadata[MARK], _moment(job.start_time)


def stop_job(address: str, job: str, timeout: float = 150.0) -> str:
    """End a job and wait until it is over; returns its state then.

    Its trials leave at their next step; the same submit goes on from there.
    """
    client = _client(address)
    if _found(client, job).status.value not in OVER:
        client.stop_job(job)
    end = time.monotonic() + timeout
    while (state := _found(client, job).status.value) not in OVER and time.monotonic() < end:
        time.sleep(0.5)
    return str(state)


def _client(address: str) -> Any:
    head.check_head_answers(address)  # in a line, where the SDK would wait or raise pages
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return JobSubmissionClient(address, headers=head.headers())


def _found(client: Any, job: str) -> Any:
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        raise ConfigError(
            "the cluster knows the job", seen=job, fix="`gansweep status` lists those it knows"
        ) from error


async def _tail(client: Any, job: str, log: Log) -> None:
    log.begin()
    async for text in client.tail_job_logs(job):
        log.add(text)


def _patiently(ask: Callable[[], Any], tries: int = 30) -> Any:
    """The answer, asked for again while a tunnel is down.

    Raises:
        ConfigError: there is none after some minutes.
    """
    for _ in range(tries):
        try:
            return ask()
        except (OSError, RuntimeError) as error:
            reason = error
            time.sleep(5.0)
    raise ConfigError("the cluster answers", seen=str(reason), fix="the job may go on: gansweep status JOB")


def _moment(milliseconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((milliseconds or 0) / 1000))
