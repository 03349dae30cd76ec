"""An MLflow server: whether it answers, is new enough, and is ours to write, asked without writing."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from pipeline.errors import RegistryError, first_line, redact
from pipeline.storage.proxies import proxy_for
from pipeline.tracking._compat import ask_server
from pipeline.tracking.store_schema import IS_PROMPT, StoreAwayError

PROBE_SEC = 10.0
_API = "/api/2.0/mlflow"
_NEXT = "correct --tracking-uri or leave it out for a local store"
_CLOSED = (401, 403, 405)
"""Statuses of a request that this user, or any, may not make here."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """The status and the body of a server's answer."""

    status: int
    text: str

    @property
    def content(self) -> Mapping[str, object] | None:
        """The object in the body; None where it is none, an HTML page for example."""
        with contextlib.suppress(ValueError):
            content = json.loads(self.text)
            return content if isinstance(content, dict) else None
        return None

    def __str__(self) -> str:
        line = next(iter(self.text.strip().splitlines()), "")[:100]
        return f"{self.status}: {line}" if line else str(self.status)


def check_http(uri: str, *, write: bool) -> None:
    """Check the MLflow server at `uri`, within `PROBE_SEC`. write: whether it must take runs and models.

    Raises:
        RegistryError: it is no MLflow server, is too old, or does not let this user in or write.
        StoreAwayError: it does not answer.
    """
    _within(uri, lambda: _check(uri, write))


def is_prompt_on_server(uri: str, name: str) -> bool:
    """Whether `name` is a prompt in the server's registry."""
    answer = _within(uri, lambda: _ask(uri, "GET", "registered-models/get", name=name))
    model = (answer.content or {}).get("registered_model")
    tags = model.get("tags", []) if isinstance(model, dict) else []
    return any(isinstance(tag, dict) and tag.get("key") == IS_PROMPT for tag in tags)


def _within(uri: str, ask: Callable[[], T]) -> T:
    """The result of `ask`, in a thread: a host that drops packets blocks a call for minutes."""
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(ask())
        except Exception as error:  # of any type: shown to the user in one line
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PROBE_SEC)
    if results:
        return results[0]
    if errors and isinstance(errors[0], RegistryError):
        raise errors[0]
    raise _away(uri, first_line(errors[0]) if errors else f"no answer in {PROBE_SEC:g} s")


def _away(uri: str, why: str) -> StoreAwayError:
    proxy = proxy_for(uri)
    direct = f"export NO_PROXY={urlsplit(uri).hostname} to ask it directly, " if proxy else ""
    return StoreAwayError(
        "the tracking server does not answer",
        rule=f"it is asked through the proxy in {proxy}" if proxy else "",
        seen=f"{redact(uri)} ({redact(why)})",
        fix=f"{direct}start it, {_NEXT}",
    )


def _ask(uri: str, method: str, path: str, **values: object) -> Answer:
    return Answer(*ask_server(uri, method, f"{_API}/{path}", values))


def _check(uri: str, write: bool) -> None:
    found = _ask(uri, "GET", "experiments/search", max_results=1)
    if found.status in (401, 403):
        raise _refused(uri, "does not let this user in", found)
    if found.status >= 500 or found.status == 429:
        raise _away(uri, str(found))
    if (
        found.status != 200
        or found.content is None
        or found.content.keys() - {"experiments", "next_page_token"}
    ):
        proxy = proxy_for(uri)
        raise RegistryError(
            "{seen} is no MLflow server",
            rule=f"it answers {found}" + (f", through the proxy in {proxy}" if proxy else ""),
            seen=redact(uri),
            fix=f"export NO_PROXY={urlsplit(uri).hostname}, or {_NEXT}" if proxy else _NEXT,
        )
    if not write:
        return
    # Requests with an empty name: with write access MLflow refuses the name, and nothing is made.
    for path in ("experiments/create", "registered-models/create"):
        made = _ask(uri, "POST", path, name="")
        if made.status in _CLOSED:
            raise _refused(uri, "may be read, but not written, by this user", made)
    models = _ask(uri, "POST", "logged-models/search", experiment_ids=[])
    if models.status == 404:
        raise RegistryError(
            "the MLflow server {seen} is too old",
            rule="models are logged by its API of MLflow 3, which it does not have",
            seen=redact(uri),
            fix="upgrade it to MLflow 3, or name another with --tracking-uri",
        )


def _refused(uri: str, problem: str, answer: Answer) -> RegistryError:
    proxy = proxy_for(uri)
    return RegistryError(
        f"the tracking server {{seen}} {problem}",
        rule=f"it answers {answer}" + (f", through the proxy in {proxy}" if proxy else ""),
        seen=redact(uri),
        fix="export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of one "
        f"who may, or {_NEXT}",
    )
