"""Order of names as a person counts: `class2` before `class10`."""

from __future__ import annotations

import functools
import re
import unicodedata

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[object, ...]:
    """Sorts names folder by folder: runs of 0-9 by their number, the rest by its letters whatever the case.

    Names that differ only in case or in leading zeros keep one order, too.
    """
    return tuple(_part_key(part) for part in name.split("/")), name


@functools.lru_cache(4096)  # most names share their folders with the name before
def _part_key(part: str) -> tuple[object, ...]:
    folded = part.casefold() if part.isascii() else unicodedata.normalize("NFC", part).casefold()
    chunks: list[object] = list(_DIGITS.split(folded))
    # Texts and numbers alternate. Numbers compare by length, then as text: int() refuses very long ones.
    for i in range(1, len(chunks), 2):
        digits = str(chunks[i]).lstrip("0")
        chunks[i] = len(digits), digits
    return tuple(chunks)
