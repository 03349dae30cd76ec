"""Samples of other tools: read exactly as they are, or refused with one line."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import external_samples
from pipeline.data.external_samples import Samples, Wanted, read_samples
from pipeline.errors import DataError


def noise(n=20, size=8, channels=1, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def folder(root: Path, images: np.ndarray, mode: str = "", suffix: str = ".png") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        (picture.convert(mode) if mode else picture).save(root / f"{i:05}{suffix}")
    return root


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def read(path: Path, channels: int = 1, classes: tuple[str, ...] = ()) -> Samples:
    return read_samples(path, Wanted(8, channels, classes))


GREY, COLOUR = noise(), noise(channels=3)


# ---- files


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_files_are_read_as_they_are(tmp_path: Path, channels: int, suffix: str) -> None:
    images = noise(channels=channels)
    found = read(folder(tmp_path / "a", images, suffix=suffix), channels)
    assert np.array_equal(found.images, images)
    assert found.labels is None
    assert found.findings.notes == []


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA", "P", "unsorted palette"])
def test_grey_in_another_mode_is_the_same_grey(tmp_path: Path, mode: str) -> None:
    if mode == "unsorted palette":
        root = tmp_path / "a"
        root.mkdir()
        for i, image in enumerate(GREY):
            picture = Image.fromarray(255 - image[..., 0])
            picture.putpalette([value for grey in range(255, -1, -1) for value in (grey,) * 3])
            picture.save(root / f"{i:05}.png")
    else:
        root = folder(tmp_path / "a", GREY, mode)
    assert np.array_equal(read(root).images, GREY)


def test_grey_for_coloured_reals_has_three_equal_channels(tmp_path: Path) -> None:
    found = read(folder(tmp_path / "a", GREY), 3)
    assert np.array_equal(found.images, np.repeat(GREY, 3, -1))


def test_opaque_transparency_and_palettes_lose_nothing(tmp_path: Path) -> None:
    few = COLOUR // 128 * 128
    assert np.array_equal(read(folder(tmp_path / "a", COLOUR, "RGBA"), 3).images, COLOUR)
    root = tmp_path / "b"
    root.mkdir()
    for i, image in enumerate(few):
        Image.fromarray(image).quantize(8, dither=Image.Dither.NONE).save(root / f"{i:05}.png")
    assert np.array_equal(read(root, 3).images, few)


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    images = (GREY > 99).astype(np.uint8) * 255
    assert np.array_equal(read(folder(tmp_path / "a", images, "1")).images, images)


def test_sub_folders_count(tmp_path: Path) -> None:
    folder(tmp_path / "a" / "x", GREY[:10])
    folder(tmp_path / "a" / "y", GREY[10:])
    (tmp_path / "a" / "x" / "dataset.json").write_text(
        json.dumps({"dataset": 1, "identity": "", "portion": 1, "done": 10}, indent=1), encoding="utf-8"
    )  # `gansweep sample` made them
    found = read(tmp_path / "a")
    assert np.array_equal(found.images, GREY)
    assert found.findings.left_out["not an image"].examples == ["x/dataset.json"]


def test_what_systems_leave_behind_is_no_sample(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", GREY)
    folder(root / "@eaDir", noise(3, 4))
    folder(root / "__MACOSX", noise(3, 4))
    (root / "._00001.png").write_bytes(b"\0\5\x16\7")
    (root / "Thumbs.db").write_bytes(b"x")
    (root / ".hidden.png").write_bytes(b"x")
    assert np.array_equal(read(root).images, GREY)


def test_a_zip_is_read(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", COLOUR)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in root.iterdir():
            archive.write(file, f"00000/img{file.name}")
        archive.writestr("dataset.json", "{}")
    assert np.array_equal(read(tmp_path / "a.zip", 3).images, COLOUR)


def test_jpegs_are_measured_and_told(tmp_path: Path) -> None:
    smooth = np.linspace(0, 200, 20 * 64).reshape(20, 8, 8, 1).astype(np.uint8)
    found = read(folder(tmp_path / "a", smooth, suffix=".jpg"))
    assert np.abs(found.images.astype(int) - smooth).max() < 30
    assert found.findings.notes == ["samples: 20 of 20 are JPEG, whose losses are part of the fid"]


@pytest.mark.parametrize("names", [("cat", "dog"), ("class-00000", "class-00001")])
def test_folders_that_are_classes_of_the_data_are_labels(tmp_path: Path, names: tuple[str, str]) -> None:
    for i, name in enumerate(names):
        folder(tmp_path / "a" / name, GREY[i * 10 : i * 10 + 10])
    assert read(tmp_path / "a").labels is None
    assert read(tmp_path / "a", classes=("x", "y", "z")[: 3 if names[0] == "cat" else 1]).labels is None
    found = read(tmp_path / "a", classes=("cat", "dog", "owl"))
    assert found.labels is not None
    assert found.labels.tolist() == [0] * 10 + [1] * 10


def test_a_folder_around_the_classes_is_no_class(tmp_path: Path) -> None:
    for i, name in enumerate(("cat", "dog")):
        folder(tmp_path / "a" / "samples" / "0100k" / name, GREY[i * 10 : i * 10 + 10])
    found = read(tmp_path / "a", classes=("cat", "dog"))
    assert found.labels is not None
    assert found.labels.tolist() == [0] * 10 + [1] * 10
    only = read(tmp_path / "a" / "samples" / "0100k" / "cat", classes=("cat", "dog"))
    assert (only.labels, only.findings.notes) == (None, [])


@pytest.mark.parametrize(
    ("place", "said"), [("emu", "emu is no class"), ("", "what lies beside the folders")]
)
def test_folders_that_are_no_classes_are_told(place: str, said: str, tmp_path: Path) -> None:
    folder(tmp_path / "cat", GREY[:10])
    folder(tmp_path / place, GREY[10:])
    found = read(tmp_path, classes=("cat", "dog"))
    assert found.labels is None
    assert [note for note in found.findings.notes if said in note]


# ---- arrays


@pytest.mark.parametrize("key", ["images", "arr_0", "x", "fakes"])
def test_an_npz_is_read(tmp_path: Path, key: str) -> None:
    labels = np.arange(20) % 3
    found = read(npz(tmp_path / "a.npz", **{key: GREY, "labels": labels}), classes=("a", "b", "c"))
    assert np.array_equal(found.images, GREY)
    assert found.labels is not None
    assert np.array_equal(found.labels, labels)
    flat = read(npz(tmp_path / "b.npz", images=GREY[..., 0]))
    assert np.array_equal(flat.images, GREY)
    assert flat.labels is None


@pytest.mark.parametrize(
    "images",
    [
        COLOUR.transpose(0, 3, 1, 2),
        np.concatenate([COLOUR, np.full((20, 8, 8, 1), 255, np.uint8)], -1),
        COLOUR.astype(np.float32),
        COLOUR.astype(np.int64),
        (COLOUR / 255).astype(np.float32),
        (COLOUR / 127.5 - 1).astype(np.float32),
        (COLOUR / 127.5 - 1).astype(np.float16),
    ],
)
def test_arrays_that_8_bits_hold_are_read(tmp_path: Path, images: np.ndarray) -> None:
    assert np.array_equal(read(npz(tmp_path / "a.npz", images=images), 3).images, COLOUR)


def test_grey_and_coloured_arrays(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", images=np.repeat(GREY, 3, -1))
    assert np.array_equal(read(file).images, GREY)
    assert np.array_equal(read(npz(tmp_path / "b.npz", images=GREY), 3).images, np.repeat(GREY, 3, -1))


def test_a_folder_of_npy_files(tmp_path: Path) -> None:
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", GREY[i * 10 : i * 10 + 10])
    assert np.array_equal(read(tmp_path).images, GREY)


def test_the_npz_files_that_gansweep_writes_into_a_folder(tmp_path: Path) -> None:
    labels = np.arange(20) % 2
    for i, part in enumerate((slice(0, 10), slice(10, 20))):
        npz(tmp_path / f"part-{i:05}.npz", images=GREY[part], labels=labels[part])
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    found = read(tmp_path, classes=("a", "b"))
    assert np.array_equal(found.images, GREY)
    assert found.labels is not None
    assert found.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (np.array(["dog", "cat"] * 10), ("cat", "dog"), [1, 0] * 10),
        (np.array(["dog", "emu"] * 10), ("cat", "dog"), None),
        (np.array([5, 7] * 10), ("5", "7"), [0, 1] * 10),
        (np.array([5, 9] * 10), ("5", "7"), None),
        (np.array([0, 1] * 10), (), None),
    ],
)
def test_labels_are_those_of_the_data(
    tmp_path: Path, labels: np.ndarray, classes: tuple[str, ...], expected: list[int] | None
) -> None:
    found = read(npz(tmp_path / "a.npz", images=GREY, labels=labels), classes=classes)
    assert (found.labels if found.labels is None else found.labels.tolist()) == expected


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": noise(size=9)}, r"uint8 \(20, 9, 9, 1\).*8x8.*--image-size 9"),
        ({"images": COLOUR}, "colours in .*grey"),
        ({"images": GREY / 255 + 0.001}, r"float64 \(20, 8, 8, 1\)"),
        ({"images": np.random.default_rng(0).normal(size=(20, 8, 8, 1))}, "float64"),
        ({"images": GREY.astype(np.uint16) * 257}, "uint16"),
        ({"images": np.full((20, 8, 8, 1), np.nan)}, "float64"),
        ({"images": np.concatenate([np.repeat(GREY, 3, -1), GREY], -1)}, "transparency in"),
        ({"a": GREY, "b": GREY}, "which array .* is unclear"),
        ({"images": np.full((20, 8, 8, 1), 7, np.uint8)}, "20 times the same.*differ from one another"),
        ({"images": np.array([{}] * 3, object)}, "object"),
        ({"images": noise(0)}, r"\(0, 8, 8, 1\)"),
    ],
)
def test_another_npz_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(npz(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(caught.value)


def test_bad_labels_are_refused_where_the_data_has_classes(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", images=GREY, labels=np.zeros(3, int))
    assert read(file).labels is None
    with pytest.raises(DataError, match=r"`labels` is int64 \(3,\).*integers \(20,\)"):
        read(file, classes=("a", "b"))


@pytest.mark.parametrize(
    ("images", "mode", "message"),
    [
        (noise(size=9), "", "9x9 L .*8x8.*--image-size 9"),
        (COLOUR, "", "colours in .*grey"),
        (noise(1).repeat(5, 0), "", "5 times the same image"),
        (GREY, "I;16", "8x8 I;16"),
    ],
)
def test_other_files_of_images_are_refused(
    tmp_path: Path, images: np.ndarray, mode: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(folder(tmp_path / "a", images, mode))


def test_transparency_and_animations_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", GREY)
    Image.fromarray(np.full((8, 8, 4), 99, np.uint8)).save(root / "x.png")
    with pytest.raises(DataError, match=r"8x8 RGBA in .*x\.png"):
        read(root)
    frames = [Image.fromarray(image[..., 0]) for image in GREY[:3]]
    frames[0].save(root / "x.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"3 frames of 8x8 L"):
        read(root)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere .*folder or a zip of images, or an npz"):
        read(tmp_path / "nowhere")
    (tmp_path / "a.parquet").touch()
    with pytest.raises(DataError, match=r"no samples at .*a\.parquet.*save them so"):
        read(tmp_path / "a.parquet")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no images: no file"):
        read(tmp_path / "a")
    (tmp_path / "a" / "x.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"no images: \.txt"):
        read(tmp_path / "a")
    (tmp_path / "a" / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a sample cannot be read.*x\.png"):
        read(tmp_path / "a")
    (tmp_path / "b.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="the npz cannot be read"):
        read(tmp_path / "b.npz")


def test_a_truncated_sample_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", GREY)
    file = root / "00003.png"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a sample cannot be read.*00003\.png"):
        read(root)


def test_a_small_file_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**11, 8, 8, 1)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="6400000000000 bytes, and there are 0"):
        read(tmp_path / "a.npz")


def test_more_than_fits_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_samples, "MAX_BYTES", 1000)
    for path in (folder(tmp_path / "a", GREY), npz(tmp_path / "a.npz", images=GREY)):
        with pytest.raises(DataError, match="too large for memory.*give fewer samples"):
            read(path)
