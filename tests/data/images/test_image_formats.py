"""Formats are known by their first bytes; what is no image has a reason that can be counted."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from pipeline.data.images.image_formats import (
    FORMATS,
    IMAGE_SUFFIXES,
    is_text,
    not_an_image,
    sniff,
    unopened,
)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000"])
def test_what_pillow_writes_is_known(format: str) -> None:
    written = io.BytesIO()
    Image.new("RGB", (9, 9)).save(written, format)
    assert sniff(written.getvalue()[:64]) == format
    assert format in FORMATS


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0hevcmif1", "HEIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "RAW"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", ""),
        (b"II*\0\x10\0\0\0CR\2\0", "RAW"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
        (b"P5\n# a comment\n12 9 255\n", "PPM"),
        (b"P7\nWIDTH 2\n", ""),
        (b"PF\n3 2\n-1.0\n", "PPM"),
        (b"P6 are not 3 words", ""),
        (b"BMW of 1980, and then some more", ""),
        (b"<svg xmlns=''>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><!DOCTYPE svg><svg>", "SVG"),
        (b"<?xml version='1.0'?><rss>", ""),
        (b"RIFF\0\0\0\0WAVEfmt ", ""),
        (b"\0\0\1\0\1\0\x10\x10\0\0", "ICO"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\n\n\n\n a text that begins with empty lines", ""),
        (b"%PDF-1.7", ""),
        (b"", ""),
    ],
)
def test_signatures(head: bytes, format: str) -> None:
    assert sniff(head) == format


@pytest.mark.parametrize(
    ("head", "suffix", "reason"),
    [
        (b"", ".png", "empty file"),
        (b"", ".txt", "empty file"),
        (b"a,b\n1,2\n", ".csv", "not an image"),
        (b"a,b\n1,2\n", ".PNG", "text, not an image"),
        (b"\n<HTML><body>", ".jpg", "a web page, not an image"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", ".jpg", "a web page, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", ".bin", "git-lfs pointer: run git lfs pull"),
        (b"/annex/objects/SHA256E-s1--ab.png\n", ".png", "git-annex pointer: run git annex get"),
        (b"\0" * 200, ".jpg", "unreadable"),
        (b"\1\2\3\xff" * 20, ".jpg", "unreadable"),
        (b"\0\0\2" + b"\0" * 20, ".tga", "format not supported: TGA"),
    ],
)
def test_reasons(head: bytes, suffix: str, reason: str) -> None:
    assert not_an_image(head, suffix).reason == reason


def test_text_may_be_cut_within_a_character() -> None:
    assert is_text("größer".encode()[:3])
    assert not is_text(b"\xff\xfe\0a")


def test_errors_of_the_system() -> None:
    assert unopened(FileNotFoundError(2, "no")).reason == "missing (a broken link?)"
    assert unopened(PermissionError(13, "no")).reason == "no permission to read"
    assert unopened(IsADirectoryError(21, "no")).reason == "a folder, not a file"
    assert unopened(OSError(5, "Input/output error")).detail == "Input/output error"


def test_suffixes_of_images() -> None:
    assert {".jpg", ".heic", ".svg", ".nef"} < IMAGE_SUFFIXES
    assert not {".txt", ".csv", ".gz", ".npz", ""} & IMAGE_SUFFIXES
