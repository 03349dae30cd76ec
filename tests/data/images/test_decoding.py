"""What the corpus does not show: fits, threads, damage, missing packages, and results as they were before."""

from __future__ import annotations

import io
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from image_corpus import odd_files
from odd_parts import COLOUR, GREY, HEIGHT, WIDTH, cut, exif, noisy, photo, quarters, saved, tiff
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

from pipeline.data.images import opening
from pipeline.data.images.colour import to_srgb
from pipeline.data.images.decoding import (
    ImageHeader,
    decode,
    fit_square,
    read_header,
    value_range,
)
from pipeline.data.images.exif import orientation
from pipeline.data.images.image_formats import UnusableImage
from pipeline.data.images.wide_pixels import to_8_bits
from pipeline.data.pictures import image_sheet, save_drawing

WHITE, PINK = (255, 255, 255), (255, 0, 128)


def read(data: bytes, name: str = "x.png", **options: object) -> Image.Image:
    stream = io.BytesIO(data)
    return decode(stream, read_header(stream, name), **options).picture  # type: ignore[arg-type]


def as_before(image: Image.Image, mode: str, size: int) -> np.ndarray:
    """What gansweep 1.x makes of a picture of 8 bits."""
    upright = ImageOps.exif_transpose(image)
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    image = upright.crop((left, top, left + side, top + side))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = image.convert(mode)
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(size, size, -1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [16, 32, 50])
@pytest.mark.parametrize(
    "data",
    [
        photo(noisy()),
        photo(noisy(), exif=exif(6)),
        photo(GREY, subsampling=-1),
        saved(noisy(), "PNG"),
        saved(noisy().convert("RGBA"), "PNG"),
        saved(noisy().quantize(16), "PNG"),
        saved(noisy().convert("LA"), "PNG"),
        saved(noisy().convert("1"), "PNG"),
        saved(noisy(), "GIF"),
        saved(noisy(), "BMP"),
    ],
)
def test_ordinary_files_are_prepared_as_ever(data: bytes, size: int, mode: str) -> None:
    old = as_before(Image.open(io.BytesIO(data)), mode, size)
    np.testing.assert_array_equal(fit_square(read(data), size, "crop", WHITE, mode), old)


def test_crop_pad_and_stretch() -> None:
    cropped, padded, stretched = (
        fit_square(COLOUR, 48, fit, PINK, "RGB") for fit in ("crop", "pad", "stretch")
    )
    assert {tuple(row) for row in padded[:8].reshape(-1, 3)} == {PINK}
    np.testing.assert_array_equal(padded[8:40], np.asarray(COLOUR))
    assert tuple(stretched[47, 0]) == tuple(cropped[47, 0]) == (30, 30, 200)
    assert stretched.shape == cropped.shape == (48, 48, 3)
    assert fit_square(GREY, 24, "pad", (10, 10, 10), "L")[0, 0, 0] == 10
    assert fit_square(Image.new("L", (1000, 1)), 8, "pad", WHITE, "L").min() == 0


@pytest.mark.parametrize("mode", "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr HSV LAB".split())
def test_every_mode_becomes_grey_or_colour(mode: str) -> None:
    way = {"La": "LA", "RGBa": "RGBA", "PA": "P", "LAB": "RGB"}.get(mode, mode)
    image = COLOUR.convert(way)
    image = Image.new("LAB", COLOUR.size, (255, 128, 128)) if mode == "LAB" else image.convert(mode)
    picture = to_srgb(image, WHITE).picture
    assert picture.mode == ("L" if mode in ("1", "L", "LA", "La") else "RGB")
    if picture.mode == "RGB" and mode != "LAB":
        assert np.abs(np.subtract(picture.getpixel((12, 8)), (200, 30, 30))).max() < 25


def test_transparent_pixels_are_over_the_background() -> None:
    clear = saved(Image.new("RGBA", (8, 8), (1, 2, 3, 0)), "PNG")
    assert read(clear, background=PINK).getpixel((0, 0)) == PINK
    grey = saved(Image.new("LA", (8, 8), (9, 0)), "PNG")
    assert read(grey, background=PINK).getpixel((0, 0)) == PINK
    assert read(grey, background=(7, 7, 7)).getpixel((0, 0)) == 7


def test_wide_values_are_mapped_linearly_and_rounded() -> None:
    values = np.array([[0, 1000, 2000, 5000]], np.uint16)
    assert np.asarray(to_8_bits(values, (1000, 3000))).tolist() == [[0, 0, 128, 255]]
    assert np.asarray(to_8_bits(values, (7, 7))).tolist() == [[0, 0, 0, 0]]
    holes = np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32)
    assert np.asarray(to_8_bits(holes, (0, 1))).tolist() == [[0, 0, 255, 128]]


def test_the_range_of_a_wide_image() -> None:
    first, second = (Image.fromarray(np.full((8, 8), v, np.uint16)) for v in (300, 4000))
    stream = io.BytesIO(saved(first, "TIFF", save_all=True, append_images=[second]))
    header = read_header(stream, "x.tif")
    assert (header.wide, header.frames) == ("16-bit", 2)
    assert value_range(stream, header) == (300, 300)
    assert value_range(stream, header, (0, 1)) == (300, 4000)


def test_a_drawing_of_our_own_is_known() -> None:
    written = io.BytesIO()
    save_drawing(image_sheet(np.zeros((2, 8, 8, 3), np.uint8), 2), written)
    assert read_header(written, "x.png") == ImageHeader("PNG", 16, 8, grey=False, drawn=True)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", range(11))
