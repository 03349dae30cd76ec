"""Arrays become square images of one size, the same bytes whichever rows are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from images import noise
from PIL import Image

from pipeline.data.arrays import array_layout
from pipeline.data.arrays.array_layout import PixelArray
from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.findings import Findings
from pipeline.data.options import DataOptions
from pipeline.data.source_types import Labels, Pixels
from pipeline.errors import DataError


def everything(rows: ArrayRows) -> np.ndarray:
    images, reasons = rows.read(np.arange(rows.shape[0]))
    assert images.shape == rows.shape
    assert images.dtype == np.uint8
    assert reasons == [""] * len(images)
    return images


@pytest.mark.parametrize("shape", [(9, 12, 12), (9, 12, 12, 1), (9, 12, 20, 3), (9, 20, 12)])
def test_the_centre_is_cropped_and_nothing_else_changes(shape: tuple[int, ...]) -> None:
    pixels = noise(shape)
    top, left = (shape[1] - 12) // 2, (shape[2] - 12) // 2
    cropped = pixels[:, top : top + 12, left : left + 12]
    assert np.array_equal(everything(ArrayRows(pixels)), cropped.reshape(9, 12, 12, -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pillows_lanczos_of_the_cropped_image(channels: int) -> None:
    pixels = noise((5, 20, 24, channels))
    found = everything(ArrayRows(pixels, DataOptions(size=8)))
    for image, source in zip(found, pixels[:, :, 2:22], strict=True):
        picture = Image.fromarray(source[..., 0] if channels == 1 else source)
        expected = np.asarray(picture.resize((8, 8), Image.Resampling.LANCZOS)).reshape(8, 8, channels)
        assert np.array_equal(image, expected)


def test_rows_may_be_read_in_any_order_and_twice() -> None:
    pixels = noise((6, 8, 8, 3))
    found, _ = ArrayRows(pixels).read(np.array([5, 0, 5]))
    assert np.array_equal(found, pixels[[5, 0, 5]])


def test_several_arrays_are_read_one_after_another() -> None:
    first, second = noise((4, 8, 8), 1), noise((3, 8, 8), 2)
    rows = ArrayRows([PixelArray(first), PixelArray(second)])
    assert rows.shape == (7, 8, 8, 1)
    found, _ = rows.read(np.array([6, 1, 4]))
    assert np.array_equal(found[..., 0], np.stack([second[2], first[1], second[0]]))


def test_padding_keeps_everything_beside_the_background() -> None:
    pixels = np.full((2, 8, 16, 3), 100, np.uint8)
    found = everything(ArrayRows(pixels, DataOptions(fit="pad", background="#102030")))
    assert found.shape == (2, 16, 16, 3)
    assert (found[:, 4:12] == 100).all()
    assert (found[:, :4] == (0x10, 0x20, 0x30)).all()


def test_stretching_uses_every_column() -> None:
    pixels = np.zeros((2, 8, 16), np.uint8)
    pixels[:, :, 8:] = 200
    found = everything(ArrayRows(pixels, DataOptions(fit="stretch")))
    assert found.shape == (2, 8, 8, 1)
    assert np.abs(found[0, :, :, 0].astype(int) - [0, 0, 0, 0, 200, 200, 200, 200])[:, [0, 7]].max() <= 1


def test_a_mapped_file_reads_the_same(tmp_path: Path) -> None:
    pixels = noise((9, 8, 8, 3))
    np.save(tmp_path / "a.npy", pixels)
    assert np.array_equal(everything(ArrayRows(np.load(tmp_path / "a.npy", mmap_mode="r"))), pixels)


def test_small_images_are_refused_unless_a_size_is_given() -> None:
    with pytest.raises(DataError, match="too small: 7 pixels.*at least 8 pixels.*image_size=8"):
        ArrayRows(noise((9, 7, 9)))
    assert ArrayRows(noise((9, 7, 9)), DataOptions(size=8)).shape == (9, 8, 8, 1)


def test_a_crop_is_told() -> None:
    findings = Findings()
    ArrayRows(noise((9, 8, 10)), DataOptions(), findings)
    assert findings.notes == [
        "images: of 8x10 pixels the central 8x8 are used; --fit pad or stretch keeps all of them"
    ]


def test_only_a_few_large_arrays_are_converted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats of 512 px that become 32 px: their own size decides, not that of what becomes of them."""
    values = noise((20, 16, 16, 3)).astype(np.float32)
    whole = everything(ArrayRows([PixelArray(values, value_range=(0, 255))], DataOptions(size=8)))
    monkeypatch.setattr(array_layout, "BLOCK_BYTES", 3 * 8 * 16 * 16 * 3)
    taken: list[int] = []

    class Watched(PixelArray):
        def take(self, rows: Labels) -> Pixels:
            taken.append(len(rows))
            return super().take(rows)

    found = everything(ArrayRows([Watched(values, value_range=(0, 255))], DataOptions(size=8)))
    assert np.array_equal(found, whole)
    assert max(taken) == 3
    assert sum(taken) == 20
