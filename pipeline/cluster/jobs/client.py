"""Sweeps as Ray jobs, by Ray's Job SDK: submit, follow, describe, list and stop them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.cluster.jobs import head
from pipeline.cluster.jobs.packaging import LEFT_BEHIND, JobPackage
from pipeline.errors import ConfigError

ENDED_STATES = ("SUCCEEDED", "FAILED", "STOPPED")
SWEEP_KEY = "gansweep"
"""The key of a job's metadata that marks it as a sweep; its value is the sweep's name."""


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
            runtime_env={  # no secret of this machine is in it
                "working_dir": str(package.folder),
                "excludes": LEFT_BEHIND,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"},  # trials stop at their next step
            },
            metadata={SWEEP_KEY: name},
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            "the cluster does not accept the job",
            seen=str(error).strip().partition("\n")[0],
            fix="name large files in .rayignore, or look into the dashboard",
        ) from error
    return job


def follow_job(address: str, job: str, write: Callable[[str], None]) -> int:
    """Write the job's log as it grows, until the job is over; returns the exit code of `gansweep run` there.

    A connection that breaks (a tunnel) is made again; nothing is written twice.
    """
    client, log = _client(address), JobLog(write)
    while True:
        with contextlib.suppress(Exception):  # a broken connection: the job's state decides whether to go on
            asyncio.run(_tail(client, job, log))
        found = _with_retries(lambda: client.get_job_info(job))
        if found.status.value in ENDED_STATES:
            break
        time.sleep(1.0)
    log.restart()
    log.add(_with_retries(lambda: client.get_job_logs(job)))
    return exit_code(found)


class JobLog:
    """A log that is received from its beginning after each interruption, and written once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written, self._received = write, 0, 0  # counts of characters

    def restart(self) -> None:
        """The next piece is the log's beginning."""
        self._received = 0

    def add(self, text: str) -> None:
        """Take the next piece of the log, and write what of it has not been written yet."""
        new = text[max(0, self._written - self._received) :]
        self._received += len(text)
        if new:
            self._write(new)
            self._written = self._received


def exit_code(job: Any) -> int:
    """The exit code of `gansweep run` in a job that is over; a stopped job counts as interrupted (130)."""
    if job.status.value == "STOPPED":
        return 130
    code = job.driver_exit_code
    return int(code if code is not None else job.status.value != "SUCCEEDED")


def describe_job(address: str, job: str) -> dict[str, str]:
    """What is known of a job, by name; the message is Ray's.

    Raises:
        ConfigError: the cluster does not answer, or does not know the job.
    """
    found = _job_info(_client(address), job)
    lines = {
        "job": job,
        "state": found.status.value,
        "sweep": (found.metadata or {}).get(SWEEP_KEY, ""),
        "command": found.entrypoint,
        "started": _moment(found.start_time),
        "ended": _moment(found.end_time),
        "message": " ".join((found.message or "").split()),
    }
    return {key: value for key, value in lines.items() if value}


def list_jobs(address: str) -> Iterator[tuple[str, str, str, str]]:
    """The jobs that are sweeps, newest first: id, state, name of the sweep, start."""
    jobs = [job for job in _client(address).list_jobs() if SWEEP_KEY in (job.metadata or {})]
    for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True):
        yield str(job.submission_id), job.status.value, job.metadata[SWEEP_KEY], _moment(job.start_time)


def stop_job(address: str, job: str) -> str:
    """Stop a job and wait until it is over, 150 seconds at most; returns its state then.

    Its trials checkpoint and stop at their next step; the same submit goes on from there.

    Raises:
        ConfigError: the cluster does not answer, or does not know the job.
    """
    client = _client(address)
    if _job_info(client, job).status.value not in ENDED_STATES:
        client.stop_job(job)
    end = time.monotonic() + 150.0
    while (state := _job_info(client, job).status.value) not in ENDED_STATES and time.monotonic() < end:
        time.sleep(0.5)
    return str(state)


def _client(address: str) -> Any:
    head.check_head_answers(address)  # in one line, where the SDK would wait or raise pages
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return JobSubmissionClient(address, headers=head.headers())


def _job_info(client: Any, job: str) -> Any:
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        fix = "`gansweep status` lists those it has"
        raise ConfigError("the cluster has no job {seen}", seen=job, fix=fix) from error


async def _tail(client: Any, job: str, log: JobLog) -> None:
    log.restart()
    async for text in client.tail_job_logs(job):
        log.add(text)


def _with_retries(ask: Callable[[], Any]) -> Any:
    """The answer of `ask`, which is called again every 5 seconds while a tunnel is down, 30 times at most."""
    for _ in range(30):
        try:
            return ask()
        except (OSError, RuntimeError) as error:
            reason = error
            time.sleep(5.0)
    fix = "the job may go on: gansweep status JOB"
    raise ConfigError("the cluster does not answer", seen=str(reason), fix=fix)


def _moment(milliseconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(milliseconds / 1000)) if milliseconds else ""
