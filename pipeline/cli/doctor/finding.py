"""One line of the diagnosis.

Owns: `Finding`. Refuses: making one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    level: ok; warn = a sweep runs, but read this; bad = a sweep fails until it is mended.
    """

    name: str
    level: Level
    text: str
