"""What the odd image files of image_corpus.py are made of."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

Value = int | tuple[int, int, int]

RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 60)
GREYS = (40, 90, 160, 220)
WIDTH, HEIGHT = 48, 32
PLACES = ((12, 8), (36, 8), (12, 24), (36, 24))
"""x, y of the middle of each quarter."""
COLOURS = dict(zip(PLACES, (RED, GREEN, BLUE, YELLOW), strict=True))
SHADES = dict(zip(PLACES, GREYS, strict=True))
TRUNCATED = ("truncated",)


@dataclass(frozen=True)
class Odd:
    """One file and what is right for it.

    make: its bytes. pixels: the values at some x, y of the upright picture, within `near`. size: of it.
    reason: why it is unusable, "" if it is usable. value_range: for wide values. needs: what must be there
    to make it.
    """

    name: str
    what: str
    make: Callable[[], bytes]
    pixels: Mapping[tuple[int, int], Value] = field(default_factory=dict)
    size: tuple[int, int] = (WIDTH, HEIGHT)
    near: int = 2
    reason: str = ""
    notes: tuple[str, ...] = ()
    wide: str = ""
    value_range: tuple[float, float] | None = None
    frames: int = 1
    frame: int = 0
    needs: str = ""

    @property
    def grey(self) -> bool:
        return all(isinstance(value, int) for value in self.pixels.values())

    @property
    def missing(self) -> str:
        """Why it cannot be made here, "" if it can."""
        there = features.check("avif") if self.needs == "avif" else not self.needs or find_spec(self.needs)
        return "" if there else f"needs {self.needs}"

    @property
    def answer(self) -> str:
        if self.reason:
            return f"unusable: {self.reason}"
        extras = [*self.notes, self.wide, f"{self.frames} frames" if self.frames > 1 else ""]
        kind = "grey" if self.grey else "colour"
        return ", ".join([f"{self.size[0]}x{self.size[1]} {kind}", *filter(None, extras)])


def quarters(values: tuple[Any, ...], dtype: Any = np.uint8) -> np.ndarray:
    """(H,W) or (H,W,C): four values, each over a quarter."""
    corners = np.array(values, dtype).reshape(2, 2, *np.shape(values)[1:])
    return corners.repeat(HEIGHT // 2, 0).repeat(WIDTH // 2, 1)


COLOUR = Image.fromarray(quarters((RED, GREEN, BLUE, YELLOW)))
GREY = Image.fromarray(quarters(GREYS))
TALL = COLOUR.transpose(Image.Transpose.ROTATE_90)
"""Lies on its side: orientation 6 sets it upright."""


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, format, **options)
    return written.getvalue()


def photo(image: Image.Image = COLOUR, **options: Any) -> bytes:
    return saved(image, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def noisy(scale: int = 1) -> Image.Image:
    """The colours, perhaps enlarged, with a little noise: files of some length."""
    clean = np.asarray(COLOUR).repeat(scale, 0).repeat(scale, 1).astype(int)
    return Image.fromarray((clean + np.random.default_rng(0).integers(-3, 4, clean.shape)).astype(np.uint8))


def cut(data: bytes, keep: float) -> bytes:
    return data[: round(len(data) * keep)]


def exif(orientation: int, *, broken: bool = False, order: str = "<") -> bytes:
    """EXIF of an orientation, perhaps with a rational and an offset that cannot be read or written back."""
    entries = [struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)]
    if broken:
        entries += [
            struct.pack(order + "HHII", 0x011A, 10, 1, 62),
            struct.pack(order + "HHII", 0x8769, 4, 1, 9999),
        ]
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(entries))
    return (
        b"Exif\0\0" + start + b"".join(entries) + struct.pack(order + "I", 0) + struct.pack("<ii", -1, 1) * 4
    )


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*, depth: int, kind: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG as it is written down: rows with their filter bytes; extra: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def wide_png(values: np.ndarray, kind: int, extra: bytes = b"") -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(depth=16, kind=kind, rows=rows, extra=extra)


def with_chunk(data: bytes, added: bytes, *, last: bool = False) -> bytes:
    """A PNG with a chunk after its header, or before its end."""
    at = len(data) - 12 if last else 33
    return data[:at] + added + data[at:]


def texts(*, last: bool = False) -> bytes:
    many = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 2_000_000))
    return with_chunk(saved(COLOUR, "PNG"), many, last=last)


def small_grey_png(depth: int, extra: bytes = b"") -> bytes:
    """Grey values of 1, 2 or 4 bits: the least, and the largest, in columns."""
    top = 2**depth - 1
    values = quarters((0, top, top, 0))
    bits = np.unpackbits(values[..., None], axis=2)[..., 8 - depth :].reshape(HEIGHT, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    return png(depth=depth, kind=0, rows=rows, extra=extra)


def srgb() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)  # when it was made
    return bytes(profile)


def exchanged() -> bytes:
    """A colour profile in which red is green and green is red."""
    profile = bytearray(srgb())
    entries = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * profile[131], 12)}
    red, green = entries[b"rXYZ"] + 4, entries[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile)


def icc(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A small colour profile of version 2."""
    table, body = b"", b""
    start = 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    white = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + white
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def linear_grey() -> bytes:
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return icc(b"GRAY", b"mntr", b"XYZ ", {b"wtpt": white, b"kTRC": b"curv\0\0\0\0" + struct.pack(">I", 0)})


