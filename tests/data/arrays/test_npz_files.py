"""npz and npy files of users: names, shapes, ranges, labels, large and hostile files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import noise, write_npz

from pipeline.data.arrays import npz_members
from pipeline.data.arrays.npz_files import npz_source
from pipeline.data.options import DataOptions
from pipeline.data.source_types import RawImages, SourceRequest
from pipeline.errors import DataError

GREY, COLOUR = noise((70, 8, 8)), noise((70, 8, 8, 3))
LABELS = np.arange(70) % 5


def read(path: Path, **options: object) -> RawImages:
    asked = DataOptions(**options)  # type: ignore[arg-type]
    return npz_source(SourceRequest(f"npz:{path}", path, asked, scratch=path.parent / "scratch")).read()


def pixels_of(raw: RawImages) -> np.ndarray:
    images, reasons = raw.images.read(np.arange(raw.images.shape[0]))
    assert set(reasons) == {""}
    return images


# ---- names of arrays


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "labels"),
        ("arr_0", "arr_1"),
        ("arr_1", "arr_0"),
        ("x", "y"),
        ("X", "y"),
        ("data", "target"),
        ("imgs", "targets"),
        ("image", "label"),
        ("x_train", "y_train"),
        ("train_images", "train_labels"),
        ("trainX", "trainY"),
        ("IMAGES", "Labels"),
        ("whatever", "labels"),
    ],
)
def test_names_that_others_give(images: str, labels: str, tmp_path: Path) -> None:
    raw = read(write_npz(tmp_path / "a.npz", **{images: GREY, labels: LABELS}))
    assert np.array_equal(pixels_of(raw)[..., 0], GREY)
    assert raw.labels is not None
    assert np.array_equal(raw.labels, LABELS)
    assert raw.held is None
    told = any(f"`{images}`" in note and f"`{labels}`" in note for note in raw.findings.notes)
    assert told is ((images, labels) != ("images", "labels"))
    assert raw.findings.classes_from == f"the array `{labels}`"


@pytest.mark.parametrize(
    ("form", "held_parts"),
    [
        ("{kind}_{part}", {"x": "x", "y": "y", "parts": ("train", "test")}),
        ("{part}_{kind}", {"x": "images", "y": "labels", "parts": ("train", "val", "test")}),
        ("{part}/{kind}", {"x": "data", "y": "target", "parts": ("training", "validation")}),
    ],
)
def test_the_split_of_the_file(form: str, held_parts: dict[str, object], tmp_path: Path) -> None:
    arrays: dict[str, object] = {}
    images, labels, held = [], [], []
    for i, part in enumerate(held_parts["parts"]):  # type: ignore[arg-type]
        count = 70 if i == 0 else 20
        images.append(noise((count, 8, 8), i))
        labels.append(np.arange(count)[:, None] % (i + 2))  # MedMNIST's are columns
        held += [i > 0] * count
        arrays[form.format(kind=held_parts["x"], part=part)] = images[-1]
        arrays[form.format(kind=held_parts["y"], part=part)] = labels[-1]
    raw = read(write_npz(tmp_path / "a.npz", **arrays))
    assert np.array_equal(pixels_of(raw)[..., 0], np.concatenate(images))
    assert raw.labels is not None
    assert np.array_equal(raw.labels, np.concatenate(labels)[:, 0])
    assert raw.held is not None
    assert raw.held.tolist() == held


def test_only_a_test_part_is_all_there_is(tmp_path: Path) -> None:
    raw = read(write_npz(tmp_path / "a.npz", x_test=GREY, y_test=LABELS))
    assert raw.held is None
    assert raw.images.shape == (70, 8, 8, 1)


def test_labels_of_one_part_only_are_told(tmp_path: Path) -> None:
    raw = read(write_npz(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY))
    assert raw.labels is None
    assert any("`x_test` has none" in note for note in raw.findings.notes)


def test_what_is_not_used_is_told(tmp_path: Path) -> None:
    raw = read(write_npz(tmp_path / "a.npz", images=GREY, masks=GREY))
    assert raw.findings.notes == ["arrays that are not used: masks uint8 (70, 8, 8)"]


@pytest.mark.parametrize(
    ("arrays", "seen", "fix"),
    [
        ({"a": GREY, "b": COLOUR}, r"a uint8 \(70, 8, 8\), b uint8 \(70, 8, 8, 3\)", "images=a['a']"),
        ({"x": GREY, "X": GREY}, "x uint8", "images=a['x']"),
        (
            {"arr_0": GREY, "arr_1": LABELS, "arr_2": GREY},
            r"arr_0 .*arr_2 uint8",
            "images=a['arr_0'], labels=a['arr_1']",
        ),
        ({"x": GREY, "x_train": GREY}, "x uint8.*x_train", "images=a['x']"),
    ],
)
def test_two_candidates_are_refused(arrays: dict[str, object], seen: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"which array .* is unclear: {seen}") as caught:
        read(write_npz(tmp_path / "a.npz", **arrays))
    assert fix in caught.value.fix
    assert "\n" not in str(caught.value)


def test_no_images_lists_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in the npz: y int64 \(70,\), z float64 \(3,\)"):
        read(write_npz(tmp_path / "a.npz", y=LABELS, z=np.zeros(3)))


def test_the_command_of_a_refusal_repairs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read(write_npz(tmp_path / "a.npz", a=GREY, b=COLOUR, labels=LABELS))
    subprocess.run(caught.value.fix.replace("python ", f"{sys.executable} ", 1), shell=True, check=True)
    raw = read(tmp_path / "fixed.npz")
    assert np.array_equal(pixels_of(raw)[..., 0], GREY)
    assert raw.labels is not None


# ---- layout


def test_channels_first_is_turned_and_told(tmp_path: Path) -> None:
    raw = read(write_npz(tmp_path / "a.npz", images=COLOUR.transpose(0, 3, 1, 2)))
    assert np.array_equal(pixels_of(raw), COLOUR)
    assert raw.findings.notes == [
        "images: (70, 3, 8, 8) is read as (N,C,H,W), channels first; transpose it if that is wrong"
    ]
    raw = read(write_npz(tmp_path / "b.npz", images=GREY[:, None]))
    assert np.array_equal(pixels_of(raw)[..., 0], GREY)


def test_transparent_images_lie_over_the_background(tmp_path: Path) -> None:
    images = np.concatenate([COLOUR, np.full((70, 8, 8, 1), 255, np.uint8)], -1)
    images[:, 0, 0, 3], images[:, 0, 1] = 0, (200, 100, 0, 51)
    raw = read(write_npz(tmp_path / "a.npz", images=images), background="#0a141e")
    found = pixels_of(raw)
    assert np.array_equal(found[:, 1:], COLOUR[:, 1:])
    assert (found[:, 0, 0] == (10, 20, 30)).all()
    assert (found[:, 0, 1] == (48, 36, 24)).all()
    assert "transparency" in raw.findings.notes[0]


@pytest.mark.parametrize(
    ("images", "fix"),
    [
        (noise((70, 64)), "A.reshape(-1, 1, 8, 8)"),
        (noise((70, 192)), "A.reshape(-1, 3, 8, 8)"),
        (noise((8, 8, 3, 70)), "A.transpose(3, 0, 1, 2)"),
        (noise((70, 4, 8, 8)), "A[:, :3]"),
        (noise((70, 8, 8, 2)), "A[..., 0]"),
        (noise((70, 9, 9, 9)), "A[:, 4]"),
        (noise((7, 10, 8, 8, 3)), "A.reshape(-1, *A.shape[2:])"),
        (noise((70, 3, 3, 3)), "at least 8x8"),
        (noise((70, 3, 8, 1)), "at least 8x8"),
        (noise((80, 80, 3)), "at least 8x8"),
        (noise((70, 8, 0)), "write images into it"),
    ],
)
def test_other_shapes_are_named_with_their_command(images: np.ndarray, fix: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"the array `images` is uint8 {str(images.shape)[:-1]}".replace("(", r"\(")
    ) as caught:
        read(write_npz(tmp_path / "a.npz", images=images))
    assert fix.replace("A", "a['images']") in caught.value.fix


def test_a_repaired_shape_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read(write_npz(tmp_path / "a.npz", images=GREY.reshape(70, 64), labels=LABELS))
    subprocess.run(caught.value.fix.replace("python ", f"{sys.executable} ", 1), shell=True, check=True)
    raw = read(tmp_path / "fixed.npz")
    assert np.array_equal(pixels_of(raw)[..., 0], GREY)
    assert raw.labels is not None


# ---- ranges of values


@pytest.mark.parametrize(
    ("images", "expected", "told"),
    [
        (GREY / 255, GREY, "float64 from 0 to 1 is read as [0, 1]"),
        ((GREY / 255).astype(np.float16), GREY, "float16 from 0 to 1"),
        ((GREY / 127.5 - 1).astype(np.float32), GREY, "float32 from -1 to 1 is read as [-1, 1]"),
        (GREY.astype(np.float32), GREY, "float32 from 0 to 255 is read as [0, 255]"),
        (GREY.astype(np.int64), GREY, "int64 from 0 to 255 is read as [0, 255]"),
        ((GREY * 257.0).astype(">u2"), GREY, "uint16 from 0 to 65535 is read as [0, 65535]"),
        (GREY.astype(np.uint16) * 16, GREY, "uint16 from 0 to 4080 is read as [0, 4080]"),
        (GREY.astype(np.int8) // 2 + 0, None, "int8 from -64 to 63 is read as [-64, 63]"),
        ((GREY > 99), (GREY > 99) * 255, "bool from 0 to 1"),
        ((GREY > 99).astype(np.uint8), (GREY > 99) * 255, "uint8 from 0 to 1 is read as [0, 1]"),
        (GREY // 16.0, (GREY // 16) * 17, "float64 from 0 to 15 is read as [0, 15]"),
        (GREY * 1.0 - 100, GREY, "float64 from -100 to 155 is read as [-100, 155]"),
    ],
)
def test_other_types_become_8_bits(
    images: np.ndarray, expected: np.ndarray, told: str, tmp_path: Path
) -> None:
    raw = read(write_npz(tmp_path / "a.npz", images=images))
    found = pixels_of(raw)[..., 0]
    if expected is not None:
        assert np.array_equal(found, expected)
    assert (found.min(), found.max()) == (0, 255)
    assert told in raw.findings.notes[0]


def test_both_parts_have_one_range(tmp_path: Path) -> None:
    dark = np.full((70, 8, 8), 0.25)
    raw = read(write_npz(tmp_path / "a.npz", x_train=dark, x_test=dark * 8 - 3))
    assert set(pixels_of(raw)[:70].ravel()) == {159}  # 0.25 of [-1, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    images = GREY / 255
    images[33, 2, 2] = value
    with pytest.raises(DataError, match="finite numbers.*nan_to_num"):
        read(write_npz(tmp_path / "a.npz", images=images))


@pytest.mark.parametrize("images", [GREY.astype(complex), GREY.astype("U3"), GREY.astype("M8[s]")])
def test_what_are_no_numbers_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pixels are numbers"):
        read(write_npz(tmp_path / "a.npz", images=images))


def test_a_dark_uint8_image_stays_dark(tmp_path: Path) -> None:
    assert np.array_equal(
        pixels_of(read(write_npz(tmp_path / "a.npz", images=GREY // 64)))[..., 0], GREY // 64
    )


# ---- labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([7, -3, 1000] * 30, np.int16), [7, -3, 1000] * 30),
        (np.array([[7], [3], [1]] * 30), [7, 3, 1] * 30),
        (np.array([2.0, 0.0, 1.0] * 30, np.float32), [2, 0, 1] * 30),
        (np.array([True, False, True] * 30), [1, 0, 1] * 30),
        (np.array([3, 1, 2] * 30, ">u2"), [3, 1, 2] * 30),
    ],
)
def test_labels_become_integers(labels: np.ndarray, expected: list[int], tmp_path: Path) -> None:
    raw = read(write_npz(tmp_path / "a.npz", images=noise((90, 8, 8)), labels=labels))
    assert raw.labels is not None
    assert raw.labels.dtype == np.int64
    assert raw.labels.tolist() == expected
    assert raw.names == ()


@pytest.mark.parametrize("dtype", ["U9", "S9"])
def test_texts_become_class_names(dtype: str, tmp_path: Path) -> None:
    raw = read(
        write_npz(tmp_path / "a.npz", images=noise((60, 8, 8)), labels=np.array(["dog", "cat"] * 30, dtype))
    )
    assert list(raw.names) == ["cat", "dog"]
    assert raw.labels is not None
    assert raw.labels.tolist() == [1, 0] * 30


def test_class_names_beside_the_labels(tmp_path: Path) -> None:
    names = np.array(["a", "b", "c", "d", "e"])
    raw = read(write_npz(tmp_path / "a.npz", images=GREY, labels=LABELS, class_names=names))
    assert list(raw.names) == list("abcde")
    assert raw.findings.notes == []


def test_class_names_of_bytes(tmp_path: Path) -> None:
    names = np.array([b"cat", b"dog", b"\xc3\xa4", b"x\xff", b""])
    path = write_npz(tmp_path / "a.npz", images=GREY, labels=LABELS, class_names=names)
    assert list(read(path).names) == ["cat", "dog", "ä", "x\\xff", ""]


def test_what_macos_puts_into_a_zip_is_no_array(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", images=GREY, labels=LABELS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._images.npy", b"\0\5\x16\7" + bytes(60))
    assert np.array_equal(pixels_of(read(path)), GREY[..., None])


def test_masks_beside_the_images_are_no_labels(tmp_path: Path) -> None:
    masks = GREY > 9
    path = write_npz(tmp_path / "a.npz", x_train=GREY, y_train=masks, x_test=GREY[:20], y_test=masks[:20])
    raw = read(path)
    assert raw.labels is None
    assert raw.findings.notes[0].startswith("labels: `y_train` bool (70, 8, 8) has 64 values for each image")


def test_several_labels_for_an_image_are_left_out_and_told(tmp_path: Path) -> None:
    labels = np.zeros((70, 14), np.int64)
    labels[::2, :3] = 1
    raw = read(write_npz(tmp_path / "a.npz", train_images=GREY, train_labels=labels))
    assert raw.labels is None
    assert "14 values for each image" in raw.findings.notes[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(5)[LABELS], r"float64 \(70, 5\).*one-hot.*reshape\(len\(a\['labels'\]\), -1\).argmax\(1\)"),
        (np.zeros(69, int), r"int64 \(69,\).*integers \(70,\).*--classes none"),
        (np.full(70, 0.5), "float64.*--classes none"),
        (np.full(70, np.nan), "float64"),
        (np.full(70, 2**64 - 1, np.uint64), "uint64"),
        (np.zeros(70, "c8"), "complex64"),
        (np.array([None] * 70, object), "pickled objects are never read.*allow_pickle=True"),
    ],
)
def test_other_labels_are_refused(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", images=GREY, labels=labels)
    with pytest.raises(DataError, match=f"the array `labels` is .*{message}"):
        read(file)
    assert read(file, classes="none").labels is None


# ---- files


def test_an_npy_file_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOUR)
    assert np.array_equal(pixels_of(read(tmp_path / "a.npy")), COLOUR)
    np.save(tmp_path / "b.npy", COLOUR.reshape(70, -1))
    with pytest.raises(DataError, match=r"np.save\('fixed.npy', A.reshape\(-1, 3, 8, 8\)\)"):
        read(tmp_path / "b.npy")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("form", ["stored", "packed", "npy"])
@pytest.mark.parametrize("dtype", ["u1", ">u2"])
def test_large_arrays_are_mapped(
    order: str, form: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz_members, "IN_MEMORY", 0)
    images, file = (
        np.array(COLOUR.astype(dtype) * (257 if dtype == ">u2" else 1), order=order),
        tmp_path / "a.npz",
    )  # type: ignore[call-overload]
    images = images.astype(dtype, order=order)  # type: ignore[call-overload]
    if form == "npy":
        file = tmp_path / "a.npy"
        np.save(file, images)
    else:
        (np.savez if form == "stored" else np.savez_compressed)(file, first=LABELS, images=images)
    array = npz_members.load_array(file, "images", tmp_path / "scratch")
    assert isinstance(array, np.memmap)
    assert array.flags.c_contiguous
    assert np.array_equal(array, images)
    assert np.array_equal(pixels_of(read(file)), COLOUR)
    assert not list((tmp_path / "scratch").glob("*"))


def test_a_flipped_byte_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_members, "IN_MEMORY", 0)
    file = write_npz(tmp_path / "a.npz", images=COLOUR)
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="the npz cannot be read: Bad CRC-32"):
        read(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_damaged_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="the npz cannot be read.*must be an npz file"):
        read(tmp_path / "a.npz")


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "unpickled"),)

    bombs = np.array([Bomb()] * 70, object)
    for arrays in (
        {"images": GREY, "labels": bombs},
        {"images": bombs},
        {"images": GREY, "class_names": bombs},
    ):
        file = write_npz(tmp_path / "a.npz", **arrays)
        if "class_names" in arrays:
            assert read(file).names == ()
            continue
        with pytest.raises(DataError, match="pickled objects are never read"):
            read(file)
    assert not (tmp_path / "unpickled").exists()


def test_npz_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1024, 1024, 3)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="takes 3145728000000 bytes, and there are 0"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("reason", ["full", "read-only"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_does_where_the_disk_does_not(
    reason: str, order: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz_members, "IN_MEMORY", 0)
    if reason == "full":
        monkeypatch.setattr(npz_members.shutil, "disk_usage", lambda path: type("usage", (), {"free": 9}))  # type: ignore[attr-defined]
    else:
        (tmp_path / "scratch").write_text("in the way", encoding="utf-8")
    np.savez_compressed(tmp_path / "a.npz", images=np.asarray(COLOUR, order=order))
    assert np.array_equal(pixels_of(read(tmp_path / "a.npz")), COLOUR)
    np.save(tmp_path / "b.npy", np.asarray(COLOUR, order=order))
    assert np.array_equal(pixels_of(read(tmp_path / "b.npy")), COLOUR)
    monkeypatch.setattr(npz_members, "memory_bytes", lambda: 1000)
    with pytest.raises(DataError, match="the disk is too full.*numpy.savez .not compressed."):
        read(tmp_path / "a.npz")


def test_other_paths_are_told_their_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file .*nowhere.npz"):
        read(tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match=f"is a folder.*did you mean 'folder:{tmp_path}'"):
        read(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    with pytest.raises(DataError, match=f"did you mean 'zip:{tmp_path}/a.zip'"):
        read(tmp_path / "a.zip")
