"""Class folders and given splits, from lists of names."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from trees import numbered, understand

from pipeline.errors import DataError


def folders(counts: dict[str, int]) -> list[str]:
    return [name for folder, count in counts.items() for name in numbered(folder, count)]


def test_class_folders_with_images_at_any_depth() -> None:
    seen = understand(folders({"cats": 3, "cats/indoor/old": 2, "dogs/x": 4}))
    assert seen.classes == {"cats": 5, "dogs": 4}
    assert (seen.layout.held, seen.left_out, seen.notes) == (None, {}, [])
    assert seen.findings.classes_from == "the folders"
    assert understand(folders({"cats": 3, "dogs": 4}), classes="none").layout.labels is None


def test_a_plain_folder_has_no_classes_and_no_notes() -> None:
    seen = understand(numbered("", 20))
    assert (len(seen.files), seen.layout.labels, seen.names, seen.notes) == (20, None, [], [])


def test_numbered_classes_in_natural_order() -> None:
    assert list(understand(folders({str(i): 2 for i in range(12)})).classes) == [str(i) for i in range(12)]
    mixed = {"class10": 2, "class2": 2, "Class3": 2, "٣": 2, "²": 2}
    assert list(understand(folders(mixed)).classes) == ["class2", "Class3", "class10", "²", "٣"]


# ---- the given split


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Validation", "TESTING"),
        ("train2017", "val2017", "test2017"),
        ("images/train", "images/val", "images/test"),
        ("seg_train/seg_train", "seg_dev/seg_dev", "seg_test/seg_test"),
        ("data/train/images", "data/valid/images", "data/test/images"),
        ("Training Set", "dev", "Held-Out"),
    ],
)
def test_a_split_around_classes(train: str, val: str, test: str) -> None:
    parts = {train: 10, val: 3, test: 4}
    names = folders({f"{part}/digit-{k}": n for part, n in parts.items() for k in range(3)})
    seen = understand(names)
    assert seen.classes == {"digit-0": 17, "digit-1": 17, "digit-2": 17}
    assert len(seen.held) == 21
    assert all(name.startswith((val, test)) for name in seen.held)
    assert seen.note("given split").startswith("given split: 30 images of ")
    assert "--split merge" in seen.note("given split")
    merged = understand(names, split="merge")
    assert (merged.classes, merged.layout.held) == (seen.classes, None)
    assert "--split given" in merged.note("given split ignored")
    assert len(understand(names, classes="none").held) == 21


def test_where_the_classes_stand_is_told() -> None:
    below = understand(folders({f"{part}/{k}": 4 for part in ("train", "val") for k in ("a", "b")}))
    assert below.findings.classes_from == "the folders below train/ and val/"
    above = understand(folders({f"{k}/{part}": 4 for part in ("train", "val") for k in ("a", "b")}))
    assert above.findings.classes_from == "the folders above train/ and val/"
    assert above.classes == below.classes == {"a": 8, "b": 8}
    assert len(above.held) == len(below.held) == 8


def test_a_split_without_classes() -> None:
    seen = understand(folders({"train": 10, "test": 3, "unlabeled": 30}))
    assert (seen.layout.labels, len(seen.files), len(seen.held)) == (None, 43, 3)
    yolo = understand(
        folders({"train/images": 10, "valid/images": 3}),
        {"train/labels/0.txt": "0 .5 .5 .1 .1", "data.yaml": ""},
    )
    assert (yolo.layout.labels, len(yolo.held), yolo.left_out) == (None, 3, {"not an image": 2})


def test_a_folder_around_a_split_is_not_told() -> None:
    (note,) = understand(folders({"facades/train": 10, "facades/test": 3})).notes
    assert note.startswith("given split")


def test_cycle_gan_and_split_in_the_name_of_the_class() -> None:
    seen = understand(folders({"trainA": 5, "trainB": 6, "testA": 2, "testB": 3}))
    assert (seen.classes, len(seen.held)) == ({"A": 7, "B": 9}, 5)
    seen = understand(folders({"cats_train": 5, "dogs_train": 6, "cats_test": 2, "dogs_test": 3}))
    assert (seen.classes, len(seen.held)) == ({"cats": 7, "dogs": 9}, 5)


def test_a_test_folder_without_classes_is_left_out_and_told() -> None:
    names = folders({"train/cat": 10, "train/dog": 10, "test": 5})
    seen = understand(names)
    assert (seen.classes, seen.layout.held) == ({"cat": 10, "dog": 10}, None)
    assert seen.left_out == {"in a part of the split without classes": 5}
    assert "test/" in seen.note("--classes none")
    assert len(understand(names, classes="none").held) == 5


def test_unlabelled_and_extra_parts() -> None:
    stl = understand(folders({"train/a": 9, "train/b": 9, "test/a": 2, "test/b": 2, "unlabeled": 50}))
    assert (stl.classes, len(stl.held)) == ({"a": 11, "b": 11}, 4)
    assert stl.left_out == {"in a part of the split without classes": 50}
    svhn = understand(
        folders({"train/1": 9, "train/2": 9, "test/1": 2, "test/2": 2, "extra/1": 20, "extra/2": 1})
    )
    assert (svhn.classes, len(svhn.held), svhn.left_out) == ({"1": 31, "2": 12}, 4, {})


def test_classes_of_one_part_alone() -> None:
    names = folders({"train/a": 9, "train/b": 9, "train/c": 9, "test/a": 3, "test/z": 2})
    seen = understand(names)
    assert (seen.classes, len(seen.held)) == ({"a": 12, "b": 9, "c": 9}, 3)
    assert seen.left_out == {"of a class without training images": 2}
    assert ": z;" in seen.note("--split merge keeps")
    assert understand(names, split="merge").classes == {"a": 12, "b": 9, "c": 9, "z": 2}


def test_a_held_out_class_of_nearly_the_same_name() -> None:
    seen = understand(folders({"train/Cats": 9, "train/dogs": 9, "test/cats": 3, "test/dogs ": 2}))
    assert (seen.classes, len(seen.held), seen.left_out) == ({"Cats": 12, "dogs": 11}, 5, {})
    assert "'Cats'" in seen.note("held-out class 'cats'")


KNOWN = {
    "tiny ImageNet": (
        {"train/n01/images": 9, "train/n02/images": 9, "val/images": 3, "test/images": 3},
        (18, 0, 6),
    ),
    "chest X-rays": (
        {
            f"{root}/{part}/{k}": 5
            for root in ("xray", "xray/xray")
            for part in ("train", "test")
            for k in "ab"
        },
        (20, 10, 20),
    ),
    "GTSRB": (
        {"Final_Training/Images/00000": 9, "Final_Training/Images/00001": 9, "Final_Test/Images": 4},
        (18, 0, 4),
    ),
    "MNIST": (
        {f"mnist_png/{part}/{k}": 5 for part in ("training", "testing") for k in range(10)},
        (100, 50, 0),
    ),
    "CUB": ({"CUB/images/001.a": 9, "CUB/images/002.b": 9, "CUB/segmentations/001.a": 9}, (18, 0, 9)),
    "Fruits": (
        {"f/Training/a": 9, "f/Training/b": 9, "f/Test/a": 2, "f/Test/b": 2, "f/test-multiple_fruits": 5},
        (22, 4, 5),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_well_known_sets(name: str) -> None:
    counts, totals = KNOWN[name]
    seen = understand(folders(counts))
    assert (len(seen.files), len(seen.held), sum(seen.left_out.values())) == totals
    assert len(seen.classes) > 1


@pytest.mark.parametrize("name", ["test", "Val", "unlabelled"])
def test_a_split_name_beside_classes_is_no_class(name: str) -> None:
    names = folders({"cat": 10, "dog": 10, name: 5})
    seen = understand(names)
    assert seen.classes == {"cat": 10, "dog": 10}
    assert f"{name}/" in seen.note("--classes folders")
    assert understand(names, classes="folders").classes == {"cat": 10, "dog": 10, name: 5}
    held = understand(folders({"cat": 10, "dog": 10, "test/cat": 2, "test/dog": 3}))
    assert (held.classes, len(held.held)) == ({"cat": 12, "dog": 13}, 5)


@pytest.mark.parametrize(
    "names", [("train", "plane", "car"), ("control", "test"), ("extra", "regular", "dev")]
)
def test_words_of_splits_that_are_classes(names: tuple[str, ...]) -> None:
    seen = understand(folders(dict.fromkeys(names, 5)))
    assert (seen.classes, seen.layout.held) == (dict.fromkeys(sorted(names), 5), None)


def test_folders_beside_a_split_are_left_out_and_told() -> None:
    names = folders({"train/a": 9, "train/b": 9, "test/a": 3, "test/b": 2, "previews": 4})
    seen = understand(names)
    assert (seen.classes, len(seen.held)) == ({"a": 12, "b": 11}, 5)
    assert seen.left_out == {"beside the folders of the split": 4}
    assert "previews/" in seen.note("--split merge --classes none")
    assert len(understand(names, split="merge", classes="none").files) == 27


def test_a_given_split_that_is_not_there() -> None:
    with pytest.raises(DataError, match="no folder is called val or test"):
        understand(folders({"a": 5, "b": 5}), split="given")


def test_parts_without_training_images_are_no_split() -> None:
    seen = understand(folders({"val": 5, "test": 6}))
    assert (len(seen.files), seen.layout.held) == (11, None)


# ---- folders too many, annotations


@pytest.mark.parametrize("around", ["data", "data/data", "images", "a/b/c/d", "train"])
def test_folders_around_everything(around: str) -> None:
    seen = understand(folders({f"{around}/cats": 3, f"{around}/dogs": 4}))
    assert seen.classes == {"cats": 3, "dogs": 4}
    assert seen.findings.classes_from == f"the folders below {around}/"


def test_annotations_beside_images() -> None:
    seen = understand(folders({"images": 9, "annotations/trimaps": 9}), {"annotations/list.txt": "a 1"})
    assert (len(seen.files), seen.layout.labels) == (9, None)
    assert seen.left_out == {"annotations": 9, "not an image": 1}
    assert seen.note("9 images in annotations/trimaps/ taken for annotations").count("--classes folders") == 1
    seen = understand(folders({"JPEGImages": 9, "SegmentationClass": 3, "SegmentationObject": 3}))
    assert (len(seen.files), seen.left_out) == (9, {"annotations": 6})
    seen = understand(folders({"train/images": 9, "train/masks": 9, "val/images": 2, "val/masks": 2}))
    assert (len(seen.files), len(seen.held), seen.left_out) == (11, 2, {"annotations": 11})
    seen = understand(folders({"images/cats": 9, "images/dogs": 8, "masks/cats": 9, "masks/dogs": 8}))
    assert (seen.classes, seen.left_out) == ({"cats": 9, "dogs": 8}, {"annotations": 17})


def test_annotations_beside_a_split() -> None:
    parts = {"train/good": 9, "test/good": 3, "test/bent": 4, "ground_truth/bent": 4}
    names = folders({f"{kind}/{part}": n for kind in ("bottle", "cable") for part, n in parts.items()})
    seen = understand(names)
    assert (seen.classes, len(seen.held)) == ({"bottle": 16, "cable": 16}, 14)
    assert seen.left_out == {"annotations": 8}
    assert understand(folders({"masks": 9, "train": 9, "faces": 9})).left_out == {}  # three classes


# ---- strays, one class, forced folders


def test_strays_beside_class_folders() -> None:
    names = [*folders({str(k): 10 for k in range(10)}), "cover.png"]
    seen = understand(names)
    assert seen.classes == {str(k): 10 for k in range(10)}
    assert seen.left_out == {"beside the class folders": 1}
    assert seen.findings.left_out["beside the class folders"].examples == ["cover.png"]
    assert "--classes none" in seen.note("1 images beside")
    assert len(understand(names, classes="none").files) == 101
    wrapped = understand([*folders({"data/a": 10, "data/b": 10}), "cover.png"])
    assert (wrapped.classes, wrapped.left_out) == ({"a": 10, "b": 10}, {"beside the class folders": 1})


def test_many_beside_few_in_folders_have_no_classes() -> None:
    names = [*numbered("", 1000), *folders({"x": 2, "y": 1})]
    seen = understand(names)
    assert (len(seen.files), seen.layout.labels, seen.left_out) == (1003, None, {})
    assert "1000 of 1003" in seen.note("--classes folders")
    forced = understand(names, classes="folders")
    assert (forced.classes, forced.left_out) == ({"x": 2, "y": 1}, {"beside the class folders": 1000})
    one = understand([*numbered("", 1000), *folders({"x": 3})])
    assert (len(one.files), one.layout.labels) == (1003, None)
    assert "x/ is the only folder" in one.note("no classes")


def test_one_class_is_none() -> None:
    seen = understand(folders({"train/cats": 9, "test/cats": 3}))
    assert (seen.layout.labels, len(seen.held)) == (None, 3)
    assert seen.findings.classes_from == ""
    assert "cats/ is the only" in understand(folders({"cats": 9})).note("no classes")
    with pytest.raises(DataError, match="all images are in one folder"):
        understand(numbered("", 9), classes="folders")


def test_a_class_of_one_image_and_empty_folders() -> None:
    seen = understand(
        folders({"train/a": 9, "train/b": 1}), {"train/c/readme.txt": ""}, empty=["train/d", "train/a/x"]
    )
    assert seen.classes == {"a": 9, "b": 1}
    assert seen.note("folders without images").endswith("train/c/, train/d/")


def test_classes_that_look_alike() -> None:
    seen = understand(folders({"Cat": 4, "cat": 5, "dog ": 6, "dog": 7}))
    assert seen.classes == {"Cat": 4, "cat": 5, "dog": 7, "dog ": 6}
    assert len([note for note in seen.notes if "differ only in case or blanks" in note]) == 2
    same = understand(folders({"train/caf\u00e9": 4, "train/b": 4, "test/cafe\u0301": 2, "test/b": 2}))
    assert same.classes == {"b": 6, "caf\u00e9": 6}


def test_what_is_no_image_is_counted_but_the_table_of_classes(tmp_path: Path) -> None:
    names, table = [*numbered("", 9), "a.mp4", "b.heic"], "".join(f"{i:05d},{i % 2}\n" for i in range(9))
    texts = {"readme.txt": "", "labels.csv": table}
    assert understand(names, texts).left_out == {"not an image": 4}
    assert understand(names, texts, classes="labels.csv").left_out == {"not an image": 3}
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    assert understand(names, texts, classes=str(tmp_path / "labels.csv")).left_out == {"not an image": 4}


@pytest.mark.parametrize("classes", ["", "none", "folders", "labels.csv"])
def test_no_images_at_all(classes: str) -> None:
    seen = understand(["a.mp4"], {"labels.csv": "a,b"}, classes=classes)
    assert (seen.files, seen.names, seen.left_out) == ([], [], {"not an image": 2})


WORDS = [
    "train",
    "val",
    "test",
    "cats",
    "dogs",
    "images",
    "masks",
    "00000",
    "00001",
    "x",
    "trainA",
    "unlabeled",
]


@pytest.mark.parametrize("seed", range(60))
def test_no_image_is_lost_without_being_counted(seed: int) -> None:
    rng = random.Random(seed)
    words = rng.sample(WORDS, rng.randint(2, 7))
    paths = ["/".join(rng.choices(words, k=rng.randint(0, 4))) for _ in range(rng.randint(1, 12))]
    names = {name for path in paths for name in numbered(path, rng.randint(1, 30), rng.randint(0, 9))}
    for options in ({}, {"classes": "none"}, {"classes": "folders"}, {"split": "merge"}):
        try:
            seen = understand(names, **options)
        except DataError:
            assert options == {"classes": "folders"}
            continue
        assert len(seen.files) + sum(seen.left_out.values()) == len(names)
        assert len(set(seen.files)) == len(seen.files)
        assert len(seen.notes) >= len(seen.left_out.keys() - {"annotations"})
        assert 0 not in seen.classes.values()
        assert len(seen.held) < len(seen.files)
