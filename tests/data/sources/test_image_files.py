"""Folders of image files: every mode and size, hostile files, what is left out or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import noise, write_folder
from PIL import Image

from pipeline.data.images import opening
from pipeline.data.options import DataOptions
from pipeline.data.pictures import image_sheet, save_drawing
from pipeline.data.source_types import Pixels, RawImages, SourceRequest
from pipeline.data.sources.image_files import file_images, folder_source, zip_source
from pipeline.errors import DataError
from pipeline.serving.interpolation import write_walk
from pipeline.tracking.registry.model_card import save_curves


def read(path: Path, **options: object) -> RawImages:
    request = SourceRequest(f"folder:{path}", path, DataOptions(**options))  # type: ignore[arg-type]
    return folder_source(request).read()


def pixels_of(raw: RawImages) -> Pixels:
    images, reasons = raw.images.read(np.arange(raw.images.shape[0]))
    assert not any(reasons)
    return images


def left_out(raw: RawImages) -> dict[str, int]:
    return {reason: entry.count for reason, entry in raw.findings.left_out.items()}


def test_folder_of_classes(tmp_path: Path) -> None:
    pixels, labels = noise((70, 28, 28, 1)), np.arange(70) % 3
    raw = read(write_folder(tmp_path / "in", pixels, labels))
    by_class = np.argsort(labels, kind="stable")  # in the order of the names: class0, class1, class2
    assert np.array_equal(pixels_of(raw), pixels[by_class])
    assert raw.labels is not None
    assert raw.labels.tolist() == labels[by_class].tolist()
    assert raw.names == ["class0", "class1", "class2"]


def _palette(rgb: Image.Image) -> Image.Image:
    return rgb.quantize(16)


@pytest.mark.parametrize(
    ("convert", "suffix", "channels"),
    [
        (lambda im: im, ".png", 3),
        (lambda im: im.convert("L"), ".png", 1),
        (lambda im: im.convert("1"), ".png", 1),
        (lambda im: im.convert("LA"), ".png", 1),
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
    (tmp_path / "in" / "colour.png").write_bytes(b"")
    raw = read(tmp_path / "in")
    got_all = pixels_of(raw)
    assert raw.images.shape == (64, 16, 16, 3 if suffix == ".bmp" else channels)
    assert left_out(raw) == {"empty file": 1}
    # A blurred comparison: dithering, palettes and JPEG move single pixels, not averages.
    wanted, got = (
        a.reshape(2, 8, 2, 8, channels).mean((1, 3))
        for a in (picture[..., :channels], got_all[0, ..., :channels])
    )
    assert np.abs(wanted - got).max() < 12


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for i in range(64):
        Image.fromarray(wide).save(tmp_path / "in" / f"{i}.png")
    raw = read(tmp_path / "in")
    assert np.array_equal(pixels_of(raw)[0, ..., 0], np.arange(256).reshape(16, 16))
    assert any("range 0..65535 becomes 0..255" in note for note in raw.findings.notes)


def test_folder_of_many_sizes_goes_by_the_median(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(64):
        Image.fromarray(noise((34 + i % 3, 40 + i, 3), i)).save(tmp_path / "in" / f"{i}.png")
    assert read(tmp_path / "in").images.shape == (64, 32, 32, 3)
    assert read(tmp_path / "in", size=20).images.shape == (64, 20, 20, 3)


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


def test_files_that_are_no_images_are_counted_by_their_reason(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((80, 8, 8, 3)))
    for name in ("0003.png", "0050.png"):
        damage(root / name)
    Image.fromarray(noise((8, 8))).save(root / "0051.png", "PCX")  # a format that is not opened
    (root / "gone.png").symlink_to(root / "missing")
    (root / "film.mp4").write_bytes(b"\0\0\0 ftypisom" + bytes(100))
    (root / ".hidden.png").write_bytes(b"")
    (root / "0079").write_bytes((root / "0079.png").read_bytes())  # content decides
    raw = read(root)
    assert pixels_of(raw).shape == (78, 8, 8, 3)
    found = left_out(raw)
    assert found.pop("missing (a broken link?)") == 1
    assert found.pop("format not supported: PCX") == 1
    assert found.pop("not an image") == 1
    assert found == {"truncated": 2}


def test_too_many_unreadable_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((80, 8, 8, 1)))
    for i in range(9):
        damage(root / f"{i:04}.png")
    with pytest.raises(DataError, match=r"unreadable: 9 of 80 \(at most 10%.*0000.png"):
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
    monkeypatch.setattr(opening, "MAX_PIXELS", 3599)
    assert left_out(read(root)) == {"too large": 1}


def test_links_are_followed_once(tmp_path: Path) -> None:
    real = write_folder(tmp_path / "real", noise((70, 8, 8, 1)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(real)
    (tmp_path / "in" / "b").symlink_to(real)
    (real / "loop").symlink_to(tmp_path / "in")
    assert read(tmp_path / "in").images.shape[0] == 70


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder .*nowhere"):
        read(tmp_path / "nowhere")


def test_sheets_and_charts_of_ours_are_no_images(tmp_path: Path) -> None:
    pixels, labels = noise((70, 8, 8, 1)), np.arange(70) % 2
    root = write_folder(tmp_path / "in", pixels, labels)
    save_drawing(image_sheet(pixels[:9], 3), root / "samples.png")
    write_walk(pixels[:4], root / "walk.gif")
    save_curves(root / "class1" / "fid.png", {"fid": [(1.0, 2.0)]})
    raw = read(root)
    assert raw.images.shape == (70, 8, 8, 1)
    assert raw.names == ["class0", "class1"]
    assert left_out(raw) == {"sheets and charts of gansweep's": 3}


def test_a_folder_of_sheets_alone_is_used(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(64):
        save_drawing(image_sheet(noise((4, 8, 8, 1), i), 2), tmp_path / "in" / f"{i}.png")
    assert read(tmp_path / "in").images.shape[0] == 64


def test_a_zip_is_read_as_its_folder(tmp_path: Path) -> None:
    pixels, labels = noise((70, 8, 8, 3)), np.arange(70) % 3
    root = write_folder(tmp_path / "in", pixels, labels)
    packed = Path(shutil.make_archive(str(tmp_path / "set"), "zip", root))
    by_folder = read(root)
    by_zip = zip_source(SourceRequest(f"zip:{packed}", packed)).read()
    assert np.array_equal(pixels_of(by_folder), pixels_of(by_zip))
    assert (list(by_folder.names), list(by_folder.files)) == (list(by_zip.names), list(by_zip.files))
    assert np.array_equal(by_folder.labels, by_zip.labels)  # type: ignore[arg-type]


def test_frames_of_animations(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(64):
        frames = [Image.fromarray(noise((8, 8), 3 * i + k)) for k in range(3)]
        frames[0].save(tmp_path / "in" / f"{i:02}.tif", save_all=True, append_images=frames[1:])
    first, every = read(tmp_path / "in"), read(tmp_path / "in", frames="all")
    assert first.images.shape[0] == 64
    assert any("--frames all uses all 192" in note for note in first.findings.notes)
    assert np.array_equal(pixels_of(every)[4, ..., 0], noise((8, 8), 4))
    assert [every.files[i] for i in (0, 2, 3)] == ["00.tif", "00.tif", "01.tif"]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_images_that_are_not_square(fit: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    half = np.zeros((16, 32), np.uint8)
    half[:, 16:] = 200
    for i in range(64):
        Image.fromarray(half).save(tmp_path / "in" / f"{i}.png")
    raw = read(tmp_path / "in", fit=fit, background="#ff0000")
    image = pixels_of(raw)[0, ..., 0]
    assert any("64 of 64 images are not square" in note for note in raw.findings.notes)
    corner = {"crop": 0, "pad": 76, "stretch": 0}[fit]  # red is 76 in grey
    assert abs(int(image[0, 0]) - corner) <= 1
    assert abs(int(image[8, 15]) - 200) <= 1


def test_transparent_pixels_are_told(tmp_path: Path) -> None:
    alpha = np.full((16, 16), 255, np.uint8)
    alpha[:8] = 0
    for i in range(64):
        image = Image.fromarray(noise((16, 16, 3)))
        image.putalpha(Image.fromarray(alpha if i else alpha | 255))
        image.save(tmp_path / f"{i:02}.png")
    found = read(tmp_path, background="red")
    images, _ = found.images.read(np.arange(64))
    assert images[1:, :7].reshape(-1, 3).tolist() == [[255, 0, 0]] * (63 * 7 * 16)
    told = "63 images have transparent pixels: shown over red; --background changes it"
    assert found.images.notes() == [told]


def test_empty_files_that_promise_no_image_are_no_broken_ones(tmp_path: Path) -> None:
    write_folder(tmp_path, noise((70, 8, 8, 1)))
    for i in range(30):
        (tmp_path / f"{i}.txt").write_bytes(b"")
    assert left_out(read(tmp_path)) == {"empty file": 30}
    for i in range(30):
        (tmp_path / f"{i}.txt").rename(tmp_path / f"empty{i}.png")
    with pytest.raises(DataError, match="too many images are unreadable: 30 of 100"):
        read(tmp_path)


def test_named_files_alone(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((70, 8, 8, 3)))
    raw = file_images(root, [f"{i:04}.png" for i in range(64)], DataOptions(size=8))
    assert np.array_equal(pixels_of(raw), noise((70, 8, 8, 3))[:64])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("train.zip", "did you mean 'zip:.*/train.zip'"),
        ("set.npz", "did you mean 'npz:.*/set.npz'"),
        ("data/train-0.parquet", "did you mean 'hf:"),
        ("train.tar.gz", r"1 an archive: unpack it \(train.tar.gz\)"),
        ("notes.txt", "too few images: 0 .*; left out: 1 not an image"),
    ],
)
def test_a_folder_of_what_another_source_reads(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"\x1f\x8b not looked into")
    (tmp_path / "data").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        folder_source(SourceRequest(f"folder:{tmp_path}", tmp_path)).read()
