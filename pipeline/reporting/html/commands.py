"""Commands to copy from the page, with this sweep's folder, model and stores."""

from __future__ import annotations

import shlex
from pathlib import Path

from markupsafe import Markup

from pipeline.config import SweepPaths
from pipeline.reporting.history import History
from pipeline.storage.addresses import parse_sqlite

_DEFAULT_STORE = "sqlite:///runs/mlflow.db"


def folder(history: History) -> str:
    """The sweep's folder for a shell: from the current folder if it lies below it."""
    return shlex.quote(_shown(history.root))


def sample(history: History) -> str:
    """Draws from the champion; empty if there is none yet."""
    model = _model(history)
    if not model:
        return ""
    return f"gansweep sample {shlex.quote(model)} -n 64 --out samples.png{_store_flag(history)}"


def load_arguments(history: History) -> Markup:
    """The arguments of `gansweep.load_generator`, escaped but for the quotes; empty if there is no model."""
    model, uri = _model(history), _tracking_uri(history)
    known = [model, *([uri] if _store_flag(history) else [])] if model else []
    quoted = [Markup('"{}"').format(text) for text in known]
    return Markup(", tracking_uri=").join(quoted)


def tools(history: History) -> dict[str, str]:
    """What opens the sweep elsewhere, by what it shows."""
    place, paths = folder(history), SweepPaths(history.root)
    uri = _tracking_uri(history)
    found = {"in MLflow": f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri else ""}
    if uri.startswith(("http://", "https://")):
        found = {"in MLflow": uri}
    if paths.study.is_file():  # otherwise it is in a database
        gallery = f"--artifact-dir {place}/{paths.gallery.name}"
        found["in Optuna"] = f"optuna-dashboard {place}/{paths.study.name} {gallery}"
    found["in words, here"] = f"gansweep explain {place}"
    found["this page again"] = f"gansweep report {place}"
    return {name: command for name, command in found.items() if command}


def _model(history: History) -> str:
    registered = history.summary.registered if history.summary else None
    if registered:
        return registered.model
    return _shown(history.root) if SweepPaths(history.root).packed.is_dir() else ""


def _store_flag(history: History) -> str:
    uri, registered = _tracking_uri(history), history.summary and history.summary.registered
    return f" --tracking-uri {shlex.quote(uri)}" if registered and uri not in ("", _DEFAULT_STORE) else ""


def _tracking_uri(history: History) -> str:
    """The sweep's store; the path of an sqlite file as `folder` shows one."""
    registry = history.stored.get("registry")
    uri = str(registry.get("tracking_uri", "")) if isinstance(registry, dict) else ""
    address = parse_sqlite(uri)
    return str(address.at(_shown(history.root / address.path))) if address else uri


def _shown(path: Path) -> str:
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)
