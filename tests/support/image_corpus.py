"""Odd image files, each with its right answer.

`python tests/support/image_corpus.py FOLDER` writes them and prints a table. Most show four quarters of 24x16
pixels: red and green above blue and yellow, or four greys. They are made anew each time, the same bytes with
the same versions of the packages.
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from odd_parts import (
    BLUE,
    COLOUR,
    COLOURS,
    GREEN,
    GREY,
    GREYS,
    HALF,
    HALF_SEEN,
    HEIGHT,
    PLACES,
    RED,
    SHADES,
    TALL,
    TRUNCATED,
    TWELVE,
    TWELVE_RGB,
    WIDE_GREYS,
    WIDTH,
    YELLOW,
    Odd,
    animation,
    checks,
    chunk,
    cut,
    exchanged,
    exif,
    from_linear,
    grey_inks,
    heif,
    later_frame,
    linear_grey,
    noisy,
    over,
    palette,
    palette_without_its_first,
    pfm,
    photo,
    plain_tiff,
    premultiplied,
    pyramid,
    quarters,
    saved,
    small_grey_png,
    srgb,
    texts,
    tiff,
    wide_png,
    wide_rgb,
    with_alpha,
    with_chunk,
    xmp,
)
from PIL import Image, ImageCms, features


def colour_files() -> list[Odd]:
    """Modes, profiles and transparency with 8 bits a channel."""
    lab = ImageCms.applyTransform(
        COLOUR,
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    reds = {**COLOURS, PLACES[0]: GREEN, PLACES[1]: RED}
    linear = {place: round(255 * from_linear(value / 255)) for place, value in SHADES.items()}
    grey_alpha = Image.merge("LA", (GREY, Image.fromarray(quarters((255, 0, 255, 255)))))
    quarter = {**SHADES, PLACES[1]: 255}
    mixed = over((RED, GREEN, BLUE, YELLOW), (128,) * 4)
    pale = {place: tuple(round((c * 128 + 255 * 127) / 255) for c in v) for place, v in COLOURS.items()}
    profiled = {"notes": ("colour profile",), "near": 6}
    return [
        Odd("plain.jpg", "a photo", photo, COLOURS, near=4),
        Odd("grey.jpg", "a grey photo", lambda: photo(GREY, subsampling=-1), SHADES, near=3),
        Odd("progressive.jpg", "progressive", lambda: photo(progressive=True), COLOURS, near=4),
        Odd("plain.dat", "a PNG without its suffix", lambda: saved(COLOUR, "PNG"), COLOURS),
        Odd("jpeg.png", "a JPEG called .png", photo, COLOURS, near=4),
        Odd(
            "cmyk.jpg",
            "CMYK without a profile",
            lambda: photo(COLOUR.convert("CMYK"), subsampling=-1),
            COLOURS,
            near=6,
            notes=("CMYK",),
        ),
        Odd(
            "inks.jpg",
            "CMYK with a profile of grey inks",
            lambda: photo(
                Image.new("CMYK", (WIDTH, HEIGHT), (0, 0, 0, 255)), icc_profile=grey_inks(), subsampling=-1
            ),
            dict.fromkeys(PLACES, (0, 0, 0)),
            near=6,
            notes=("CMYK", "colour profile"),
        ),
        Odd("cmyk.tif", "CMYK TIFF", lambda: saved(COLOUR.convert("CMYK"), "TIFF"), COLOURS, notes=("CMYK",)),
        Odd("lab.tif", "CIE Lab", lambda: saved(lab, "TIFF"), COLOURS, near=16, notes=("LAB",)),
        Odd("ycbcr.tif", "YCbCr TIFF", lambda: saved(COLOUR.convert("YCbCr"), "TIFF"), COLOURS, near=4),
        Odd("srgb.png", "a profile that is sRGB", lambda: saved(COLOUR, "PNG", icc_profile=srgb()), COLOURS),
        Odd(
            "exchanged.png",
            "a profile with red and green exchanged",
            lambda: saved(COLOUR, "PNG", icc_profile=exchanged()),
            reds,
            **profiled,
        ),
        Odd(
            "exchanged.jpg",
            "the same in a JPEG",
            lambda: photo(icc_profile=exchanged()),
            reds,
            notes=("colour profile",),
            near=10,
        ),
        Odd(
            "linear.png",
            "a grey profile, linear",
            lambda: saved(GREY, "PNG", icc_profile=linear_grey()),
            linear,
            **profiled,
        ),
        Odd(
            "bad-profile.jpg",
            "a profile of nonsense",
            lambda: photo(icc_profile=b"nonsense" * 40),
            COLOURS,
            near=4,
            notes=("colour profile ignored",),
        ),
        Odd(
            "other-profile.jpg",
            "a grey photo with a colour profile",
            lambda: photo(GREY, subsampling=-1, icc_profile=exchanged()),
            SHADES,
            near=3,
            notes=("colour profile ignored",),
        ),
        Odd(
            "huge-profile.png",
            "a profile of 3 MB",
            lambda: with_chunk(
                saved(COLOUR, "PNG"), chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * 3_000_000))
            ),
            COLOURS,
        ),
        Odd("alpha.png", "transparent quarters", lambda: saved(HALF_SEEN, "PNG"), HALF),
        Odd("half-seen.png", "half transparent", lambda: saved(mixed, "PNG"), pale),
        Odd(
            "nothing.png",
            "all transparent",
            lambda: saved(over((RED,) * 4, (0,) * 4), "PNG"),
            dict.fromkeys(PLACES, (255, 255, 255)),
        ),
        Odd("grey-alpha.png", "grey with alpha", lambda: saved(grey_alpha, "PNG"), quarter),
        Odd("alpha.webp", "WebP with alpha", lambda: saved(HALF_SEEN, "WEBP", lossless=True), HALF),
        Odd("alpha.tif", "TIFF with alpha", lambda: saved(HALF_SEEN, "TIFF"), HALF),
        Odd("premultiplied.tif", "alpha already applied", premultiplied, pale, near=3, needs="tifffile"),
        Odd("palette.png", "a palette", palette, COLOURS),
        Odd(
            "palette-key.png",
            "a palette with one transparent colour",
            palette_without_its_first,
            {**COLOURS, PLACES[1]: (255, 255, 255)},
        ),
        Odd("palette-alpha.png", "a palette with alpha", lambda: palette(bytes([128] * 8)), pale),
        Odd(
            "key.png",
            "one transparent colour",
            lambda: saved(COLOUR, "PNG", transparency=RED),
            {**COLOURS, PLACES[0]: (255, 255, 255)},
        ),
        Odd("grey-key.png", "one transparent grey", lambda: saved(GREY, "PNG", transparency=90), quarter),
        Odd("bits1.png", "1 bit", lambda: small_grey_png(1), checks()),
        Odd("bits2.png", "2 bits", lambda: small_grey_png(2), checks()),
        Odd("bits4.png", "4 bits", lambda: small_grey_png(4), checks()),
        Odd(
            "bits2-key.png",
            "2 bits, black is transparent",
            lambda: small_grey_png(2, chunk(b"tRNS", b"\0\0")),
            dict.fromkeys(PLACES, 255),
        ),
        Odd(
            "bits1.tif",
            "fax, white is 0",
            lambda: saved(GREY.point(lambda v: 255 * (v > 100), "1"), "TIFF", compression="group4"),
            dict(zip(PLACES, (0, 0, 255, 255), strict=True)),
        ),
        Odd(
            "inverted.tif",
            "8 bits, white is 0",
            lambda: plain_tiff(255 - np.asarray(GREY), photometric=0),
            SHADES,
        ),
        Odd(
            "plain.ppm",
            "text PPM",
            lambda: b"P3 # a comment\n2 1 255\n 200 30 30  30 200 30\n",
            {(0, 0): RED, (1, 0): GREEN},
            size=(2, 1),
        ),
        Odd(
            "few.pgm",
            "PGM up to 100",
            lambda: b"P5 48 32 100\n" + (quarters((0, 50, 100, 20))).tobytes(),
            dict(zip(PLACES, (0, 128, 255, 51), strict=True)),
        ),
        Odd("colour.bmp", "BMP", lambda: saved(COLOUR, "BMP"), COLOURS),
        Odd("colour.jp2", "JPEG 2000", lambda: saved(COLOUR, "JPEG2000"), COLOURS),
        Odd("colour.avif", "AVIF", lambda: saved(COLOUR, "AVIF", quality=95), COLOURS, near=8, needs="avif"),
        Odd("colour.heic", "HEIC", lambda: heif(COLOUR), COLOURS, near=8, needs="pillow_heif"),
        Odd(
            "thin.png",
            "one pixel high",
            lambda: saved(COLOUR.crop((0, 8, 48, 9)), "PNG"),
            {(12, 0): RED, (36, 0): GREEN},
            size=(48, 1),
        ),
    ]


def wide_files() -> list[Odd]:
    """More than 8 bits a channel."""
    greys = quarters(WIDE_GREYS, np.uint16)
    floats = quarters(tuple(v / 255 for v in GREYS), np.float32)
    bad = floats.copy()
    bad[0, 0], bad[0, 1], bad[31, 47] = np.nan, np.inf, -np.inf
    signed = quarters(tuple(v * 10 - 1000 for v in GREYS), np.int16)
    signed_range = {"wide": "signed", "value_range": (-1000.0, 1550.0), "pixels": SHADES}
    unit = {"wide": "float", "value_range": (0.0, 1.0), "pixels": SHADES}
    keyed = chunk(b"tRNS", struct.pack(">H", WIDE_GREYS[1]))
    return [
        Odd("grey12.png", "12 bits in 16", lambda: saved(Image.fromarray(greys), "PNG"), **TWELVE),
        Odd(
            "grey12-key.png",
            "the same, one grey transparent",
            lambda: wide_png(greys, 0, keyed),
            **{**TWELVE, "pixels": {**SHADES, PLACES[1]: 255}},
        ),
        Odd(
            "grey12-alpha.png",
            "16-bit grey with alpha",
            lambda: wide_png(with_alpha(greys), 4),
            **{**TWELVE, "pixels": {**SHADES, PLACES[1]: 255}},
        ),
        Odd("rgb12.png", "12-bit colours in 16", lambda: wide_png(wide_rgb(), 2), **TWELVE_RGB),
        Odd(
            "rgb16.png",
            "16-bit colours",
            lambda: wide_png(wide_rgb(257), 2),
            COLOURS,
            wide="16-bit",
            value_range=(0.0, 65535.0),
        ),
        Odd(
            "rgba12.png",
            "12-bit colours with alpha",
            lambda: wide_png(with_alpha(wide_rgb()), 6),
            **{**TWELVE_RGB, "pixels": {**COLOURS, PLACES[1]: (255, 255, 255)}},
        ),
        Odd("grey12.tif", "12 bits in 16", lambda: saved(Image.fromarray(greys), "TIFF"), **TWELVE),
        Odd(
            "grey12-lzw.tif",
            "compressed",
            lambda: saved(Image.fromarray(greys), "TIFF", compression="tiff_lzw"),
            **TWELVE,
        ),
        Odd("grey12-big.tif", "big-endian", lambda: plain_tiff(greys, order=">"), **TWELVE),
        Odd(
            "grey12-inverted.tif",
            "white is 0",
            lambda: plain_tiff(4080 - greys, photometric=0),
            SHADES,
            wide="16-bit",
            value_range=(61455.0, 65535.0),
        ),
        Odd(
            "grey32.tif",
            "32 bits, no sign",
            lambda: plain_tiff(greys.astype(np.uint32) << 19),
            SHADES,
            wide="32-bit",
            value_range=(0.0, 4080.0 * 2**19),
        ),
        Odd("signed16.tif", "signed, 16 bits", lambda: plain_tiff(signed, signed=2), **signed_range),
        Odd(
            "signed32.tif",
            "signed, 32 bits",
            lambda: plain_tiff(signed.astype(np.int32), signed=2),
            **signed_range,
        ),
        Odd(
            "signed8.tif",
            "signed, 8 bits",
            lambda: plain_tiff((np.asarray(GREY).astype(int) - 128).astype(np.int8), signed=2),
            SHADES,
            wide="signed",
            value_range=(-128.0, 127.0),
        ),
        Odd("float.tif", "floating point", lambda: saved(Image.fromarray(floats), "TIFF"), **unit),
        Odd(
            "float-nan.tif",
            "NaN and infinities",
            lambda: saved(Image.fromarray(bad), "TIFF"),
            **{**unit, "pixels": {**SHADES, (0, 0): 0}},
        ),
        Odd("float64.tif", "64 bits", lambda: tiff(floats.astype(np.float64)), needs="tifffile", **unit),
        Odd("float16.tif", "16 bits", lambda: tiff(floats.astype(np.float16)), needs="tifffile", **unit),
        Odd(
            "rgb12.tif",
            "12-bit colours in 16",
            lambda: tiff(wide_rgb(), photometric="rgb"),
            needs="tifffile",
            **TWELVE_RGB,
        ),
        Odd(
            "rgb12-deflate.tif",
            "compressed",
            lambda: tiff(wide_rgb(), photometric="rgb", compression="zlib"),
            needs="tifffile",
            **TWELVE_RGB,
        ),
        Odd(
            "rgb12-big.tif",
            "big-endian",
            lambda: tiff(wide_rgb(), photometric="rgb", byteorder=">"),
            needs="tifffile",
            **TWELVE_RGB,
        ),
        Odd(
            "planes.tif",
            "one colour after the other",
            lambda: tiff(wide_rgb().transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
            needs="tifffile",
            **TWELVE_RGB,
        ),
        Odd(
            "grey12.pgm",
            "PGM up to 4095",
            lambda: b"P5\n48 32\n4095\n" + greys.astype(">u2").tobytes(),
            SHADES,
            wide="16-bit",
            value_range=(0.0, 65535.0),
        ),
        Odd(
            "rgb12.ppm",
            "PPM of 16 bits",
            lambda: b"P6\n48 32\n65535\n" + wide_rgb().astype(">u2").tobytes(),
            **TWELVE_RGB,
        ),
        Odd(
            "text12.pgm",
            "text PGM up to 4000",
            lambda: b"P2\n2 1\n# white is 4000\n4000\n0 4000\n",
            {(0, 0): 0, (1, 0): 255},
            size=(2, 1),
            wide="16-bit",
            value_range=(0.0, 65535.0),
        ),
        Odd("grey.pfm", "PFM", lambda: pfm(floats), **unit),
        Odd("rgb.pfm", "PFM in colour", lambda: pfm(np.asarray(COLOUR) / 255), **{**unit, "pixels": COLOURS}),
        Odd(
            "grey16.jp2", "JPEG 2000 of 16 bits", lambda: saved(Image.fromarray(greys), "JPEG2000"), **TWELVE
        ),
    ]


def turned_files() -> list[Odd]:
    """Which way up; stacks and animations."""
    mpo = (
        photo()
        if not features.check("jpg")
        else saved(
            COLOUR, "MPO", save_all=True, quality=95, subsampling=0, append_images=[COLOUR.resize((12, 8))]
        )
    )
    yellow = later_frame()
    small = COLOUR.resize((24, 16))
    return [
        Odd("turned.jpg", "orientation 6", lambda: photo(TALL, exif=exif(6)), COLOURS, near=4),
        Odd(
            "turned-broken.jpg",
            "orientation 6 in broken EXIF",
            lambda: photo(TALL, exif=exif(6, broken=True)),
            COLOURS,
            near=4,
        ),
        Odd(
            "turned-big.jpg", "big-endian EXIF", lambda: photo(TALL, exif=exif(6, order=">")), COLOURS, near=4
        ),
        Odd("orientation0.jpg", "orientation 0", lambda: photo(exif=exif(0)), COLOURS, near=4),
        Odd("orientation9.jpg", "orientation 9", lambda: photo(exif=exif(9)), COLOURS, near=4),
        Odd("cut-exif.jpg", "EXIF that is cut", lambda: photo(exif=exif(6)[:15]), COLOURS, near=4),
        Odd("xmp.jpg", "orientation in XMP", lambda: photo(TALL, xmp=xmp(6)), COLOURS, near=4),
        Odd(
            "mirrored.png",
            "orientation 2",
            lambda: saved(COLOUR.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG", exif=exif(2)),
            COLOURS,
        ),
        Odd(
            "turned.webp", "orientation 6", lambda: saved(TALL, "WEBP", lossless=True, exif=exif(6)), COLOURS
        ),
        Odd("turned.tif", "orientation 6", lambda: saved(TALL, "TIFF", tiffinfo={274: 6}), COLOURS),
        Odd(
            "turned.avif",
            "orientation 6",
            lambda: saved(TALL, "AVIF", quality=95, exif=exif(6)),
            COLOURS,
            near=8,
            needs="avif",
        ),
        Odd(
            "turned12.png",
            "12 bits, orientation 6",
            lambda: with_chunk(
                saved(Image.fromarray(np.rot90(quarters(WIDE_GREYS, np.uint16)).copy()), "PNG"),
                chunk(b"eXIf", exif(6)[6:]),
            ),
            **TWELVE,
        ),
        Odd(
            "animated.gif",
            "GIF, second frame in part",
            lambda: animation("GIF"),
            yellow,
            frames=2,
            frame=1,
            near=8,
        ),
        Odd(
            "disposed.gif",
            "GIF that clears",
            lambda: animation("GIF", disposal=2),
            yellow,
            frames=2,
            frame=1,
            near=8,
        ),
        Odd("animated.png", "APNG", lambda: animation("PNG"), yellow, frames=2, frame=1),
        Odd("animated.webp", "WebP", lambda: animation("WEBP", lossless=True), yellow, frames=2, frame=1),
        Odd(
            "animated.avif",
            "AVIF",
            lambda: animation("AVIF", quality=95),
            yellow,
            frames=2,
            frame=1,
            near=10,
            needs="avif",
        ),
        Odd("pages.tif", "two pages", lambda: animation("TIFF"), yellow, frames=2, frame=1),
        Odd("pyramid.tif", "a page and its smaller copy", lambda: pyramid(small), COLOURS, needs="tifffile"),
        Odd("phone.jpg", "MPO: a photo and its thumbnail", lambda: mpo, COLOURS, near=4),
    ]


def broken_files() -> list[Odd]:
    """Ends that are missing, text, and what is no image."""
    png_data, noise = saved(COLOUR, "PNG"), saved(noisy(), "PNG")
    turned_checksum = png_data[:29] + b"\0\0\0\0" + png_data[33:]
    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", huge) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    nan = Image.fromarray(np.full((HEIGHT, WIDTH), np.nan, np.float32))
    lost = {"reason": "truncated"}
    short = {"notes": TRUNCATED, "pixels": COLOURS}
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    return [
        Odd("no-end.jpg", "no end marker", lambda: photo()[:-2], near=4, **short),
        Odd("short.jpg", "97 % of a photo", lambda: cut(photo(noisy()), 0.97), near=12, **short),
        Odd(
            "short-progressive.jpg",
            "90 % of a progressive photo",
            lambda: cut(photo(noisy(), progressive=True), 0.9),
            near=12,
            **short,
        ),
        Odd("half.jpg", "half a photo", lambda: cut(photo(noisy()), 0.5), **lost),
        Odd(
            "half-progressive.jpg",
            "40 % of a progressive photo",
            lambda: cut(photo(noisy(), progressive=True), 0.4),
            **lost,
        ),
        Odd("no-end.png", "no end chunk", lambda: png_data[:-12], COLOURS),
        Odd("short.png", "97 % of a PNG", lambda: cut(noise, 0.97), near=4, **short),
        Odd("half.png", "half a PNG", lambda: cut(noise, 0.5), **lost),
        Odd("short.bmp", "97 % of a BMP", lambda: cut(saved(COLOUR, "BMP"), 0.97), **short),
        Odd("half.bmp", "half a BMP", lambda: cut(saved(COLOUR, "BMP"), 0.5), **lost),
        Odd("short.gif", "97 % of a GIF", lambda: cut(saved(noisy(), "GIF"), 0.97), near=12, **short),
        Odd("half.gif", "half a GIF", lambda: cut(saved(noisy(), "GIF"), 0.5), **lost),
        Odd(
            "short.webp",
            "a WebP that lacks 4 bytes",
            lambda: saved(noisy(4), "WEBP", quality=90)[:-4],
            {(x * 4, y * 4): value for (x, y), value in COLOURS.items()},
            (192, 128),
            near=14,
            notes=TRUNCATED,
        ),
        Odd("half.webp", "half a WebP", lambda: cut(saved(noisy(), "WEBP", quality=90), 0.5), **lost),
        Odd("short.ppm", "97 % of a PPM", lambda: cut(saved(COLOUR, "PPM"), 0.97), **short),
        Odd("no-end.jp2", "JPEG 2000 without its end", lambda: saved(COLOUR, "JPEG2000")[:-2], **short),
        Odd(
            "half.avif",
            "half an AVIF",
            lambda: cut(saved(noisy(), "AVIF", quality=90), 0.5),
            needs="avif",
            **lost,
        ),
        Odd("text.png", "2 MB of text", texts, COLOURS),
        Odd("text-after.png", "2 MB of text after the pixels", lambda: texts(last=True), COLOURS),
        Odd(
            "itxt.png",
            "2 MB of international text",
            lambda: with_chunk(png_data, chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000))),
            COLOURS,
        ),
        Odd(
            "many-texts.png",
            "80 MB of texts in all",
            lambda: with_chunk(png_data, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 1_000_000)) * 80),
            COLOURS,
        ),
        Odd("checksum.png", "a wrong checksum", lambda: turned_checksum, COLOURS),
        Odd("bomb.png", "60,000 pixels square", lambda: bomb, reason="too large"),
        Odd("nan.tif", "nothing but NaN", lambda: saved(nan, "TIFF"), reason="no finite pixel", wide="float"),
        Odd("empty.jpg", "no byte", lambda: b"", reason="empty file"),
        Odd("zeros.jpg", "zero bytes", lambda: b"\0" * 5000, reason="unreadable"),
        Odd("garbage.png", "random bytes", lambda: np.random.default_rng(0).bytes(500), reason="unreadable"),
        Odd(
            "page.jpg",
            "an error page",
            lambda: b"<!DOCTYPE html><html>404</html>",
            reason="a web page, not an image",
        ),
        Odd("pointer.png", "a git-lfs pointer", lambda: lfs, reason="git-lfs pointer: run git lfs pull"),
        Odd("words.png", "text", lambda: "Größe: 3\n".encode() * 90, reason="text, not an image"),
        Odd("notes.txt", "text that promises no image", lambda: b"hello\n", reason="not an image"),
        Odd("BM.txt", "text that begins as a BMP", lambda: b"BMW and Audi are cars\n", reason="not an image"),
        Odd("P5.txt", "text that begins as a PGM", lambda: b"P5 is a format\n", reason="not an image"),
        Odd(
            "picture.svg",
            "SVG",
            lambda: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
            reason="format not supported: SVG",
        ),
        Odd("layers.psd", "PSD", lambda: b"8BPS\0\1" + b"\0" * 50, reason="format not supported: PSD"),
        Odd(
            "scan.dcm",
            "DICOM",
            lambda: b"\0" * 128 + b"DICM" + b"\0" * 40,
            reason="format not supported: DICOM",
        ),
        Odd(
            "volume.nii",
            "NIfTI",
            lambda: b"\x5c\1" + b"\0" * 342 + b"n+1\0",
            reason="format not supported: NIfTI",
        ),
        Odd(
            "raw.nef",
            "a camera's raw TIFF",
            lambda: saved(COLOUR, "TIFF"),
            reason="format not supported: RAW",
        ),
        Odd("light.exr", "OpenEXR", lambda: b"\x76\x2f\x31\x01\2\0\0\0", reason="format not supported: EXR"),
        Odd("header.jpg", "the first bytes of a JPEG", lambda: photo()[:30], reason="truncated"),
    ]


def odd_files() -> list[Odd]:
    """The whole corpus."""
    return [*colour_files(), *wide_files(), *turned_files(), *broken_files()]


def write_corpus(folder: Path) -> list[Odd]:
    """Write every file that can be made here; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [odd for odd in odd_files() if not odd.missing]
    for odd in found:
        (folder / odd.name).write_bytes(odd.make())
    return found


if __name__ == "__main__":
    for one in write_corpus(Path(sys.argv[1])):
        print(f"{one.name:24} {one.what:40} {one.answer}")
