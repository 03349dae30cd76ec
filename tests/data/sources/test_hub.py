"""Copies of Hugging Face data sets, made here: parquet files, folders of save_to_disk."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import noise
from PIL import Image

from pipeline.data.dataset import load_dataset
from pipeline.data.options import DataOptions
from pipeline.data.source_types import ImageSource, RawImages, SourceRequest
from pipeline.data.sources.hub import hub_source
from pipeline.errors import DataError

datasets = pytest.importorskip("datasets", reason="pip install 'gansweep[hf]'")
datasets.disable_progress_bars()

COLOUR = noise((100, 16, 16, 3))
LABELS = np.arange(100) % 2


def png(image: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG")
    return written.getvalue()


def table(
    images: np.ndarray, labels: Any = None, *, image: str = "image", label: str = "label", kind: Any = None
) -> Any:
    """A data set with encoded images; kind: the type of the column of labels."""
    columns = {image: [{"bytes": png(pixels), "path": None} for pixels in images]}
    features = {image: datasets.Image()}
    if labels is not None:
        columns[label] = list(labels)
        features[label] = kind or datasets.ClassLabel(names=["cat", "dog"])
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def source(path: Path | str, scratch: Path, **options: Any) -> ImageSource:
    return hub_source(SourceRequest(f"hf:{path}", Path(path), DataOptions(**options), scratch=scratch))


def read(path: Path | str, scratch: Path, **options: Any) -> tuple[RawImages, np.ndarray]:
    raw = source(path, scratch, **options).read()
    images, reasons = raw.images.read(np.arange(raw.images.shape[0]))
    assert set(reasons) == {""}
    return raw, images


def split() -> Any:
    parts = {"train": slice(0, 80), "test": slice(80, 100)}
    return datasets.DatasetDict({name: table(COLOUR[part], LABELS[part]) for name, part in parts.items()})


@pytest.mark.parametrize("form", ["saved", "parquet", "card"])
def test_splits_classes_and_pixels_of_a_copy(form: str, tmp_path: Path) -> None:
    root = tmp_path / "copy [1]"
    if form == "saved":
        split().save_to_disk(root)
    else:
        (root / "data").mkdir(parents=True)
        for name, part in split().items():
            part.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    if form == "card":
        root = root.rename(tmp_path / "copy")
        card = (
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        )
        (root / "README.md").write_text(
            f"{card}  - split: test\n    path: data/test-*\n---\n", encoding="utf-8"
        )
    raw, images = read(root, tmp_path / "scratch")
    assert np.array_equal(images, COLOUR)
    assert raw.labels is not None
    assert np.array_equal(raw.labels, LABELS)
    assert list(raw.names) == ["cat", "dog"]
    assert raw.held is not None
    assert np.array_equal(raw.held, np.arange(100) >= 80)
    assert (raw.files[0], raw.files[99]) == ("train[0]", "test[19]")
    assert raw.findings.classes_from == "the column `label`"
    assert raw.findings.notes == ["splits: `train` for training, `test` held out; --split merge ignores it"]


def test_one_parquet_file_and_rows_in_any_order(tmp_path: Path) -> None:
    split()["test"].to_parquet(tmp_path / "test-00000.parquet")
    table(COLOUR, LABELS).to_parquet(tmp_path / "all.parquet")
    raw, _ = read(tmp_path / "all.parquet", tmp_path / "scratch")
    assert raw.held is None
    found, _ = raw.images.read(np.array([99, 0, 99]))
    assert np.array_equal(found, COLOUR[[99, 0, 99]])


def test_a_copy_becomes_a_data_set_and_leaves_nothing_behind(tmp_path: Path) -> None:
    table(COLOUR, LABELS).to_parquet(tmp_path / "all.parquet")
    dataset = load_dataset(f"hf:{tmp_path}/all.parquet", cache=tmp_path / "own")
    assert (dataset.size, dataset.channels, dataset.classes) == (16, 3, ("cat", "dog"))
    assert sorted(i.tobytes() for i in (*dataset.train, *dataset.held)) == sorted(i.tobytes() for i in COLOUR)
    assert not list((tmp_path / "own" / "scratch").glob("*"))


def test_a_read_only_cache_is_no_obstacle(tmp_path: Path) -> None:
    table(COLOUR, LABELS).to_parquet(str(tmp_path / "a.parquet"))
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    _, images = read(tmp_path / "a.parquet", tmp_path / "file")
    assert np.array_equal(images, COLOUR)


def test_the_key_changes_with_the_files(tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    table(COLOUR[:70]).to_parquet(file)
    first = source(file, tmp_path / "scratch").key
    assert source(file, tmp_path / "scratch").key == first
    table(COLOUR[:71]).to_parquet(file)
    assert source(file, tmp_path / "scratch").key != first


def test_what_gansweep_writes_is_read(tmp_path: Path) -> None:
    """`gansweep sample --format parquet`: parts beside a dataset.json."""
    for i in range(2):
        part = slice(50 * i, 50 * i + 50)
        table(COLOUR[part], LABELS[part]).to_parquet(tmp_path / f"part-{i:05}.parquet")
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    raw, images = read(tmp_path, tmp_path / "scratch")
    assert np.array_equal(images, COLOUR)
    assert raw.held is None


def test_splits_of_other_names(tmp_path: Path) -> None:
    parts = {"train": table(COLOUR[:80], LABELS[:80]), "unsupervised": table(COLOUR[80:], LABELS[80:])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "a")
    raw, images = read(tmp_path / "a", tmp_path / "scratch")
    assert len(images) == 80
    assert raw.findings.left_out["in the split `unsupervised`"].count == 20
    datasets.DatasetDict({"test": table(COLOUR, LABELS)}).save_to_disk(tmp_path / "b")
    raw, images = read(tmp_path / "b", tmp_path / "scratch")
    assert (len(images), raw.held) == (100, None)


def test_a_test_split_with_secret_labels_is_left_out(tmp_path: Path) -> None:
    parts = {"train": table(COLOUR[:80], LABELS[:80]), "test": table(COLOUR[80:], [-1] * 20)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "a")
    raw, images = read(tmp_path / "a", tmp_path / "scratch")
    assert np.array_equal(images, COLOUR[:80])
    assert raw.held is None
    assert raw.findings.left_out["without a class in the column `label`"].count == 20
    raw, images = read(tmp_path / "a", tmp_path / "scratch", classes="none")
    assert (len(images), raw.labels) == (100, None)


@pytest.mark.parametrize(
    ("labels", "kind", "names", "expected"),
    [
        (["dog", "cat"] * 50, datasets.Value("string"), ["cat", "dog"], [1, 0] * 50),
        ([5, 7] * 50, datasets.Value("int32"), [], [5, 7] * 50),
        ([True, False] * 50, datasets.Value("bool"), [], [1, 0] * 50),
        ([0.5, 0.7] * 50, datasets.Value("float32"), (), None),
        ([[0, 1]] * 100, datasets.List(datasets.Value("int32")), (), None),
    ],
)
def test_columns_of_labels(labels: Any, kind: Any, names: list[str], expected: Any, tmp_path: Path) -> None:
    table(COLOUR, labels, kind=kind).to_parquet(tmp_path / "a.parquet")
    raw, _ = read(tmp_path / "a.parquet", tmp_path / "scratch")
    assert list(raw.names) == list(names)
    assert (None if raw.labels is None else raw.labels.tolist()) == expected


@pytest.mark.parametrize(
    ("values", "kind", "said"), [(0.5, datasets.Value("float32"), "float32"), ([1, 2], None, "List")]
)
def test_a_column_of_labels_that_is_of_no_use_is_told(
    values: Any, kind: Any, said: str, tmp_path: Path
) -> None:
    kind = kind or datasets.Sequence(datasets.Value("int64"))
    table(COLOUR, [values] * 100, kind=kind).save_to_disk(str(tmp_path / "copy"))
    raw, _ = read(tmp_path / "copy", tmp_path / "scratch")
    assert raw.labels is None
    assert raw.findings.notes == [f"classes: the column `label` of {said} is not used; integers or texts are"]


def test_one_of_two_columns_of_classes(tmp_path: Path) -> None:
    both = table(COLOUR, LABELS, label="coarse_label").add_column("fine_label", LABELS[::-1].copy())
    both = both.cast_column("fine_label", datasets.ClassLabel(names=["a", "b"]))
    both.to_parquet(tmp_path / "a.parquet")
    raw, _ = read(tmp_path / "a.parquet", tmp_path / "scratch")
    assert list(raw.names) == ["a", "b"]
    assert "not `coarse_label`" in raw.findings.notes[0]


def test_columns_of_bytes_are_images(tmp_path: Path) -> None:
    plain = datasets.Dataset.from_dict({"jpg": [png(image) for image in COLOUR], "text": ["x"] * 100})
    plain.to_parquet(tmp_path / "a.parquet")
    raw, images = read(tmp_path / "a.parquet", tmp_path / "scratch")
    assert np.array_equal(images, COLOUR)
    assert raw.labels is None


def test_grey_images_have_one_channel_and_a_size_is_chosen(tmp_path: Path) -> None:
    table(noise((70, 20, 24))).to_parquet(tmp_path / "a.parquet")
    raw, images = read(tmp_path / "a.parquet", tmp_path / "scratch")
    assert images.shape == (70, 16, 16, 1)
    assert any("--image-size" in note for note in raw.findings.notes)
    assert read(tmp_path / "a.parquet", tmp_path / "scratch", size=8)[1].shape == (70, 8, 8, 1)


def test_broken_rows_are_left_out_up_to_a_tenth(tmp_path: Path) -> None:
    def spoiled(count: int) -> Path:
        rows = [
            {"bytes": png(image) if i >= count else b"\x89PNG", "path": None}
            for i, image in enumerate(COLOUR)
        ]
        rows[0] = None if count else rows[0]  # type: ignore[call-overload]
        features = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(
            tmp_path / f"{count}.parquet"
        )
        return tmp_path / f"{count}.parquet"

    raw, images = read(spoiled(5), tmp_path / "scratch")
    assert np.array_equal(images, COLOUR[5:])
    assert sum(left.count for left in raw.findings.left_out.values()) == 5
    assert raw.files[0] == "train[5]"
    with pytest.raises(DataError, match="too many images are unreadable: 11 of 100"):
        read(spoiled(11), tmp_path / "scratch")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["x"] * 70}, "no column of images: text string.*cast_column"),
        ({"a": [b"x"] * 70, "b": [b"x"] * 70}, "which column .* unclear: a binary, b binary.*rename_column"),
    ],
)
def test_other_tables_are_refused(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "a.parquet", tmp_path / "scratch")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "scratch").glob("*"))


def test_other_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set hf:.*nowhere/at.all.*hf:PATH"):
        source(tmp_path / "nowhere" / "at" / "all", tmp_path / "scratch")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=f"no parquet file in .*did you mean 'folder:{tmp_path}/a'"):
        source(tmp_path / "a", tmp_path / "scratch")
    (tmp_path / "a.npz").touch()
    with pytest.raises(DataError, match=f"did you mean 'npz:{tmp_path}/a.npz'"):
        source(tmp_path / "a.npz", tmp_path / "scratch")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="b.parquet cannot be read: .*check the copy"):
        read(tmp_path / "b.parquet", tmp_path / "scratch")


def test_without_a_network_a_copy_is_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as caught:
        source("nobody/pictures:small", tmp_path / "scratch")
    text = str(caught.value)
    assert text.startswith("hf:nobody/pictures cannot be read: ")
    assert "hf download nobody/pictures --repo-type dataset --local-dir pictures" in text
    assert "--data hf:pictures" in text
    assert "\n" not in text


def test_without_the_package_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets.*pip install 'gansweep\[hf\]'"):
        source("nobody/pictures", tmp_path / "scratch")
