"""Order of names as a person counts: `class2` before `class10`."""

from __future__ import annotations

import re
import unicodedata

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[object, ...]:
    """Sorts names folder by folder: runs of 0-9 by their number, the rest by its letters whatever the case.

    Names that differ only in case or in leading zeros keep one order, too.
    """
    return (*(_part_key(part) for part in name.split("/")), name)


def _part_key(part: str) -> tuple[object, ...]:
    chunks = _DIGITS.split(unicodedata.normalize("NFC", part).casefold())
    # Texts and numbers alternate. Numbers compare by length, then as text: int() refuses very long ones.
    return tuple(
        (len(chunk.lstrip("0")), chunk.lstrip("0")) if i % 2 else chunk for i, chunk in enumerate(chunks)
    )
