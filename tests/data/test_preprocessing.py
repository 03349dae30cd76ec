"""One image: orientation, crop, transparency, resizing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from images import noise
from PIL import Image

from pipeline.data.pictures import image_sheet
from pipeline.data.preprocessing import to_8_bits, to_square


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((10, 20, 30, 255), (0, 0, 4, 8))
    assert to_8_bits(clear, "RGB").getpixel((0, 0)) == (10, 20, 30)
    assert to_8_bits(clear, "RGB").getpixel((7, 0)) == (255, 255, 255)


def test_exif_turns_the_image_before_the_crop(tmp_path: Path) -> None:
    picture = np.zeros((16, 32), np.uint8)
    picture[:8] = 255  # white above black, wide
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: white on the right
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", exif=exif)
    got = to_square(Image.open(buffer), "L", 16)[..., 0]
    assert (int(got[:, :8].max()), int(got[:, 8:].min())) == (0, 255)


def test_crop_is_central_and_resize_antialiased() -> None:
    stripes = np.zeros((64, 100), np.uint8)
    stripes[:, 18:82:2] = 255  # the central square is stripes, finer than the target can show
    got = to_square(Image.fromarray(stripes), "L", 16)
    assert got.shape == (16, 16, 1)
    assert np.abs(got[:, 2:-2].astype(int) - 127).max() <= 12
    assert np.array_equal(to_square(Image.fromarray(stripes), "L", 64)[..., 0], stripes[:, 18:82])


def test_a_sheet_is_filled_row_by_row() -> None:
    images = noise((5, 2, 3, 3))
    sheet = np.asarray(image_sheet(images, 3))
    assert sheet.shape == (4, 9, 3)
    assert np.array_equal(sheet[:2], np.concatenate(images[:3], axis=1))
    assert np.array_equal(sheet[2:, 3:6], images[4])
    assert not sheet[2:, 6:].any()
    assert image_sheet(images[..., :1], 5).mode == "L"
