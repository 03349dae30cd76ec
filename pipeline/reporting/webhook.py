"""Posts one JSON line to the user's URL when another trial takes the lead and when a sweep is over.

A URL that fails or does not answer never delays or stops the search. The URL may hold a token: no file, no
log line and no error text contains it.

    {"event": "champion", "sweep": "mnist5k", "state": "running", "trial": 7, "fid": 0.58, "balance": 0.61,
     "kimg": 120, "text": "mnist5k: trial 7 leads with fid 0.58 at 120 kimg"}

event: `champion` (another trial leads) while the sweep runs; at its end one of `finished`, `interrupted`,
`failed`. `text` is the key that chat webhooks show.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Self
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.records import TrialRecord
from pipeline.storage.summary_file import SweepSummary

log = logging.getLogger(__name__)

TIMEOUT_SEC = 10.0
_FIELDS = ("trial", "fid", "balance", "kimg")


def check_webhook(url: str) -> str:
    """Return `url` if one can post to it; the empty URL (no notification) is valid too.

    Raises:
        ConfigError: not an http or https URL with a host. The text does not repeat the URL.
    """
    try:
        parts = urlsplit(url)
        valid = not url or (parts.scheme in ("http", "https") and bool(parts.hostname))
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            "the URL of --notify cannot be posted to",
            rule="an http or https address is needed",
            fix="write https://HOST/...",
        )
    return url


class WebhookNotifier:
    """A `SweepCallback` that posts from its own thread, in order; does nothing without a URL.

    A context manager: leaving it posts the end of the sweep. The trial that leads on entering is not
    announced again.

    url: from `check_webhook`. sweep: its name. summary: returns the current state of the sweep.
    """

    def __init__(self, url: str, sweep: str, summary: Callable[[], SweepSummary]) -> None:
        self._url, self._sweep, self._summary = url, sweep, summary
        self._leader: int | None = None
        self._lowest = math.inf
        self._queue: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
        self._warned = False

    def __enter__(self) -> Self:
        first = next(iter(self._summary().leaderboard), None)
        if first is not None and first.fid is not None:
            self._leader, self._lowest = first.trial, first.fid
        if self._url:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._url:
            self._post_end(self._summary())
            self._queue.put(None)
            self._thread.join(timeout=2 * TIMEOUT_SEC)

    def _ignore(self, *event: object) -> None:
        """Posts nothing."""

    on_start = on_failure = on_end = _ignore

    def on_record(self, trial: object, record: TrialRecord) -> None:
        """Post `champion` if the trial takes the lead from another one."""
        if record.fid is None or record.fid >= self._lowest:
            return
        previous, self._leader, self._lowest = self._leader, record.trial, record.fid
        if record.trial != previous:
            text = f"trial {record.trial} leads with fid {record.fid:.4g} at {record.kimg} kimg"
            row = record.to_dict()
            self._enqueue("champion", "running", {key: row[key] for key in _FIELDS}, text)

    def _post_end(self, summary: SweepSummary) -> None:
        best, text = summary.best, str(summary.state)
        registered = summary.registered.uri if summary.registered else None
        text += f", best fid {best.fid:.4g} (trial {best.trial})" if best else ""
        text += f", {registered}" if registered else ""
        fields = {**{key: getattr(best, key, None) for key in _FIELDS}, "registered": registered}
        self._enqueue(summary.state, summary.state, fields, text)

    def _enqueue(self, event: str, state: str, fields: Mapping[str, object], text: str) -> None:
        if self._url:
            text = f"{self._sweep}: {text}"
            self._queue.put({"event": event, "sweep": self._sweep, "state": state, **fields, "text": text})

    def _work(self) -> None:
        for message in iter(self._queue.get, None):
            try:
                self._post(message)
            except Exception as error:  # whatever the error is, the sweep goes on
                self._warn(error)

    def _post(self, message: Mapping[str, object]) -> None:
        body = (json.dumps(message) + "\n").encode()
        headers = {"Content-Type": "application/json", "User-Agent": "gansweep"}
        request = urllib.request.Request(self._url, body, headers, method="POST")
        urllib.request.urlopen(request, timeout=TIMEOUT_SEC).close()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            reason = type(error).__name__  # its text may hold the URL
            if isinstance(error, urllib.error.HTTPError):
                reason = f"HTTP {error.code}"
            log.warning(f"--notify: {urlsplit(self._url).hostname} cannot be notified ({reason})")
        self._warned = True
