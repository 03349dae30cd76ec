"""Named sources: sets inside packages, torchvision's sets from local files."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from images import noise, write_folder

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.options import DataOptions
from pipeline.data.source_types import Labels, Pixels
from pipeline.data.sources.lookup import find_source
from pipeline.data.sources.torchvision_sets import _to_nhwc
from pipeline.errors import ConfigError, DataError
from pipeline.tables import DATA_SOURCES, DataSourceRow
from pipeline.user_code import UserCode, read_code, use_code


def all_images(dataset: Dataset) -> list[bytes]:
    return sorted(image.tobytes() for part in (dataset.train, dataset.held) for image in part)


def test_mnist5k_is_5000_real_digits(digits: Dataset) -> None:
    assert digits.train.shape == (4500, 28, 28, 1)
    assert digits.held.shape == (500, 28, 28, 1)
    assert digits.train.dtype == np.uint8
    assert (digits.size, digits.channels, digits.labelled) == (28, 1, True)
    assert digits.classes == tuple("0123456789")
    assert digits.train.max() == 255
    assert digits.held_labels is not None
    assert np.bincount(digits.held_labels).tolist() == [50] * 10
    # Ones use least ink, zeros most: pixels and labels belong together.
    ink = [digits.train[digits.train_labels == k].mean() for k in range(10)]
    assert (int(np.argmin(ink)), int(np.argmax(ink))) == (1, 0)


def test_digits_fill_the_range() -> None:
    dataset = load_dataset("digits")
    assert (dataset.size, dataset.channels, len(dataset.classes)) == (8, 1, 10)
    assert len(dataset.train) + len(dataset.held) == 1797
    assert set(np.unique(dataset.train)) <= {round(v * 255 / 16) for v in range(17)}
    assert dataset.train.max() == 255


def test_image_size_applies_to_every_source() -> None:
    assert load_dataset("digits", DataOptions(size=16)).train.shape[1:] == (16, 16, 1)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("mnst", "'mnist'"),
        ("cifar", "'cifar10'"),
        ("", "valid names"),
        ("folder:", "folder:PATH"),
        ("digits:", "'digits'"),
        ("x:y:z", "module:function"),
    ],
)
def test_unknown_source_names_a_valid_one(source: str, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        load_dataset(source)


def test_bare_path_is_told_its_prefix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"did you mean 'folder:{tmp_path}'"):
        load_dataset(str(tmp_path))


def test_a_bare_file_is_told_its_prefix(tmp_path: Path) -> None:
    for name, source in (("a.npz", "npz"), ("a.npy", "npz"), ("a.zip", "zip"), ("a.parquet", "hf")):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=f"did you mean '{source}:{tmp_path / name}'"):
            load_dataset(str(tmp_path / name))


def test_a_bare_folder_of_parquet_is_told_its_prefix(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").touch()
    with pytest.raises(DataError, match=f"did you mean 'hf:{tmp_path}'"):
        load_dataset(str(tmp_path))


def write_idx(raw: Path, images: Pixels, labels: Labels) -> None:
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        sizes = struct.pack(">IIII", 2051, *images.shape[:3])
        (raw / f"{part}-images-idx3-ubyte").write_bytes(sizes + images.tobytes())
        head = struct.pack(">II", 2049, len(labels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("source", "folder"), [("mnist", "MNIST"), ("kmnist", "KMNIST")])
def test_named_set_from_local_files(source: str, folder: str, digits: Dataset, tmp_path: Path) -> None:
    assert digits.train_labels is not None
    write_idx(tmp_path / "down" / folder / "raw", digits.train[::11], digits.train_labels[::11])
    dataset = load_dataset(source, download=tmp_path / "down")
    assert all_images(dataset) == sorted(image.tobytes() for image in digits.train[::11])
    assert len(dataset.classes) == len(np.unique(digits.train_labels[::11]))
    for image, label in zip(dataset.held[:20], dataset.held_labels[:20], strict=True):  # type: ignore[index]
        twin = next(i for i in range(4500) if np.array_equal(digits.train[i], image))
        assert digits.train_labels[twin] == label


def test_named_set_offline_says_where_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: None)
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10")
    assert str(tmp_path / "cache" / "downloads" / "cifar-10-python.tar.gz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_named_set_is_a_user_error(tmp_path: Path) -> None:
    write_idx(tmp_path / "down" / "MNIST" / "raw", noise((80, 28, 28, 1)), np.arange(80) % 10)
    (tmp_path / "down" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"oops")
    with pytest.raises(DataError, match="mnist cannot be read.*torchvision downloads it"):
        load_dataset("mnist", download=tmp_path / "down")


@pytest.mark.parametrize(
    ("shape", "transposed", "expected"),
    [
        ((5, 6, 7), False, (5, 6, 7, 1)),
        ((5, 6, 7), True, (5, 7, 6, 1)),
        ((5, 3, 8, 8), False, (5, 8, 8, 3)),
        ((5, 8, 8, 3), False, (5, 8, 8, 3)),
    ],
)
def test_layouts_of_named_sets(shape: tuple[int, ...], transposed: bool, expected: tuple[int, ...]) -> None:
    assert _to_nhwc(noise(shape), transposed).shape == expected


def test_every_named_set_exists_in_torchvision() -> None:
    import torchvision.datasets

    names = [row.arguments["class_name"] for row in DATA_SOURCES.values() if "class_name" in row.arguments]
    assert len(names) == 10
    assert all(hasattr(torchvision.datasets, str(name)) for name in names)


def test_help_names_every_form() -> None:
    text = DATA_SOURCES.describe()
    assert text.startswith("mnist5k, digits, mnist, ")
    assert text.endswith("folder:PATH, zip:PATH, npz:PATH, hf:NAME|PATH or module:function")


# ---- one more row; functions of the user's own

OWN = """
import numpy as np

