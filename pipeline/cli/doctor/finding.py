"""`Finding`: the result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. level: warn = a sweep runs, but read this; bad = it fails until repaired."""

    name: str
    level: Level
    text: str
