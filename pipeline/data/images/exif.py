"""Which way up a picture is. Of its EXIF one tag alone is read, and nothing is written back."""

from __future__ import annotations

import re
from typing import Literal

from PIL import Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_SIZES = {1: 1, 3: 2, 4: 4}  # of the types BYTE, SHORT and LONG
_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([0-9])")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8 of an opened picture; 1 = upright, also where the tag is missing or broken.

    XMP is asked where EXIF does not say. A TIFF is 1: Pillow turns it while it reads.
    """
    if image.format == "TIFF":
        return 1
    info = image.info
    found = _from_exif(info.get("exif") or _hex_profile(info.get("Raw profile type exif")))
    if found is None:
        found = _from_xmp(info.get("xmp") or info.get("XML:com.adobe.xmp"))
    return found if found in _TURNS else 1


def turn(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture upright."""
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def _from_exif(exif: object) -> int | None:
    """The tag's value in the first directory of EXIF data; None if there is none."""
    if not isinstance(exif, bytes):
        return None
    tiff = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    if tiff[:2] not in (b"II", b"MM"):
        return None
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    at = int.from_bytes(tiff[4:8], order)
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(tiff[at : at + 2], order), 12):
        if int.from_bytes(tiff[entry : entry + 2], order) == _ORIENTATION:
            size = _SIZES.get(int.from_bytes(tiff[entry + 2 : entry + 4], order), 2)
            return int.from_bytes(tiff[entry + 8 : entry + 8 + size], order)
        if entry > len(tiff):
            break
    return None


def _from_xmp(xmp: object) -> int | None:
    text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    found = _XMP.search(text) if isinstance(text, bytes) else None
    return int(found[1]) if found else None


def _hex_profile(text: object) -> bytes | None:
    """EXIF as ImageMagick writes it into a PNG: a name, a length, and hexadecimal digits."""
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None
