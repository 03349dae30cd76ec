"""An append-only log in an object store, which cannot append: a series of immutable segments.

The name of a segment holds its offset in the log, its length, and the start of its SHA-256. This module names
segments and joins them; `pipeline.storage.sync` reads and writes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
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


def join_segments(contents: Mapping[str, bytes], offset: int = 0) -> tuple[bytes, list[str]]:
    """Join segments from byte `offset` of the log up to the first byte that is missing or damaged.

    A segment may have been put twice, because the answer to the first put got lost; the second one may be
    longer. Of segments with the same offset the longest undamaged one is used.

    contents: bytes by name; names of other things are ignored. Returns the joined bytes, and the sorted names
    of the segments that were not used.
    """
    segments = {name: segment for name in contents if (segment := Segment.parse(name))}
    longest: dict[int, Segment] = {}
    for segment in sorted(segments.values(), key=lambda each: each.length):
        if segment.length and segment == Segment.of(segment.offset, contents[segment.name]):
            longest[segment.offset] = segment
    parts, used = list[bytes](), set[str]()
    while found := longest.get(offset):
        parts.append(contents[found.name])
        used.add(found.name)
        offset += found.length
    return b"".join(parts), sorted(segments.keys() - used)
