"""Ordinary JPEGs give Pillow's pixels; all others are left to the careful decoder."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_images

from pipeline.data.images.plain_jpeg import decode_plain_jpeg, plain_jpeg_head

PHOTO = Image.fromarray(load_sample_images().images[0]).crop((100, 100, 231, 231))


def jpeg(picture: Image.Image = PHOTO, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("quality", [50, 90, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_pixels_are_pillows(quality: int, subsampling: str, progressive: bool) -> None:
    data = jpeg(quality=quality, subsampling=subsampling, progressive=progressive)
    found = decode_plain_jpeg(data, 3)
    assert found is not None
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_grey(channels: int) -> None:
    data = jpeg(PHOTO.convert("L"))
    found = decode_plain_jpeg(data, channels)
    assert found is not None
    grey = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(found, grey[..., None].repeat(channels, 2))


def test_the_head_says_the_size() -> None:
    wide = PHOTO.resize((40, 30))
    assert plain_jpeg_head(jpeg(wide)[:1024]) == (40, 30, 3)
    assert plain_jpeg_head(jpeg(wide.convert("L"))[:1024]) == (40, 30, 1)
    assert plain_jpeg_head(jpeg(wide)[:100]) is None


def exif() -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = 6
    return found


@pytest.mark.parametrize(
    "data",
    [
        jpeg()[:-2],
        jpeg()[:900],
        jpeg() + b"\0",
        jpeg(PHOTO.convert("CMYK")),
        jpeg(exif=exif()),
        jpeg(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
        b"",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8" + b"\xff" * 50 + b"\xff\xd9",
        jpeg()[:200] + b"\xff\xd9",
    ],
)
def test_what_is_not_ordinary(data: bytes) -> None:
    assert decode_plain_jpeg(data, 3) is None
