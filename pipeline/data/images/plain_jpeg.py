"""Ordinary JPEGs, decoded straight into an array: a third faster than by way of a picture of Pillow's.

Ordinary is what needs nothing but decoding: grey or YCbCr, no colour profile, no EXIF, and its end is there.
The pixels are those of Pillow, which has the same decoder (libjpeg-turbo).
"""

from __future__ import annotations

from pipeline.data.source_types import Pixels

try:
    import simplejpeg
except ImportError:  # a machine that has torch alone: Pillow decodes
    simplejpeg = None

_END, _SCAN = b"\xff\xd9", 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman-coded
_SPECIAL = (0xE1, 0xE2, 0xEE)  # EXIF or XMP, a profile or several pictures, Adobe's colours
_GREY_OR_COLOUR = (1, 3)


def decode_plain_jpeg(data: bytes, channels: int) -> Pixels | None:
    """An ordinary JPEG as uint8 (H,W,channels), channels = 1 or 3.

    None if it is not ordinary, or broken, or the package simplejpeg is not installed.
    """
    if simplejpeg is None or not _is_plain(data):
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY" if channels == 1 else "RGB")
    except ValueError:
        return None
    return pixels


def _is_plain(data: bytes) -> bool:
    """By the segments before the first scan."""
    if not data.endswith(_END):
        return False
    place, components = 2, 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _SPECIAL:
            return False
        if marker in _FRAMES and place + 9 < len(data):
            components = data[place + 9] if data[place + 4] == 8 else 0
        elif marker == _SCAN:
            return components in _GREY_OR_COLOUR
        place += 2 + length
    return False
