"""What a sweep reports to MLflow, by way of an event log on disk, and the model registry.

MLflow reads the variables below when it is imported or first used, so they are set before any module of this
package imports it; values that are set already are kept. MLflow's default of seven retries blocks every call
for minutes while a server is away, and `MlflowExporter.close` would wait for them.
It wants a home folder too.
"""

import contextlib
import os

from pipeline.errors import ConfigError
from pipeline.storage.process_environment import settle_environment

with contextlib.suppress(ConfigError):  # the command says it in its own time
    settle_environment()
for _name, _value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # also of alembic
}.items():
    os.environ.setdefault(_name, _value)
