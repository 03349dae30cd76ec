"""`Finding`: the result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        level: ok; warn = a sweep runs, but read this; bad = a sweep fails until this is repaired.
        text: what was found, and what to do about it.
    """

    name: str
    level: Level
    text: str
