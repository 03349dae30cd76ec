"""Which files are images: by their first bytes, never by their name.

Pillow opens the formats of `FORMATS` and no other (Ghostscript's EPS and the like are never tried). An image
format that is known but not opened is named, so that a user can convert it; text is told from images.
"""

from __future__ import annotations

import re

ARCHIVE = "an archive: unpack it"
_ARCHIVE_SUFFIXES = frozenset(".zip .rar .7z .tar .tgz .gz .bz2 .xz .zst".split())
HEAD_BYTES = 1024
"""So many bytes at the start of a file are looked at."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Formats that are opened. HEIF needs the package pillow-heif, AVIF Pillow 11.3 or newer."""
SUFFIXES = (
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .gif .bmp .dib .webp .tif .tiff .ppm .pgm .pbm .pnm .pfm"
    " .jp2 .j2k .jpx .jpf .avif .heic .heif"
).split()
"""Suffixes of the formats that are opened."""
RAW_SUFFIXES = ".cr2 .cr3 .nef .nrw .arw .sr2 .dng .orf .rw2 .raf .pef .srw .3fr .iiq".split()
OTHER_SUFFIXES = ".svg .psd .exr .dcm .hdr .ico .icns .dds .qoi .jxl .tga .pcx .sgi .xcf .bpg".split()
IMAGE_SUFFIXES = frozenset((*SUFFIXES, *RAW_SUFFIXES, *OTHER_SUFFIXES))
"""Suffixes that promise an image: a file that has one but holds none is unreadable."""

_SIGNATURES = (
    *((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF")),
    *((b"\xff\x4f\xff\x51", "JPEG2000"), (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000")),
    *((b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL")),
    *((b"8BPS", "PSD"), (b"\x76\x2f\x31\x01", "EXR"), (b"#?RADIANCE", "HDR"), (b"#?RGBE", "HDR")),
    *((b"SIMPLE  =", "FITS"), (b"qoif", "QOI"), (b"DDS |", "DDS"), (b"icns", "ICNS"), (b"BPG\xfb", "BPG")),
    *((b"gimp xcf", "XCF"), (b"FUJIFILMCCD-RAW", "RAW"), (b"IIRO", "RAW"), (b"IIU\0", "RAW")),
    *((b"%!PS", "EPS"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"AT&TFORM", "DjVu"), (b"\x89JNG\r\n\x1a\n", "JNG")),
)
_TIFF = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_NETPBM = re.compile(rb"P[1-6](\s+|#[^\r\n]*[\r\n])+\d+(\s+|#[^\r\n]*[\r\n])+\d+\s")
_PFM = re.compile(rb"P[fF]\s+\d+\s+\d+\s+[-+.\deE]+\s")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "RAW", **dict.fromkeys(_HEIF_BRANDS, "HEIF")}


class UnusableImage(Exception):
    """A file that gives no image.

    reason: a few words that are the same for files of one kind, to be counted. detail: what was seen, ""
    where the reason says it all.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def sniff(head: bytes) -> str:
    """The image format of a file by its first bytes (`HEAD_BYTES` say everything): one of `FORMATS`, the name
    of a format that is not opened, as `SVG`, or "" if it is no image.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head.startswith(_TIFF):
        return "RAW" if head[8:10] == b"CR" else "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if _NETPBM.match(head) or _PFM.match(head):
        return "PPM"
    return _weak_signature(head)


def _by_brand(head: bytes) -> str:
    """The format of a file of ISO boxes: by its major brand, else by those it is compatible with."""
    length = min(max(int.from_bytes(head[:4], "big"), 16), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, length, 4))]
    known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return "AVIF" if "AVIF" in known else next(iter(known), "")


def _weak_signature(head: bytes) -> str:
    """Formats whose mark is short or comes late."""
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[344:347] in (b"n+1", b"ni1", b"n+2"):
        return "NIfTI"
    if head[:4] == b"\0\0\1\0" and 0 < int.from_bytes(head[4:6], "little") < 64 and head[9:10] == b"\0":
        return "ICO"
    if head[:2] == b"\x01\xda" and head[2:3] in (b"\0", b"\1") and head[3:4] in (b"\1", b"\2"):
        return "SGI"
    if head[:1] == b"\n" and head[1:2] <= b"\5" and head[2:3] == b"\1" and head[3:4] in (b"\1\2\4\b"):
        return "PCX" if len(head) >= 128 else ""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    xml = text.startswith((b"<?xml", b"<!--", b"<!doctype svg"))
    if text.startswith(b"<svg") or (xml and b"<svg" in text):
        return "SVG"
    return ""


def not_an_image(head: bytes, suffix: str) -> UnusableImage:
    """Why a file that starts with `head`, no image, is unusable; suffix: of its name, as `.png`."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    promised = suffix.lower() in IMAGE_SUFFIXES
    if not head:
        return UnusableImage("empty file")
    if text.startswith(b"version https://git-lfs"):
        return UnusableImage("git-lfs pointer: run git lfs pull")
    if text.startswith((b"/annex/objects/", b".git/annex/objects/", b"../.git/annex/objects/")):
        return UnusableImage("git-annex pointer: run git annex get")
    if suffix.lower() in _ARCHIVE_SUFFIXES:
        return UnusableImage(ARCHIVE)
    if not promised:
        return UnusableImage("not an image")
    if suffix.lower() == ".tga":  # this format begins with no mark
        return UnusableImage("format not supported: TGA", "convert it to PNG")
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<error")):
        return UnusableImage("a web page, not an image")
    if not head.strip(b"\0"):
        return UnusableImage("unreadable", "nothing but zero bytes")
    if is_text(head):
        return UnusableImage("text, not an image")
    return UnusableImage("unreadable", "its content is no known image format")


def is_text(head: bytes) -> bool:
    """Whether bytes are text in UTF-8, perhaps cut within a character."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n\f" for c in text)


def unopened(error: OSError) -> UnusableImage:
    """Why a file that the system does not open is unusable."""
    kinds = {
        FileNotFoundError: "missing (a broken link?)",
        PermissionError: "no permission to read",
        IsADirectoryError: "a folder, not a file",
    }
    return UnusableImage(kinds.get(type(error), "unreadable"), error.strerror or str(error))
