"""Files whose format says how long they are, filled to that length where their end is missing."""

from __future__ import annotations

import io
from typing import BinaryIO, Literal

PADDED_FORMATS = ("WEBP", "AVIF", "HEIF", "JPEG2000")
_START_OF_TILE, _END = b"\xff\x90\0\x0a", b"\xff\xd9"


def padded(stream: BinaryIO, format: str, byte: bytes) -> io.BytesIO | None:
    """The file with its missing end as `byte`; None if nothing is missing, or more than there is."""
    if format not in PADDED_FORMATS:
        return None
    stream.seek(0)
    data = stream.read()
    missing = declared_length(data, format) - len(data)
    if not 0 < missing <= len(data):
        return None
    if format == "JPEG2000":
        return io.BytesIO(data + byte * (missing - 2) + _END[-missing:])
    return io.BytesIO(data + byte * missing)


def is_cut(stream: BinaryIO, format: str) -> bool:
    """Whether a file is shorter than it says, or ends before its directory (TIFF)."""
    stream.seek(0)
    data = stream.read()
    if format == "TIFF":
        order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        big = 43 in data[2:4]
        return int.from_bytes(data[8:16] if big else data[4:8], order) >= len(data)
    return format in PADDED_FORMATS and declared_length(data, format) > len(data)


def declared_length(data: bytes, format: str) -> int:
    """How many bytes a file of one of `PADDED_FORMATS` should have; 0 = it does not say."""
    if format == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8
    if format == "JPEG2000":
        tile = data.rfind(_START_OF_TILE)
        length = int.from_bytes(data[tile + 6 : tile + 10], "big")
        return tile + (length or len(data) - tile) + len(_END) if tile > 0 else 0
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8:  # 0: up to the end
            return 0
        at += length
    return at
