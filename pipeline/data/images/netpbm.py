"""PGM and PPM of more than 8 bits, and PFM: Pillow keeps 8 bits of the colours, and is slow."""

from __future__ import annotations

import re
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.data.images.image_formats import UnusableImage

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"(P[2356fF])" + rb"".join(_SPACE + rb"([-+.\deE]+)" for _ in range(3)) + rb"\s")


class NetpbmHeader(NamedTuple):
    """kind: the first two bytes. top: the value of white; of PFM, negative means little-endian."""

    kind: bytes
    width: int
    height: int
    top: float
    length: int

    @property
    def channels(self) -> int:
        return 3 if self.kind in (b"P3", b"P6", b"PF") else 1

    @property
    def wide(self) -> str:
        """The kind of its values, "" for 8 bits."""
        return "float" if self.kind in (b"Pf", b"PF") else "16-bit" if self.top > 255 else ""


def read_netpbm_header(stream: BinaryIO) -> NetpbmHeader | None:
    """The header of a netpbm file of grey, colour or floating-point values; None for any other."""
    stream.seek(0)
    found = _HEADER.match(stream.read(2048))
    if not found:
        return None
    try:
        width, height, top = int(found[2]), int(found[3]), float(found[4])
    except ValueError:
        return None
    return NetpbmHeader(found[1], width, height, top, found.end())


def read_netpbm(stream: BinaryIO, header: NetpbmHeader) -> npt.NDArray[np.float32]:
    """The values of a wide file: float32 (H,W) or (H,W,3); 16-bit ones in 0..65535, whatever white is.

    Raises:
        UnusableImage: `truncated`.
    """
    stream.seek(header.length)
    body = stream.read()
    shape = (header.height, header.width, header.channels)
    count = header.height * header.width * header.channels
    if header.kind in (b"P2", b"P3"):
        values = np.array(re.sub(rb"#[^\r\n]*", b"", body).split()[:count], np.float32)
    else:
        kind = ">u2" if header.wide == "16-bit" else "<f4" if header.top < 0 else ">f4"
        values = np.frombuffer(body[: len(body) // 2 * 2 if kind == ">u2" else len(body) // 4 * 4], kind)[
            :count
        ]
    if len(values) < count:
        raise UnusableImage("truncated", f"{len(values)} of {count} values")
    values = values.astype(np.float32).reshape(shape)
    values = values[::-1] if header.wide == "float" else values / np.float32(header.top) * np.float32(65535)
    return values[:, :, 0] if header.channels == 1 else values
