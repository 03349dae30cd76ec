"""What a sweep remembers: a log on disk, and its shipping to MLflow in the background.

Owns: `Spool` (append-only JSON lines, the truth), `Shipper` (a thread that tails the spool into one MLflow
run per sweep and one per trial), the checks and defaults of a tracking URI, provenance.
Refuses: choosing the best; letting a tracking outage reach the search. Needs no Ray.
"""

from __future__ import annotations

import os

# MLflow reads these when it is first used; whoever set them already keeps their value. Its default of seven
# retries blocks for minutes per call, and `Shipper.close` would wait for them.
for _name, _value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # also quiets alembic
}.items():
    os.environ.setdefault(_name, _value)

from pipeline.tracker.origin import provenance  # noqa: E402
from pipeline.tracker.progress import unshipped  # noqa: E402
from pipeline.tracker.shipper import Shipper, Status  # noqa: E402
from pipeline.tracker.spool import Spool, read_events  # noqa: E402
from pipeline.tracker.store import (  # noqa: E402
    check_server,
    default_artifacts,
    default_uri,
    ensure_experiment,
    first_line,
    make_folder,
    redact,
)

__all__ = [
    "Shipper",
    "Spool",
    "Status",
    "check_server",
    "default_artifacts",
    "default_uri",
    "ensure_experiment",
    "first_line",
    "make_folder",
    "provenance",
    "read_events",
    "redact",
    "unshipped",
]
