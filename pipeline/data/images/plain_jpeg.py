"""Ordinary JPEGs, decoded straight into an array: a third faster than by way of a picture of Pillow's.

Ordinary is what needs nothing but decoding: grey or YCbCr, no colour profile, no EXIF, and its end is there.
The pixels are those of Pillow, which has the same decoder (libjpeg-turbo).
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.data.source_types import Pixels

try:
    import simplejpeg
except ImportError:  # a machine that has torch alone: Pillow decodes
    simplejpeg = None

_END, _SCAN = b"\xff\xd9", 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman-coded
_SPECIAL = (0xE1, 0xE2, 0xEE)  # EXIF or XMP, a profile or several pictures, Adobe's colours


class PlainJpeg(NamedTuple):
    """What the head of an ordinary JPEG says: sides in pixels; components: 1 (grey) or 3."""

    width: int
    height: int
    components: int


def decode_plain_jpeg(data: bytes, channels: int) -> Pixels | None:
    """An ordinary JPEG as uint8 (H,W,channels), channels = 1 or 3.

    None if it is not ordinary, or broken, or the package simplejpeg is not installed.
    """
    if simplejpeg is None or not data.endswith(_END) or plain_jpeg_head(data) is None:
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY" if channels == 1 else "RGB")
    except ValueError:
        return None
    return pixels


def plain_jpeg_head(data: bytes) -> PlainJpeg | None:
    """The head of an ordinary JPEG, from its first bytes; None if it is not ordinary, or they are too few."""
    place, found = 2, None
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _SPECIAL:
            return None
        if marker in _FRAMES and place + 9 < len(data):
            bits, components = data[place + 4], data[place + 9]
            height, width = (int.from_bytes(data[place + i : place + i + 2], "big") for i in (5, 7))
            if bits != 8 or components not in (1, 3) or not width or not height:
                return None
            found = PlainJpeg(width, height, components)
        if marker == _SCAN:
            return found
        place += 2 + length
    return None
