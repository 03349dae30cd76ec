"""The chunks of a PNG that matter, where Pillow refuses others: much text, huge profiles, wrong checksums."""

from __future__ import annotations

import io
import re
import zlib
from typing import BinaryIO

_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"sRGB", b"eXIf")
_TEXT = (b"tEXt", b"iTXt")
_MAX_TEXT = 64 * 1024
_ORIENTATION = re.compile(rb"tiff:Orientation")


def essential_chunks(stream: BinaryIO) -> io.BytesIO:
    """A PNG without what is said beside its pixels, with right checksums; a cut end stays cut.

    Short plain texts stay, as does text that turns the picture.
    """
    stream.seek(0)
    data = stream.read()
    kept, at = [data[:8]], 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind in _KEPT or _is_kept_text(kind, body):
            checksum = zlib.crc32(kind + body).to_bytes(4, "big") if at + 12 + length <= len(data) else b""
            kept.append(data[at : at + 8] + body + checksum)
        at += 12 + length
    return io.BytesIO(b"".join(kept))


def _is_kept_text(kind: bytes, body: bytes) -> bool:
    if kind not in _TEXT or len(body) > _MAX_TEXT:
        return False
    return kind == b"tEXt" or bool(_ORIENTATION.search(body))