def test_orientation_is_read_from_one_tag(value: int, order: str) -> None:
    image = Image.new("L", (8, 8))
    image.info["exif"] = exif(value, order=order, broken=True)
    assert orientation(image) == (value if 1 <= value <= 8 else 1)
    for end in range(len(image.info["exif"])):
        image.info["exif"] = image.info["exif"][: -1 - end]
        assert 1 <= orientation(image) <= 8


def test_orientation_of_a_png_by_imagemagick() -> None:
    data = exif(6)
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    assert read(saved(COLOUR, "PNG", pnginfo=info)).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("missing", [0, 1, 2, 3, 5, 8])
def test_a_photo_that_lacks_its_last_bytes(missing: int) -> None:
    data = photo(noisy(4))
    stream = io.BytesIO(data[: len(data) - missing])
    found = decode(stream, read_header(stream, "x.jpg"))
    assert found.notes == (("truncated",) if missing else ())
    assert np.abs(np.asarray(found.picture).astype(int) - np.asarray(noisy(4))).max() < 40


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF"])
def test_one_policy_for_missing_rows(format: str) -> None:
    """Nearly whole: read; more than a tenth missing: not. Whatever the format."""
    data = saved(noisy(4), format)
    for keep, usable in ((0.97, True), (0.8, False), (0.5, False)):
        stream = io.BytesIO(cut(data, keep))
        if usable:
            found = decode(stream, read_header(stream, "x"))
            assert found.notes == ("truncated",)
            assert np.abs(np.asarray(found.picture).astype(int) - np.asarray(noisy(4))).mean() < 12
            continue
        with pytest.raises(UnusableImage) as caught:
            decode(stream, read_header(stream, "x"))
        assert caught.value.reason == "truncated"


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_restarts_do_not_hide_what_is_missing(blocks: int) -> None:
    data = photo(noisy(4).convert("L"), subsampling=-1, restart_marker_blocks=blocks)
    for keep in np.linspace(0.5, 0.85, 8):
        stream = io.BytesIO(cut(data, keep))
        with pytest.raises(UnusableImage, match="truncated"):
            decode(stream, read_header(stream, "x.jpg"))


def test_truncated_wide_values_are_filled_too() -> None:
    values = np.random.default_rng(0).integers(0, 4096, (64, 64), np.uint16)
    stream = io.BytesIO(cut(saved(Image.fromarray(values), "PNG"), 0.95))
    found = decode(stream, read_header(stream, "x.png"), value_range=(0, 4095))
    assert found.notes == ("truncated",)
    expected = np.rint(values[:56] / 4095 * 255)
    np.testing.assert_array_equal(np.asarray(found.picture)[:56], expected)


@pytest.mark.filterwarnings("ignore")
def test_threads_do_not_disturb_each_other() -> None:
    """Truncated and whole files at once: each as alone, and Pillow's switch for all threads stays off."""
    files = [
        odd
        for odd in odd_files()
        if not odd.missing and odd.name.startswith(("short", "half", "rgb12", "no"))
    ]
    made = [(odd.name, odd.make()) for odd in files]

    def answer(file: tuple[str, bytes]) -> object:
        stream = io.BytesIO(file[1])
        try:
            return np.asarray(decode(stream, read_header(stream, file[0])).picture).tobytes()
        except UnusableImage as error:
            return error.reason

    alone = [answer(file) for file in made]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, made * 4)) == alone * 4
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_has_a_reason() -> None:
    """Bytes are changed or cut at random: a picture, or an `UnusableImage`, and nothing else."""
    chance = random.Random(3)
    for odd in odd_files():
        data = bytearray() if odd.missing or "text" in odd.name else bytearray(odd.make())
        for _ in range(3 if data else 0):
            for _ in range(4):
                data[chance.randrange(len(data))] = chance.randrange(256)
            stream = io.BytesIO(bytes(data[: chance.randrange(len(data) // 2, len(data) + 1)]))
            with suppress(UnusableImage):
                found = decode(stream, read_header(stream, odd.name)).picture
                assert found.mode in ("L", "RGB")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pillow_heif", "tifffile"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(UnusableImage, match="^HEIF needs a package: pip install pillow-heif$"):
        read_header(io.BytesIO(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "x.heic")
    monkeypatch.setattr(opening.features, "check", lambda _: False)
    with pytest.raises(UnusableImage, match="^AVIF needs a newer Pillow: pip install -U pillow$"):
        read_header(io.BytesIO(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif"), "x.avif")


def test_a_tiff_that_needs_tifffile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tifffile")
    data = tiff(quarters((0.0, 0.2, 0.5, 1.0), np.float64))
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(UnusableImage, match="pip install tifffile"):
        read_header(io.BytesIO(data), "x.tif")
    with pytest.raises(UnusableImage, match="truncated"):  # which no package helps
        read_header(io.BytesIO(saved(noisy(), "TIFF", compression="tiff_lzw")[:-300]), "x.tif")


def test_channels_that_are_no_colour() -> None:
    pytest.importorskip("tifffile")
    five = np.zeros((8, 8, 5), np.uint16)
    with pytest.raises(UnusableImage, match="neither grey nor colour: 5 channels"):
        read_header(io.BytesIO(tiff(five, photometric="minisblack", planarconfig="contig")), "x.tif")
