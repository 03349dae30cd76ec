"""Numbers as texts for people: bytes, durations, numbers that may be unknown."""

from __future__ import annotations

import math


def finite(value: object) -> float | None:
    """`value` if it is a finite number (not a bool), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def readable_number(value: object, form: str = ".4g") -> str:
    """A number in the given format; "-" if it is unknown or not finite."""
    known = finite(value)
    return "-" if known is None else format(known, form)


def short_number(value: object) -> str:
    """A hyper-parameter or a count in few characters: floats with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def readable_percent(share: float, *, whole: bool = False) -> str:
    """A share from 0 to 1 in per cent: `62 %`, `3.4 %`; whole: no digits behind the point."""
    percent = 100 * share
    return f"{percent:.0f} %" if whole or percent >= 9.95 else f"{percent:.2g} %"


def readable_bytes(count: float) -> str:
    """A number of bytes on a disk: `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def readable_memory(count: float) -> str:
    """A number of bytes in memory: `1.21 GiB`."""
    gib = count / 2**30
    return f"{gib:.3g} GiB" if gib < 100 else f"{gib:.1f} GiB"


def readable_duration(seconds: float) -> str:
    """About how long something takes: `45 s`, `12 min`, `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
