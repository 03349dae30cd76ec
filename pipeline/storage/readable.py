"""Numbers as texts for people: bytes, durations, numbers that may be unknown."""

from __future__ import annotations

import math


def finite(value: object) -> float | None:
    """`value` if it is a finite number (not a bool), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def number(value: object, form: str = ".4g") -> str:
    """A number in the given format; "-" if it is unknown or not finite."""
    known = finite(value)
    return "-" if known is None else format(known, form)


def short(value: object) -> str:
    """A hyper-parameter or a count in few characters: floats with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def readable_bytes(count: float) -> str:
    """A number of bytes in a unit that reads well: `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def clock(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
