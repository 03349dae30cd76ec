"""Folders of image files: every mode and size, hostile files, what is left out or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import noise, write_folder
from PIL import Image

from pipeline.data import image_files
from pipeline.data.image_files import folder_source
from pipeline.data.pictures import image_sheet, save_drawing
from pipeline.data.preprocessing import RawImages, SourceRequest
from pipeline.errors import DataError
from pipeline.serving.interpolation import write_walk
from pipeline.tracking.registry.model_card import save_curves


def read(path: Path, size: int = 0) -> RawImages:
    return folder_source(SourceRequest(f"folder:{path}", path, size, Path("unused"))).read()


def test_folder_of_classes(tmp_path: Path) -> None:
    pixels, labels = noise((70, 28, 28, 1)), np.arange(70) % 3
    raw = read(write_folder(tmp_path / "in", pixels, labels))
    by_class = np.argsort(labels, kind="stable")  # in the order of the names: class0, class1, class2
    assert np.array_equal(raw.images, pixels[by_class])
    assert raw.labels is not None
    assert raw.labels.tolist() == labels[by_class].tolist()
    assert raw.names == ["class0", "class1", "class2"]


@pytest.mark.parametrize("layout", ["flat", "one class", "mixed"])
def test_folder_without_clear_classes_is_unlabelled(layout: str, tmp_path: Path) -> None:
    pixels = noise((70, 8, 8, 1))
    write_folder(tmp_path / "in" if layout == "flat" else tmp_path / "in" / "sub", pixels)
    if layout == "mixed":
        write_folder(tmp_path / "in", pixels)
    assert read(tmp_path / "in").labels is None


def _palette(rgb: Image.Image) -> Image.Image:
    return rgb.quantize(16)


def _sixteen_bits(rgb: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("convert", "suffix", "channels"),
    [
        (lambda im: im, ".png", 3),
        (lambda im: im.convert("L"), ".png", 1),
        (lambda im: im.convert("1"), ".png", 1),
        (lambda im: im.convert("LA"), ".png", 1),
        (_sixteen_bits, ".png", 1),
        (_sixteen_bits, ".tif", 1),
        (_palette, ".png", 3),
        (_palette, ".gif", 3),
        (lambda im: im.convert("RGBA"), ".png", 3),
        (lambda im: im.convert("CMYK"), ".jpg", 3),
        (lambda im: im, ".JPEG", 3),
        (lambda im: im, ".webp", 3),
        (lambda im: im.convert("L").convert("RGB"), ".bmp", 1),  # grey saved as colour
    ],
)
def test_image_modes(
    convert: Callable[[Image.Image], Image.Image], suffix: str, channels: int, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    ramp = np.add.outer(np.arange(16) * 8, np.arange(16) * 7)
    picture = np.stack([ramp, ramp // 2, 255 - ramp], -1).astype(np.uint8)
    if channels == 1:
        picture = np.repeat(picture[..., :1], 3, -1)
    for i in range(64):
        convert(Image.fromarray(picture)).save(tmp_path / "in" / f"{i}{suffix}")
    raw = read(tmp_path / "in")
    assert raw.images.shape == (64, 16, 16, channels)
    # A blurred comparison: dithering, palettes and JPEG move single pixels, not averages.
    wanted, got = (
        a.reshape(2, 8, 2, 8, channels).mean((1, 3)) for a in (picture[..., :channels], raw.images[0])
    )
    assert np.abs(wanted - got).max() < 12


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for i in range(64):
        Image.fromarray(wide).save(tmp_path / "in" / f"{i}.png")
    assert np.array_equal(read(tmp_path / "in").images[0, ..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize(
    ("side", "size"), [(5, 8), (8, 8), (27, 16), (28, 28), (31, 28), (100, 64), (256, 256), (999, 256)]
)
def test_chosen_size(side: int, size: int) -> None:
    assert image_files._choose_size(np.array([1, side, side, side, 9999])) == size


def test_folder_of_many_sizes_goes_by_the_median(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(64):
        Image.fromarray(noise((34 + i % 3, 40 + i, 3), i)).save(tmp_path / "in" / f"{i}.png")
    assert read(tmp_path / "in").images.shape == (64, 32, 32, 3)
    assert read(tmp_path / "in", size=20).images.shape == (64, 20, 20, 3)


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def test_unreadable_images_are_named_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    root = write_folder(tmp_path / "in", noise((80, 8, 8, 3)))
    for name in ("0003.png", "0050.png"):
        damage(root / name)
    Image.fromarray(noise((8, 8))).save(root / "0051.png", "PCX")  # a format that is not accepted
    (root / "gone.png").symlink_to(root / "missing")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_bytes(b"")
    raw = read(root)
    assert raw.skipped == 4
    assert len(raw.images) == 77
    line = next(text for text in caplog.messages if "left out 4 unreadable images" in text)
    assert "0003.png" in line


def test_too_many_unreadable_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((80, 8, 8, 1)))
    for i in range(9):
        damage(root / f"{i:04}.png")
    with pytest.raises(DataError, match=r"unreadable: 9 of 80 \(at most 10 %.*0000.png"):
        read(root)


@pytest.mark.parametrize("count", [0, 1, 63])
def test_too_few_images(count: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_folder(tmp_path / "in", noise((count, 8, 8, 1)))
    with pytest.raises(DataError, match=f"too few images: {count} .*at least 64 images") as caught:
        read(tmp_path / "in")
    assert "\n" not in str(caught.value)


def test_decompression_bomb_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "in", noise((70, 8, 8, 1)))
    Image.new("L", (60, 60)).save(root / "bomb.png")
    monkeypatch.setattr(image_files, "MAX_PIXELS", 3599)
    assert read(root).skipped == 1


def test_folder_larger_than_memory_is_refused_before_allocating(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((400, 8, 8, 3)))
    with pytest.raises(DataError, match="18.8 GiB .*at most 16 GiB"):
        read(root, size=4096)


def test_links_are_followed_once(tmp_path: Path) -> None:
    real = write_folder(tmp_path / "real", noise((70, 8, 8, 1)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(real)
    (tmp_path / "in" / "b").symlink_to(real)
    (real / "loop").symlink_to(tmp_path / "in")
    assert len(read(tmp_path / "in").images) == 70


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder .*nowhere"):
        read(tmp_path / "nowhere")


def test_sheets_and_charts_of_ours_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    pixels, labels = noise((70, 8, 8, 1)), np.arange(70) % 2
    root = write_folder(tmp_path / "in", pixels, labels)
    save_drawing(image_sheet(pixels[:9], 3), root / "samples.png")
    write_walk(pixels[:4], root / "walk.gif")
    save_curves(root / "class1" / "fid.png", {"fid": [(1.0, 2.0)]})
    raw = read(root)
    assert raw.images.shape == (70, 8, 8, 1)
    assert raw.names == ["class0", "class1"]
    assert "left out 3 sheets and charts of gansweep's: fid.png, samples.png, walk.gif" in caplog.text


def test_a_folder_of_sheets_alone_is_used(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(64):
        save_drawing(image_sheet(noise((4, 8, 8, 1), i), 2), tmp_path / "in" / f"{i}.png")
    assert len(read(tmp_path / "in").images) == 64
