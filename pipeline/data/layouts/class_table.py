"""The class of each image by a table: which column names the files, and which the classes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.layouts.image_index import NONE, SEVERAL, ImageIndex
from pipeline.data.layouts.tables import EXPECTED, Table
from pipeline.errors import DataError

_FILE_COLUMNS = (
    "filename", "file", "files", "path", "filepath", "image", "images", "imagename", "imagepath", "imagefile",
    "imageid", "img", "imgname", "imgpath", "imgid", "fname", "name", "id", "key", "uuid",
)  # fmt: skip
_CLASS_COLUMNS = (
    "label", "labels", "class", "classes", "classname", "classlabel", "labelname", "category",
    "categories", "categoryname", "target", "targets", "classid", "labelid", "categoryid", "y", "species",
    "breed", "diagnosis", "dx", "type", "kind",
)  # fmt: skip
_PROBED = 2000
_WHOLE = re.compile(r"(-?[0-9]+)\.0*")


@dataclass(frozen=True)
class Matched:
    """classes: of each image; "" without one. column: where the classes stand. unknown: files of rows without
    an image. ambiguous: files of rows that may mean several. conflicting: numbers of images with two classes.
    """

    classes: list[str]
    column: str
    unknown: list[str]
    ambiguous: list[str]
    conflicting: list[int]


def match_table(table: Table, index: ImageIndex, count: int, title: str, prefix: str = "") -> Matched:
    """The classes of `count` images. prefix: of the names in the table, as `train/`.

    Raises:
        DataError: no column names the images, or it is not clear which names the classes.
    """
    columns, rows = table.columns, table.rows
    shown = columns or rows[0]
    file_column = _file_column(shown, rows, index, prefix)
    if file_column is None:
        problem = f"{title} names none of the {count} images; its columns are"
        fix = "call the column of the files `file`, and write their names as they are in the data"
        raise DataError(problem, rule=EXPECTED, seen=_listed(shown), fix=fix)
    if not columns and _is_header(rows[0][file_column], index, prefix):
        columns, rows = rows[0], rows[1:]
    values, column = _class_values(
        columns or [f"{i + 1}" for i in range(len(shown))], rows, file_column, title
    )
    files = [prefix + row[file_column] for row in rows]
    return _assign(files, values, index, count, column)


def has_column(table: Table, kind: str) -> bool:
    """Whether a table has a column that is called as those of files (`file`) or of classes (`class`) are."""
    known = _FILE_COLUMNS if kind == "file" else _CLASS_COLUMNS
    return any(_plain(column) in known for column in table.columns or table.rows[0])


def _assign(
    files: Sequence[str], values: Sequence[str], index: ImageIndex, count: int, column: str
) -> Matched:
    classes = [""] * count
    unknown, ambiguous, conflicting = [], [], set()
    for file, value in zip(files, values, strict=True):
        found = index.find(file)
        if found == NONE:
            unknown.append(file)
        elif found == SEVERAL:
            ambiguous.append(file)
        elif classes[found] and value and classes[found] != value:
            conflicting.add(found)
        else:
            classes[found] = value or classes[found]
    for i in conflicting:
        classes[i] = ""
    return Matched(classes, column, unknown, ambiguous, sorted(conflicting))


def _file_column(
    shown: Sequence[str], rows: Sequence[Sequence[str]], index: ImageIndex, prefix: str
) -> int | None:
    """The column whose cells name the most images, by its name where several do; None if none does."""
    probed = rows[:: max(1, len(rows) // _PROBED)]
    scores = []
    for column, name in enumerate(shown):
        hits = sum(index.find(prefix + row[column]) != NONE for row in probed)
        plain = _plain(name)
        named = plain in _FILE_COLUMNS or plain.endswith("filename")
        looks = sum(bool(re.search(r"[./\\]", row[column])) for row in probed)
        scores.append((hits, plain not in _CLASS_COLUMNS, named, looks, -column))
    best = max(range(len(shown)), key=scores.__getitem__)
    return best if scores[best][0] else None


def _is_header(cell: str, index: ImageIndex, prefix: str) -> bool:
    suffix = os.path.splitext(cell)[1].lower()
    return index.find(prefix + cell) == NONE and not (1 < len(suffix) <= 5) and not cell.isdigit()


def _class_values(
    columns: Sequence[str], rows: Sequence[Sequence[str]], file_column: int, title: str
) -> tuple[list[str], str]:
    """The class of each row, and the name of its column."""
    others = [i for i in range(len(columns)) if i != file_column]
    named = [i for i in others if _plain(columns[i]) in _CLASS_COLUMNS]
    named.sort(key=lambda i: _CLASS_COLUMNS.index(_plain(columns[i])))
    chosen = named[:1] or (others if len(others) == 1 else [])
    if chosen:
        values = [row[chosen[0]] for row in rows]
        whole = [_WHOLE.fullmatch(value) for value in values if value]
        if whole and all(whole):
            values = [value.partition(".")[0] for value in values]
        return values, columns[chosen[0]]
    if hot := _one_hot(columns, rows, others):
        return hot, "of the 1 in each row"
    problem = f"it is not clear which column of {title} names the classes; its columns are"
    fix = "call that column `label`"
    raise DataError(problem, rule=EXPECTED, seen=_listed(columns), fix=fix)


def _one_hot(columns: Sequence[str], rows: Sequence[Sequence[str]], others: Sequence[int]) -> list[str]:
    """The name of the column that holds each row's only 1, if all others hold 0; else empty."""
    found = []
    for row in rows:
        ones = [i for i in others if row[i] in ("1", "1.0", "True", "true")]
        zeros = [i for i in others if row[i] in ("0", "0.0", "False", "false", "")]
        if len(ones) != 1 or len(zeros) != len(others) - 1:
            return []
        found.append(columns[ones[0]])
    return found


def _plain(column: str) -> str:
    return re.sub(r"[\W_]+", "", column).casefold()


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(column or "(no name)" for column in columns[:12]) + (
        ", ..." if len(columns) > 12 else ""
    )
