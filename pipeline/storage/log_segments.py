"""A log that only grows, kept in a store that cannot append: as sealed segments, none of them written twice.

Owns: the names of segments, which tell where their bytes belong, how many there are, and the start of their
SHA-256; which of them make up the log. Refuses: reading or writing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_NAME = re.compile(r"(\d{15})-(\d{12})-([0-9a-f]{16})")


@dataclass(frozen=True)
class Segment:
    """`length` bytes of a log from `offset` on."""

    offset: int
    length: int
    sha: str

    @classmethod
    def of(cls, offset: int, data: bytes) -> Segment:
        return cls(offset, len(data), hashlib.sha256(data).hexdigest()[:16])

    @classmethod
    def named(cls, name: str) -> Segment | None:
        """The segment of this name; None where it is the name of something else."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None

    @property
    def name(self) -> str:
        return f"{self.offset:015d}-{self.length:012d}-{self.sha}"

    def holds(self, data: bytes) -> bool:
        """Whether `data` is what was sealed."""
        return Segment.of(self.offset, data) == self


def put_together(
    names: Iterable[str], get: Callable[[str], bytes], offset: int = 0
) -> tuple[bytes, list[str]]:
    """The log from `offset` to the first byte that is missing or damaged, and the segments beside it.

    A segment that was put twice, because its answer got lost, overlaps a longer one: the longest whole one
    counts. get: the bytes behind a name, or FileNotFoundError.
    """
    waiting: dict[int, list[Segment]] = {}
    for segment in filter(None, map(Segment.named, names)):
        waiting.setdefault(segment.offset, []).append(segment)
    parts, used = list[bytes](), set[Segment]()
    while found := _whole(waiting.get(offset, []), get, parts):
        used.add(found)
        offset += found.length
    spare = [segment.name for there in waiting.values() for segment in there if segment not in used]
    return b"".join(parts), sorted(spare)


def _whole(found: list[Segment], get: Callable[[str], bytes], parts: list[bytes]) -> Segment | None:
    """The longest of the segments that is as it was sealed; its bytes are added to `parts`."""
    for segment in sorted(found, key=lambda s: s.length, reverse=True):
        try:
            data = get(segment.name)
        except FileNotFoundError:
            continue
        if segment.length and segment.holds(data):
            parts.append(data)
            return segment
    return None