def grey_inks() -> bytes:
    """A CMYK profile whose inks are all grey."""
    grid = [np.array(inks) for inks in np.ndindex(2, 2, 2, 2)]
    light = [round(255 * (1 - i[3]) * (1 - i[:3].sum() / 3)) for i in grid]
    ramp = bytes(range(256))
    lut = (
        b"mft1\0\0\0\0"
        + bytes((4, 3, 2, 0))
        + struct.pack(">9i", *(0x10000 * int(i % 4 == 0) for i in range(9)))
    )
    lut += ramp * 4 + b"".join(bytes((v, 128, 128)) for v in light) + ramp * 3
    return icc(b"CMYK", b"prtr", b"Lab ", {b"A2B0": lut})


def over(colours: tuple[tuple[int, int, int], ...], alphas: tuple[int, ...]) -> Image.Image:
    """`RGBA` quarters."""
    return Image.fromarray(quarters(tuple((*c, a) for c, a in zip(colours, alphas, strict=True))))


HALF_SEEN = over((RED, GREEN, BLUE, YELLOW), (255, 0, 255, 0))
HALF = {**COLOURS, PLACES[1]: (255, 255, 255), PLACES[3]: (255, 255, 255)}
WIDE_GREYS = tuple(16 * v for v in GREYS)  # 12 bits in 16
TWELVE = {"wide": "16-bit", "value_range": (0.0, 4080.0), "pixels": SHADES}
TWELVE_RGB = {"wide": "16-bit", "value_range": (0.0, 4080.0), "pixels": COLOURS}


def wide_rgb(scale: int = 16) -> np.ndarray:
    return np.asarray(COLOUR).astype(np.uint16) * scale


def with_alpha(values: np.ndarray) -> np.ndarray:
    """Colours or greys with full alpha, and none in the second quarter."""
    alpha = quarters((65535, 0, 65535, 65535), np.uint16)[..., None]
    return np.concatenate([values.reshape(HEIGHT, WIDTH, -1), alpha], 2)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    import tifffile

    written = io.BytesIO()
    tifffile.imwrite(written, values, metadata=None, **options)
    return written.getvalue()


def plain_tiff(values: np.ndarray, *, order: str = "<", photometric: int = 1, signed: int = 1) -> bytes:
    """A TIFF without compression, of one strip, as it is written down."""
    channels = values.shape[2] if values.ndim == 3 else 1
    bits = values.dtype.itemsize * 8
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [(256, 4, WIDTH), (257, 4, HEIGHT), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [
        (273, 4, 8 + 2 + 12 * 10 + 4),
        (277, 3, channels),
        (278, 4, HEIGHT),
        (279, 4, len(data)),
        (339, 3, signed),
    ]
    packed = b""
    for number, kind, value in tags:
        one = struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
        packed += struct.pack(order + "HHI", number, kind, 1) + one
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IH", 8, len(tags)) + packed + struct.pack(order + "I", 0) + data


def animation(format: str, **options: Any) -> bytes:
    """The colours; then the same with its first quarter yellow."""
    second = COLOUR.copy()
    second.paste(YELLOW, (0, 0, WIDTH // 2, HEIGHT // 2))
    return saved(COLOUR, format, save_all=True, append_images=[second], duration=100, **options)


def heif(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return saved(image, "HEIF", quality=95, **options)


def pfm(values: np.ndarray) -> bytes:
    kind = b"PF" if values.ndim == 3 else b"Pf"
    return kind + b"\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + values[::-1].astype("<f4").tobytes()


def palette(transparent: bytes | int | None = None) -> bytes:
    image = COLOUR.quantize(8)
    return saved(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


def palette_without_its_first() -> bytes:
    return palette(COLOUR.quantize(8).getpixel(PLACES[1]))  # type: ignore[arg-type]


def later_frame() -> dict[tuple[int, int], Value]:
    return {**COLOURS, PLACES[0]: YELLOW}


def checks() -> dict[tuple[int, int], Value]:
    return dict(zip(PLACES, (0, 255, 255, 0), strict=True))


def from_linear(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def premultiplied() -> bytes:
    values = np.asarray(over((RED, GREEN, BLUE, YELLOW), (128,) * 4)).astype(float)
    values[..., :3] *= 128 / 255
    return tiff(np.rint(values).astype(np.uint8), photometric="rgb", extrasamples=["assocalpha"])


def pyramid(small: Image.Image) -> bytes:
    import tifffile

    written = io.BytesIO()
    with tifffile.TiffWriter(written) as tiff_file:
        tiff_file.write(np.asarray(COLOUR), photometric="rgb", metadata=None)
        tiff_file.write(np.asarray(small), photometric="rgb", metadata=None, subfiletype=1)
    return written.getvalue()
