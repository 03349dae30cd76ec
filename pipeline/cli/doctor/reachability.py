"""Whether a tracking store can be reached: a file, an HTTP server, or a database's port; none is opened."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from pipeline.cli.doctor.finding import Finding, Level


def check_tracking(uri: str, *, timeout_sec: float = 2.0) -> Finding:
    """Whether the MLflow store at `uri` can be reached, without opening it; passwords are not shown."""
    if not uri:
        return Finding("tracking", "bad", "a sweep in an object store needs a --tracking-uri")
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "sqlite":
        return _sqlite_answers(uri)
    if parts.scheme in {"http", "https"}:
        return _http_answers(uri, timeout_sec)
    if parts.scheme in {"", "file"}:
        text = f"{uri}: MLflow 3 has no file store; use sqlite:///{parts.path.rstrip('/')}/mlflow.db"
        return Finding("tracking", "bad", text)
    if parts.hostname is None:
        return Finding("tracking", "warn", f"{parts.scheme}: cannot be checked from here")
    port = parts.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}.get(parts.scheme.split("+")[0], 0)
    name = f"{parts.scheme}://{parts.hostname}:{port}"  # never the user and password of the URI
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname, port), timeout_sec):
        return Finding("tracking", "ok", f"{name} accepts connections")
    return Finding("tracking", "bad", f"{name} does not answer")


def _sqlite_answers(uri: str) -> Finding:
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        return Finding("tracking", "ok", f"{path} will be created by the first sweep")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
            runs = store.execute("select count(*) from runs").fetchone()[0]
    except sqlite3.Error as error:
        return Finding("tracking", "bad", f"{path} is not an MLflow store: {error}")
    return Finding("tracking", "ok", f"{path}: {runs} runs")


def _http_answers(uri: str, timeout_sec: float) -> Finding:
    parts = urllib.parse.urlsplit(uri)
    name = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    try:
        # The full URI is asked; only its host is shown.
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_sec) as answer:
            return Finding("tracking", "ok", f"{name} answers ({answer.status})")
    except urllib.error.HTTPError as error:
        level: Level = "warn" if error.code in {401, 403} else "bad"
        return Finding("tracking", level, f"{name} answers {error.code} {error.reason}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding("tracking", "bad", f"{name} does not answer: {reason}")
