"""The sheet shows the images of each class in its own row."""

import numpy as np
from images import noise

from pipeline.data.contact_sheet import CELL, COLUMNS, ROWS, contact_sheet
from pipeline.data.dataset import Dataset


def dataset(classes: int, size: int = 32) -> Dataset:
    """Image i of class k has the grey 2 k + 1."""
    labels = np.arange(4 * classes) % max(1, classes) if classes else None
    count = 4 * classes or 50
    images = np.full((count, size, size, 1), 7, np.uint8)
    if labels is not None:
        images[:] = (2 * labels + 1).astype(np.uint8).reshape(-1, 1, 1, 1)
    names = tuple(f"class\n{k}" for k in range(classes))
    held_labels = None if labels is None else labels[:4]
    return Dataset("made", images, noise((4, size, size, 1)), labels, held_labels, names, "0" * 16)


def test_a_row_for_each_class() -> None:
    sheet = np.asarray(contact_sheet(dataset(3)).convert("L"))
    rows = [sheet[k * (CELL + 2) : k * (CELL + 2) + CELL] for k in range(3)]
    assert [int((row[:, 180:] == 2 * k + 1).sum()) for k, row in enumerate(rows)] == [4 * CELL * CELL] * 3
    assert all((row[:, :180] < 128).any() for row in rows)  # its name


def test_many_classes_and_large_images() -> None:
    sheet = contact_sheet(dataset(ROWS + 5, size=100))
    assert sheet.height == (ROWS + 1) * (CELL + 2)


def test_without_classes() -> None:
    sheet = np.asarray(contact_sheet(dataset(0)).convert("L"))
    assert sheet.shape[0] == 5 * (CELL + 2)  # 50 images in rows of 12
    assert int((sheet == 7).sum()) >= 50 * CELL * CELL
    assert COLUMNS == 12
