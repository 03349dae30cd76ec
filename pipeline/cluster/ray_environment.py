"""The variables that Ray and Tune read, as a sweep needs them, whatever the shell has set."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from pipeline.storage.folders import may_write

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "10",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that is stopped before its first report has none
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see `stop_signals`
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",  # a trial stops at its next step, however long that takes
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's own snapshot is not used
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "1"}
"""What the user may want otherwise."""
_TUNE = ("TUNE_", "RAY_AIR_", "RAY_TRAIN_", "RAY_STORAGE")
"""How the variables begin that change what Tune does with a trial."""
_OF_ANOTHER_RAY = (
    *("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_JOB_CONFIG_JSON_ENV_VAR"),
    *("RAY_RUNTIME_ENV_HOOK", "RAY_OVERRIDE_RESOURCES", "RAY_OVERRIDE_JOB_RUNTIME_ENV"),
)
"""Where another Ray is, which job of it this process is, what it gives to its workers."""


@contextlib.contextmanager
def ray_environment(*, local: bool) -> Iterator[None]:
    """Set the variables for the block, and put the shell's back after it.

    local: Ray is started here: no variable that is meant for another Ray reaches it.
    """
    dropped = [n for n in os.environ if n.startswith(_TUNE) or (local and n in _OF_ANOTHER_RAY)]
    chosen = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
    ours = {**_SETTINGS, **chosen, **(_own_token() if local else {})}
    before = {name: os.environ.pop(name) for name in {*dropped, *ours} if name in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


def _own_token() -> dict[str, str]:
    """A token for Ray where it finds none, and cannot keep a new one in ~/.ray as it does otherwise."""
    if os.environ.get("RAY_AUTH_MODE") == "disabled" or os.environ.get("RAY_AUTH_TOKEN"):
        return {}
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named or "~/.ray/auth_token").expanduser()
    if os.access(file, os.R_OK) or (not named and may_write(file.parent)):
        return {}
    return {"RAY_AUTH_TOKEN": _secret()}


@functools.cache
def _secret() -> str:
    """One for this process: Ray reads its token once."""
    return secrets.token_hex(32)
