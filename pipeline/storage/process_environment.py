"""The environment of this process and of those that it starts, made fit before a library reads it."""

from __future__ import annotations

import os

from pipeline.errors import ConfigError
from pipeline.storage.home import settle_user
from pipeline.storage.proxies import ask_loopback_directly


def settle_environment() -> None:
    """Make up for what is missing: a home, a user's name, an exception for this machine from the proxies.

    Raises:
        ConfigError: there is no place for a home.
    """
    settle_user()
    ask_loopback_directly()


def check_current_folder() -> None:
    """ConfigError where the current folder was deleted."""
    try:
        os.getcwd()
    except OSError as error:
        seen = os.environ.get("PWD", "it was deleted")
        raise ConfigError("the current folder has gone", seen=seen, fix="cd to one that exists") from error
