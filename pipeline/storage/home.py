"""What stands in for the home folder and the name of a user who has none, as in many a container."""

from __future__ import annotations

import getpass
import logging
import os
import stat
import tempfile
from pathlib import Path

from pipeline.errors import ConfigError

log = logging.getLogger(__name__)


def settle_user() -> None:
    """Set HOME and USER of this process, and of those that it starts, where the user has none of them.

    Ray, MLflow and torch ask for both when they are imported.

    Raises:
        ConfigError: see `private_folder`.
    """
    if not os.path.isabs(os.environ.get("HOME", "/")):  # empty, or relative: the passwd entry counts
        del os.environ["HOME"]
    if not _has_home():
        os.environ["HOME"] = str(private_folder())
        log.warning(
            f"this user has no home folder: {os.environ['HOME']} stands in for it (HOME names another)"
        )
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid-{os.getuid()}"


def _has_home() -> bool:
    """Whether there is a home; one of another user, as `sudo -u` may leave it in HOME, is none."""
    try:
        home = Path.home()
    except RuntimeError:
        return False
    return not os.path.isdir(home) or os.access(home, os.X_OK)


def private_folder() -> Path:
    """A folder of this user's alone below the temporary folder; made where it is missing.

    Raises:
        ConfigError: it belongs to somebody else, or cannot be made.
    """
    name = f"gansweep-{os.getuid()}"
    try:
        folder = Path(tempfile.gettempdir()) / name
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            folder.chmod(0o700)
            return folder
        seen = f"{folder}: not a folder of this user's own"
    except OSError as error:
        seen = f"{error.filename or name}: {error.strerror}"
    raise ConfigError("there is no folder for caches", seen=seen, fix="export GANSWEEP_CACHE=FOLDER and HOME")
