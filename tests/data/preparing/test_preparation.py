"""From the rows of a source to prepared images: order, split, copies, what cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import noise

from pipeline.data.options import AS_FOUND, DataOptions
from pipeline.data.preparing.preparation import PreparedImages, prepare
from pipeline.data.preparing.prepared import fingerprint
from pipeline.data.source_types import Labels, Pixels, RawImages
from pipeline.errors import DataError


class Rows:
    """An array of which some rows cannot be read."""

    def __init__(self, images: Pixels, broken: Sequence[int] = ()) -> None:
        self.images, self.broken = images, broken
        self.shape: Any = images.shape

    def read(self, rows: Labels) -> tuple[Pixels, list[str]]:
        return self.images[rows], ["cut off" if row in self.broken else "" for row in rows.tolist()]

    def notes(self) -> list[str]:
        return ["2 images are odd"]


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "disk" else None


def rows_of(found: PreparedImages, images: Pixels) -> list[int]:
    """Which of `images`, all different, lie where in the prepared file."""
    index = {image.tobytes(): i for i, image in enumerate(images)}
    return [index[image.tobytes()] for image in found.images]


def test_each_image_once_with_its_label(folder: Path | None) -> None:
    images, labels = noise((100, 8, 8, 3)), np.arange(100) % 7
    raw = RawImages(images=Rows(images), labels=labels, names=list("abcdefg"))
    found = prepare(raw, AS_FOUND, "here", folder)
    rows = rows_of(found, images)
    assert sorted(rows) == list(range(100))
    assert found.labels is not None
    assert found.labels.tolist() == labels[rows].tolist()
    assert (found.train, found.classes, found.groups) == (84, tuple("abcdefg"), None)
    halves = found.labels[:84], found.labels[84:]
    assert found.fingerprint == fingerprint(found.images[:84], found.images[84:], *halves)
    assert found.understood.value_range == (0, 255)
    assert found.understood.notes == ("2 images are odd",)


def test_the_order_does_not_depend_on_what_could_not_be_read(folder: Path | None) -> None:
    images, labels = noise((100, 8, 8, 1)), np.arange(100) % 3
    files = [f"{i}.png" for i in range(100)]
    images[[3, 50]] = 0  # as what cannot be read
    broken = RawImages(images=Rows(images, [3, 50]), labels=labels, files=files)
    found = prepare(broken, AS_FOUND, "here", folder)
    good = np.delete(np.arange(100), [3, 50])
    other = prepare(RawImages(images=Rows(images[good]), labels=labels[good]), AS_FOUND, "here", None)
    assert found.fingerprint == other.fingerprint
    assert np.array_equal(found.images, other.images)
    assert found.understood.left_out == {"unreadable": 2}
    assert found.understood.blank == 0
    assert found.understood.examples == {"unreadable": ["3.png (cut off)", "50.png (cut off)"]}


def test_too_many_that_cannot_be_read(folder: Path | None) -> None:
    raw = RawImages(images=Rows(noise((100, 8, 8, 1)), range(11)), files=[f"{i}.png" for i in range(100)])
    with pytest.raises(DataError, match=r"11 of 100 \(at most 10% of them\).* 0.png \(cut off\)"):
        prepare(raw, AS_FOUND, "here", folder)


def test_colour_that_is_grey_becomes_grey(folder: Path | None) -> None:
    grey = noise((100, 8, 8, 1))
    colour = prepare(RawImages(images=Rows(grey.repeat(3, 3))), AS_FOUND, "here", folder)
    assert colour.images.shape == (100, 8, 8, 1)
    assert colour.fingerprint == prepare(RawImages(images=Rows(grey)), AS_FOUND, "here", None).fingerprint


@pytest.mark.parametrize("times", [2, 3])
def test_copies_lie_on_one_side(times: int, folder: Path | None) -> None:
    images = noise((100, 8, 8, 1))
    labels = np.tile(np.arange(100) % 4, times)
    found = prepare(
        RawImages(images=Rows(np.tile(images, (times, 1, 1, 1))), labels=labels), AS_FOUND, "here", folder
    )
    parts = [{image.tobytes() for image in part} for part in np.split(found.images, [found.train])]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == 100
    assert found.understood.exact == 100 * (times - 1)
    assert (found.understood.across, found.understood.pairs[0]) == (0, ("image 0", "image 100"))
    assert found.groups is not None
    for image, group in zip(found.images, found.groups, strict=True):
        assert (found.images[found.groups == group] == image).all()


def test_the_frames_of_one_file_lie_on_one_side(folder: Path | None) -> None:
    images = noise((200, 8, 8, 1))
    files = [f"{i // 4}.gif" for i in range(200)]
    raw = RawImages(images=Rows(images), files=files)
    found = prepare(raw, DataOptions(frames="all"), "here", folder)
    rows = rows_of(found, images)
    parts = [{files[row] for row in part} for part in (rows[: found.train], rows[found.train :])]
    assert not parts[0] & parts[1]
    assert 12 <= len(found.images) - found.train <= 28
    assert (found.groups, found.understood.exact) == (None, 0)


def test_the_given_split_is_held_out(folder: Path | None) -> None:
    images, held = noise((100, 8, 8, 1)), np.arange(100) >= 80
    raw = RawImages(images=Rows(images), held=held)
    given = prepare(raw, AS_FOUND, "here", folder)
    assert sorted(rows_of(given, images)[given.train :]) == list(range(80, 100))
    merged = prepare(raw, DataOptions(split="merge"), "here", None)
    assert sorted(rows_of(merged, images)[merged.train :]) != list(range(80, 100))


def test_a_given_split_that_is_too_small(folder: Path | None) -> None:
    raw = RawImages(images=Rows(noise((100, 8, 8, 1))), held=np.arange(100) >= 95)
    raw.findings.note_split("given split: 95 images train")
    notes = prepare(raw, AS_FOUND, "here", folder).understood.notes
    assert "given split: 95 images train" not in notes
    assert any(note.startswith("the given split is not used: 5 of 100") for note in notes)
    with pytest.raises(DataError, match="5 of 100 held out .*--split merge"):
        prepare(raw, DataOptions(split="given"), "here", folder)


def test_a_split_that_is_not_given(folder: Path | None) -> None:
    raw = RawImages(images=Rows(noise((100, 8, 8, 1))))
    with pytest.raises(
        DataError, match=r"gives no split: 100 images \(--split given holds out .*leave it out"
    ):
        prepare(raw, DataOptions(split="given"), "here", folder)


def test_a_given_split_of_copies_is_not_used(folder: Path | None) -> None:
    images = noise((100, 8, 8, 1))
    raw = RawImages(images=Rows(np.concatenate([images, images[:20]])), held=np.arange(120) >= 100)
    found = prepare(raw, AS_FOUND, "here", folder)
    assert found.understood.across == 0
    assert len(found.images) - found.train >= 12
    assert "the given split is not used: 0 of 20 held-out images" in " ".join(found.understood.notes)


def test_one_class_is_no_label(folder: Path | None) -> None:
    raw = RawImages(images=Rows(noise((70, 8, 8, 1))), labels=np.ones(70, np.int64))
    found = prepare(raw, AS_FOUND, "here", folder)
    assert (found.labels, found.classes) == (None, ())
    assert "all images are of one class, which is no label" in found.understood.notes


def test_too_few_images_say_what_was_left_out() -> None:
    raw = RawImages(images=Rows(noise((63, 8, 8, 1))))
    raw.findings.leave_out("not an image", ["a.mp4", "b.mp4"])
    with pytest.raises(
        DataError, match=r"63 usable images in here; left out: 2 not an image \(a.mp4, b.mp4\)"
    ):
        prepare(raw, AS_FOUND, "here", None)


def test_blank_images_are_counted() -> None:
    images = noise((100, 8, 8, 1))
    images[:5] = np.arange(5).reshape(5, 1, 1, 1)
    assert prepare(RawImages(images=Rows(images)), AS_FOUND, "here", None).understood.blank == 5