def grey():
    return np.arange(70 * 9 * 9).reshape(70, 9, 9).astype(np.uint8)

def labelled():
    return grey()[..., None], np.arange(70) % 5

def sized(*, size=0):
    return np.full((70, size or 8, size or 8, 3), np.arange(70)[:, None, None, None], np.uint8)

def floats():
    return grey() / 255

def channels_first():
    return np.repeat(grey()[:, None], 3, 1), [str(i % 2) for i in range(70)]

def nothing():
    return grey() * np.nan

def one_hot():
    return grey(), np.eye(70)

def flat():
    return grey().reshape(70, 81)

def mislabelled():
    return grey(), np.full(70, 0.5)

def three():
    return grey(), None, None

def few():
    return grey()[:9]

def broken():
    return open("/nowhere/at/all")

number = 7

def mapping():
    return {"images": grey()}

def one_by_one():
    yield from grey()

def returns_nothing():
    pass
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    use_code(read_code(["own:grey"], [tmp_path]))
    yield file
    use_code(UserCode())


def test_a_row_adds_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    row = DataSourceRow(target="pipeline.data.sources.packaged:digits", meaning="the digits again")
    monkeypatch.setitem(DATA_SOURCES, "digits-again", row)
    assert "digits-again or module:function" in DATA_SOURCES.describe()
    assert load_dataset("digits-again").fingerprint == load_dataset("digits").fingerprint


@pytest.mark.usefixtures("own")
def test_a_function_returns_images_and_perhaps_labels() -> None:
    grey, labelled = load_dataset("own:grey"), load_dataset("own:labelled")
    assert (grey.train.shape[1:], grey.labelled, grey.source) == ((9, 9, 1), False, "own:grey")
    assert all_images(labelled) == all_images(grey)
    assert labelled.classes == tuple("01234")
    assert load_dataset("own:grey", DataOptions(size=12)).size == 12


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "kind"), [("mapping", "dict"), ("one_by_one", "generator"), ("returns_nothing", "NoneType")]
)
def test_what_is_no_array_is_named(name: str, kind: str) -> None:
    with pytest.raises(DataError, match=f"own:{name} returns {kind} .it returns an array of images, or"):
        load_dataset(f"own:{name}")


@pytest.mark.usefixtures("own")
def test_what_a_function_returns_is_understood_as_an_npz_is() -> None:
    floats, planes = load_dataset("own:floats"), load_dataset("own:channels_first")
    assert all_images(floats) == all_images(load_dataset("own:grey"))
    assert any("float64 from 0 to 1 is read as [0, 1]" in note for note in floats.understood.notes)
    assert all_images(planes) == all_images(floats)  # three equal channels are grey
    assert planes.classes == ("0", "1")
    assert any("channels first" in note for note in planes.understood.notes)
    assert not load_dataset("own:channels_first", DataOptions(classes="none")).labelled


@pytest.mark.usefixtures("own")
def test_a_function_that_takes_a_size_gets_it() -> None:
    assert load_dataset("own:sized", DataOptions(size=16)).train.shape[1:] == (
        16,
        16,
        1,
    )  # grey in three channels
    assert load_dataset("own:sized").size == 8


def test_a_function_is_called_every_time(own: Path) -> None:
    first = load_dataset("own:grey").fingerprint
    assert load_dataset("own:grey").fingerprint == first
    own.write_text(OWN + "\nold = grey\ndef grey():\n    return 255 - old()\n")
    use_code(read_code(["own:grey"], [own.parent]))
    assert load_dataset("own:grey").fingerprint != first


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("own:nothing", DataError, r"`images` is float64 .* in own:nothing.*return np.nan_to_num\(images\)"),
        ("own:flat", DataError, r"`images` is uint8 \(70, 81\).*return images.reshape\(-1, 1, 9, 9\)"),
        ("own:mislabelled", DataError, r"`labels` is float64 .*integers \(70,\)"),
        ("own:one_hot", DataError, r"one-hot.*return labels.reshape\(len\(labels\), -1\).argmax\(1\)"),
        ("own:few", DataError, "9 usable images in own:few"),
        ("own:three", ConfigError, "own:three does not work: ValueError: too many values"),
        ("own:broken", ConfigError, r"own:broken does not work: FileNotFound.*own.py \(line 38\)"),
        ("own:number", ConfigError, "own:number does not work: TypeError"),
        ("own:gray", ConfigError, "own has no gray.*'grey'"),
        ("other:grey", ConfigError, "other cannot be loaded"),
    ],
)
def test_a_function_that_does_not_work_is_refused(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)


def test_a_source_with_a_path_goes_before_a_module_of_its_name(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "pictures", noise((70, 8, 8, 1)))
    assert not DATA_SOURCES.is_user_code("folder:pictures")
    assert DATA_SOURCES.is_user_code("own:grey")
    with pytest.raises(DataError, match="no folder pictures"):
        load_dataset("folder:pictures")
    assert len(load_dataset(f"folder:{images}").train) == 54


@pytest.mark.parametrize("classes", ["labels.csv", "folders"])
@pytest.mark.parametrize("source", ["npz:a.npz", "hf:a.parquet", "digits", "cifar10"])
def test_classes_of_files_need_files(source: str, classes: str) -> None:
    with pytest.raises(DataError, match=f"--classes {classes} fits no {source} .only folder: and zip: have"):
        find_source(source, DataOptions(classes=classes))


def test_every_source_can_be_read_without_its_classes() -> None:
    with_classes, without = load_dataset("digits"), load_dataset("digits", DataOptions(classes="none"))
    assert (with_classes.labelled, without.labelled, without.classes) == (True, False, ())
    assert with_classes.fingerprint != without.fingerprint
