"""An append-only log in an object store, which cannot append: a series of immutable segments.

The name of a segment holds its offset in the log, its length, and the start of its SHA-256. This module names
segments and joins them; `pipeline.storage.sync` reads and writes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_NAME = re.compile(r"(\d{15})-(\d{12})-([0-9a-f]{16})")


@dataclass(frozen=True)
class Segment:
    """`length` bytes of a log from byte `offset` on; `sha` is the start of their SHA-256, 16 hex digits."""

    offset: int
    length: int
    sha: str

    @classmethod
    def of(cls, offset: int, data: bytes) -> Segment:
        """The segment that holds `data`."""
        return cls(offset, len(data), hashlib.sha256(data).hexdigest()[:16])

    @classmethod
    def parse(cls, name: str) -> Segment | None:
        """The segment of this name; None if it is the name of something else."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None

    @property
    def name(self) -> str:
        return f"{self.offset:015d}-{self.length:012d}-{self.sha}"

    def matches(self, data: bytes) -> bool:
        """Whether `data` is the content of this segment."""
        return Segment.of(self.offset, data) == self


def join_segments(
    names: Iterable[str], get: Callable[[str], bytes], offset: int = 0
) -> tuple[bytes, list[str]]:
    """Join segments from byte `offset` of the log up to the first byte that is missing or damaged.

    A segment may have been put twice, because the answer to the first put got lost; the second one may be
    longer. Of segments with the same offset the longest undamaged one is used.

    Args:
        names: names of segments in any order; other names are ignored.
        get: returns the content of a name; raises FileNotFoundError if there is none.
        offset: where to begin, in bytes.

    Returns:
        The joined bytes, and the sorted names of the segments that were not used.
    """
    by_offset: dict[int, list[Segment]] = {}
    for segment in filter(None, map(Segment.parse, names)):
        by_offset.setdefault(segment.offset, []).append(segment)
    parts, used = list[bytes](), set[Segment]()
    while found := _longest_intact(by_offset.get(offset, []), get, parts):
        used.add(found)
        offset += found.length
    unused = [segment.name for group in by_offset.values() for segment in group if segment not in used]
    return b"".join(parts), sorted(unused)


def _longest_intact(
    candidates: list[Segment], get: Callable[[str], bytes], parts: list[bytes]
) -> Segment | None:
    """The longest segment whose content is undamaged; the content is added to `parts`."""
    for segment in sorted(candidates, key=lambda s: s.length, reverse=True):
        try:
            data = get(segment.name)
        except FileNotFoundError:
            continue
        if segment.length and segment.matches(data):
            parts.append(data)
            return segment
    return None
