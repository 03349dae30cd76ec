"""A contact sheet of a data set: some images of every class, in a row beside its name."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.dataset import Dataset
from pipeline.data.description import class_counts
from pipeline.data.findings import printable
from pipeline.data.pictures import to_picture
from pipeline.data.source_types import Labels

CELL, COLUMNS, ROWS = 64, 12, 40
"""Side of an image on the sheet in pixels; most images in a row; most rows."""
_NAME_WIDTH, _GAP, _FONT_SIZE = 180, 2, 14


def contact_sheet(dataset: Dataset) -> Image.Image:
    """Training images as they were prepared: a row for each class, or rows of any where there are no classes.

    The numbers beside them are of all images, held out or not. Of more than `ROWS` classes the first are
    drawn; the last row then says how many there are.
    """
    rows = _rows(dataset)
    height, width = len(rows) * (CELL + _GAP), _NAME_WIDTH + COLUMNS * (CELL + _GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for i, (name, indices) in enumerate(rows):
        top = i * (CELL + _GAP)
        draw.text((4, top + (CELL - _FONT_SIZE) // 2), _shortened(name, font), "black", font)
        for column, index in enumerate(indices):
            place = (_NAME_WIDTH + column * (CELL + _GAP), top)
            sheet.paste(_cell(to_picture(dataset.train[index])), place)
    return sheet


def _rows(dataset: Dataset) -> list[tuple[str, Labels]]:
    if dataset.train_labels is None:
        total, count = len(dataset.train) + len(dataset.held), min(len(dataset.train), 8 * COLUMNS)
        rows = [np.arange(start, min(start + COLUMNS, count)) for start in range(0, count, COLUMNS)]
        return [(f"{total:,} images" if i == 0 else "", row) for i, row in enumerate(rows)]
    labelled, counts = [], class_counts(dataset)
    for label, name in enumerate(dataset.classes[:ROWS]):
        members = np.flatnonzero(dataset.train_labels == label)
        labelled.append((f"{label}: {printable(name)} ({counts[name]:,})", members[:COLUMNS]))
    if len(dataset.classes) > ROWS:
        labelled.append((f"... of {len(dataset.classes):,} classes", np.empty(0, np.int64)))
    return labelled


def _shortened(name: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    while font.getlength(name) > _NAME_WIDTH - 8:
        name = name.removesuffix("...")[:-1] + "..."
    return name


def _cell(picture: Image.Image) -> Image.Image:
    """Small images are enlarged by whole factors: their pixels stay visible."""
    if picture.width < CELL:
        factor = CELL // picture.width
        picture = picture.resize((picture.width * factor,) * 2, Image.Resampling.NEAREST)
    if picture.width > CELL:
        picture = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
    return picture.convert("RGB")
