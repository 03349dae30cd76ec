"""One JSON line to a URL of the user's when a sweep is over or another trial takes the lead.

Owns: `Notifier`. Refuses: letting a URL that does not answer reach the search; writing the URL anywhere
(it may hold a token): no file, no message, no error text has it.

    {"event": "champion", "sweep": "mnist5k", "state": "running", "trial": 7, "fid": 0.58, "balance": 0.61,
     "kimg": 120, "text": "mnist5k: trial 7 leads with fid 0.58 at 120 kimg"}

event: `champion` (another trial leads), then one of `finished`, `interrupted`, `failed`. `text` is what
chat webhooks show.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.records import TrialRecord

if TYPE_CHECKING:
    from pipeline.search.trial_manager import SweepTrial
    from pipeline.training.checkpoint import Failure

log = logging.getLogger(__name__)

TIMEOUT_SEC = 10.0
_FACTS = ("trial", "fid", "balance", "kimg")


def check_webhook(url: str) -> str:
    """The URL, or ConfigError where nothing can be posted to it."""
    try:
        parts = urlsplit(url)
        good = not url or (parts.scheme in ("http", "https") and bool(parts.hostname))
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            "--notify is an http or https address", seen="another", fix="write https://HOST/..."
        )
    return url


class WebhookNotifier:
    """A `Listener` of the search that posts from a thread of its own, in order; mute without a URL.

    Used as a context: on leaving it the end of the sweep is told. summary: what summary.json would hold now;
    who leads on entering is no news.
    """

    def __init__(self, url: str, sweep: str, summary: Callable[[], Mapping[str, Any]]) -> None:
        self._url, self._sweep, self._summary = check_webhook(url), sweep, summary
        self._leader: int | None = None
        self._lowest: float | None = None
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
        self._warned = False

    def __enter__(self) -> Self:
        first = next(iter(self._summary()["leaderboard"]), {"trial": None, "fid": None})
        if first["fid"] is not None:
            self._leader, self._lowest = first["trial"], first["fid"]
        if self._url:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._url:
            self._over(self._summary())
            self._waiting.put(None)
            self._thread.join(timeout=2 * TIMEOUT_SEC)

    def on_start(self, entry: SweepTrial) -> None:
        """No news."""

    def on_failure(self, entry: SweepTrial, failure: Failure) -> None:
        """No news: the search goes on."""

    def on_end(self, entry: SweepTrial) -> None:
        """No news: what counts was told by its records."""

    def on_record(self, entry: SweepTrial, record: TrialRecord) -> None:
        """News where the trial takes the lead from another one."""
        if record.fid is None or (self._lowest is not None and record.fid >= self._lowest):
            return
        before, self._leader, self._lowest = self._leader, record.trial, record.fid
        if record.trial != before:
            text = (
                f"{self._sweep}: trial {record.trial} leads with fid {record.fid:.4g} at {record.kimg} kimg"
            )
            row = record.to_dict()
            self._put("champion", "running", {key: row[key] for key in _FACTS}, text)

    def _over(self, summary: Mapping[str, Any]) -> None:
        state, best = str(summary.get("state")), summary.get("best") or {}
        registered = (summary.get("registered") or {}).get("uri")
        text = f"{self._sweep}: {state}"
        text += f", best fid {best['fid']:.4g} (trial {best['trial']})" if best.get("fid") is not None else ""
        text += f", {registered}" if registered else ""
        facts = {**{key: best.get(key) for key in _FACTS}, "registered": registered}
        self._put(state, state, facts, text)

    def _put(self, event: str, state: str, facts: Mapping[str, Any], text: str) -> None:
        if self._url:
            self._waiting.put({"event": event, "sweep": self._sweep, "state": state, **facts, "text": text})

    def _work(self) -> None:
        for line in _until_none(self._waiting):
            try:
                _post(self._url, line)
            except Exception as error:  # whatever it is, the sweep goes on
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            reason = type(error).__name__  # its text may hold the URL
            if isinstance(error, urllib.error.HTTPError):
                reason = f"HTTP {error.code}"
            log.warning(f"--notify: {urlsplit(self._url).hostname} cannot be told ({reason})")
        self._warned = True


def _until_none(waiting: queue.SimpleQueue[dict[str, Any] | None]) -> Iterable[dict[str, Any]]:
    while (line := waiting.get()) is not None:
        yield line


def _post(url: str, line: Mapping[str, Any]) -> None:
    body = (json.dumps(line, default=str) + "\n").encode()
    headers = {"Content-Type": "application/json", "User-Agent": "gansweep"}
    request = urllib.request.Request(url, body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SEC):
        pass
