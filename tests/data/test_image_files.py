"""Folders and npz files of people: every mode and size, hostile files, what is left out or refused."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import image_files
from pipeline.data.image_files import Labels, Pixels, Raw, Say
from pipeline.errors import DataError


def noise(shape: tuple[int, ...], seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_folder(root: Path, pixels: Pixels, labels: Labels | None = None) -> Path:
    for i, image in enumerate(pixels):
        folder = root if labels is None else root / f"class{labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{i:04}.png")
    return root


def write_npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def silent(text: str) -> None:
    pass


def prepare(path: Path, size: int = 0, say: Say = silent) -> Raw:
    npz = path.suffix == ".npz"
    return (image_files.plan_npz(path, size) if npz else image_files.plan_folder(path, size, say)).prepare()


@pytest.fixture
def heard() -> list[str]:
    return []


# --- npz -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(70, 12, 12), (70, 12, 12, 1), (70, 12, 12, 3), (70, 12, 20, 3), (70, 20, 12)]
)
def test_npz_shapes(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = noise(shape)
    raw = prepare(write_npz(tmp_path / "a.npz", images=pixels))
    assert raw.images.shape == (70, 12, 12, shape[3] if len(shape) == 4 else 1)
    assert (raw.labels, raw.names, raw.skipped) == (None, (), 0)
    top, left = (shape[1] - 12) // 2, (shape[2] - 12) // 2
    cropped = pixels[:, top : top + 12, left : left + 12]
    assert np.array_equal(raw.images, cropped.reshape(raw.images.shape))


def test_npz_labels_come_as_they_are(tmp_path: Path) -> None:
    labels = np.array([7, -3, 1000] * 30, np.int16)
    raw = prepare(write_npz(tmp_path / "a.npz", images=noise((90, 8, 8)), labels=labels))
    assert raw.labels is not None
    assert raw.labels.dtype == np.int64
    assert raw.labels.tolist() == labels.tolist()


def test_npz_resizes_to_the_size_asked(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", images=np.full((70, 7, 9, 3), 99, np.uint8))
    raw = prepare(file, size=16)
    assert raw.images.shape == (70, 16, 16, 3)
    assert (raw.images == 99).all()


def test_npz_in_fortran_order_reads_the_same(tmp_path: Path) -> None:
    pixels = noise((70, 8, 8, 3))
    raw = prepare(write_npz(tmp_path / "f.npz", images=np.asfortranarray(pixels)))
    assert np.array_equal(raw.images, pixels)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": noise((70, 8, 8))}, "has an array `images`"),
        ({"images": noise((70, 8, 8)).astype(np.float32)}, "`images` is uint8"),
        ({"images": noise((70, 3, 8, 8))}, "`images` is uint8"),
        ({"images": noise((70, 64))}, "`images` is uint8"),
        ({"images": noise((70, 8, 0))}, "`images` is uint8"),
        ({"images": noise((70, 8, 8, 4))}, "`images` is uint8"),
        ({"images": np.array([{"a": 1}] * 70, object)}, "`images` is uint8"),
        ({"images": noise((70, 8, 8)), "labels": np.zeros(69, int)}, "`labels` is integer"),
        ({"images": noise((70, 8, 8)), "labels": np.zeros(70)}, "`labels` is integer"),
        ({"images": noise((70, 8, 8)), "labels": np.array([None] * 70, object)}, "`labels` is integer"),
        ({"images": noise((70, 7, 9))}, "at least 8 pixels"),
    ],
)
def test_bad_npz(arrays: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        prepare(write_npz(tmp_path / "bad.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_npz_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="is a readable npz"):
        prepare(tmp_path / "a.npz")


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "unpickled"),)

    file = write_npz(tmp_path / "a.npz", images=noise((70, 8, 8)), labels=np.array([Bomb()] * 70, object))
    with pytest.raises(DataError, match="`labels` is integer"):
        prepare(file)
    assert not (tmp_path / "unpickled").exists()


def test_npz_that_claims_terabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1024, 1024, 3)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="at most 16 GiB; got 2929"):
        prepare(tmp_path / "a.npz")


@pytest.mark.parametrize(("path", "message"), [("/nowhere.npz", "a file"), ("/nowhere", "a folder")])
def test_missing_path(path: str, message: str) -> None:
    with pytest.raises(DataError, match=f"names {message}; got /nowhere"):
        prepare(Path(path))


# --- Folders -------------------------------------------------------------------------------------


def test_folder_of_classes(tmp_path: Path) -> None:
    pixels, labels = noise((70, 28, 28, 1)), np.arange(70) % 3
    raw = prepare(write_folder(tmp_path / "in", pixels, labels))
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
    assert prepare(tmp_path / "in").labels is None


def _palette(rgb: Image.Image) -> Image.Image:
    return rgb.quantize(16)


def _sixteen(rgb: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("convert", "suffix", "channels"),
    [
        (lambda im: im, ".png", 3),
        (lambda im: im.convert("L"), ".png", 1),
        (lambda im: im.convert("1"), ".png", 1),
        (lambda im: im.convert("LA"), ".png", 1),
        (_sixteen, ".png", 1),
        (_sixteen, ".tif", 1),
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
    raw = prepare(tmp_path / "in")
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
    assert np.array_equal(prepare(tmp_path / "in").images[0, ..., 0], np.arange(256).reshape(16, 16))


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((10, 20, 30, 255), (0, 0, 4, 8))
    assert image_files._plain(clear, "RGB").getpixel((0, 0)) == (10, 20, 30)
    assert image_files._plain(clear, "RGB").getpixel((7, 0)) == (255, 255, 255)


def test_exif_turns_the_image_before_the_crop(tmp_path: Path) -> None:
    picture = np.zeros((16, 32), np.uint8)
    picture[:8] = 255  # white above black, wide
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: white on the right
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", exif=exif)
    got = image_files._square(Image.open(buffer), "L", 16)[..., 0]
    assert (int(got[:, :8].max()), int(got[:, 8:].min())) == (0, 255)


def test_crop_is_central_and_resize_antialiased() -> None:
    stripes = np.zeros((64, 100), np.uint8)
    stripes[:, 18:82:2] = 255  # the central square is stripes, finer than the target can show
    got = image_files._square(Image.fromarray(stripes), "L", 16)
    assert got.shape == (16, 16, 1)
    assert np.abs(got[:, 2:-2].astype(int) - 127).max() <= 12
    assert np.array_equal(image_files._square(Image.fromarray(stripes), "L", 64)[..., 0], stripes[:, 18:82])


@pytest.mark.parametrize(
    ("side", "size"), [(5, 8), (8, 8), (27, 16), (28, 28), (31, 28), (100, 64), (256, 256), (999, 256)]
)
def test_chosen_size(side: int, size: int) -> None:
    assert image_files._choose_size(np.array([1, side, side, side, 9999])) == size


def test_folder_of_many_sizes_goes_by_the_median(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(64):
        Image.fromarray(noise((34 + i % 3, 40 + i, 3), i)).save(tmp_path / "in" / f"{i}.png")
    assert prepare(tmp_path / "in").images.shape == (64, 32, 32, 3)
    assert prepare(tmp_path / "in", size=20).images.shape == (64, 20, 20, 3)


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def test_unreadable_images_are_named_counted_and_left_out(tmp_path: Path, heard: list[str]) -> None:
    root = write_folder(tmp_path / "in", noise((80, 8, 8, 3)))
    for name in ("0003.png", "0050.png"):
        damage(root / name)
    Image.fromarray(noise((8, 8))).save(root / "0051.png", "PCX")  # a format that is not let in
    (root / "gone.png").symlink_to(root / "missing")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_bytes(b"")
    raw = prepare(root, say=heard.append)
    assert raw.skipped == 4
    assert len(raw.images) == 77
    line = next(text for text in heard if "left out 4 unreadable images" in text)
    assert "0003.png" in line


def test_too_many_unreadable_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((80, 8, 8, 1)))
    for i in range(9):
        damage(root / f"{i:04}.png")
    with pytest.raises(DataError, match=r"at most 10 % .* got 9 of 80; .*0000.png"):
        prepare(root)


@pytest.mark.parametrize("count", [0, 1, 63])
def test_too_few_images(count: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_folder(tmp_path / "in", noise((count, 8, 8, 1)))
    with pytest.raises(DataError, match=f"at least 64 images; got {count} ") as caught:
        prepare(tmp_path / "in")
    assert "\n" not in str(caught.value)


def test_decompression_bomb_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "in", noise((70, 8, 8, 1)))
    Image.new("L", (60, 60)).save(root / "bomb.png")
    monkeypatch.setattr(image_files, "MAX_PIXELS", 3599)
    assert prepare(root).skipped == 1


def test_folder_larger_than_memory_is_refused_before_allocating(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((400, 8, 8, 3)))
    with pytest.raises(DataError, match="at most 16 GiB; got 18.8 GiB"):
        prepare(root, size=4096)


def test_links_are_followed_once(tmp_path: Path) -> None:
    real = write_folder(tmp_path / "real", noise((70, 8, 8, 1)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(real)
    (tmp_path / "in" / "b").symlink_to(real)
    (real / "loop").symlink_to(tmp_path / "in")
    assert len(prepare(tmp_path / "in").images) == 70
