"""Tables that name the class of each image: csv, tsv, lists of lines, json, jsonl, parquet, by anybody."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.errors import DataError

EXPECTED = "a table has one row an image: its file and its class"


_HEADING = re.compile(r"\s*#[^,;\t|]*$|sep=.\s*$")  # a comment; what tells Excel the delimiter


@dataclass(frozen=True)
class Table:
    """Rows of texts of one length. columns: their names; empty if the first row may be a header."""

    rows: list[list[str]]
    columns: list[str] = field(default_factory=list)


def parse_table(text: str, title: str) -> Table:
    """A table from the text of a file, whatever its suffix says.

    Raises:
        DataError: it is empty, or cannot be understood.
    """
    text = text.replace("\0", "").lstrip("\ufeff")
    if not text.strip():
        raise DataError("{seen} is empty", rule=EXPECTED, seen=title, fix="check the file")
    return _checked(_from_json(text, title) if text.lstrip()[0] in "{[" else _from_lines(text, title), title)


def parse_parquet(stream: BinaryIO, title: str) -> Table:
    """A table from a Parquet file; columns of anything but texts and numbers are skipped.

    Raises:
        DataError: it is damaged, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        fix = "pip install pyarrow, or save it as csv"
        raise DataError("{seen} needs pyarrow", seen=title, fix=fix) from error
    try:
        schema = parquet.read_schema(stream)
        types = pyarrow.types
        plain = [f.name for f in schema if not types.is_nested(f.type) and not types.is_binary(f.type)]
        stream.seek(0)
        columns = parquet.read_table(stream, columns=plain).to_pydict()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError("{seen} cannot be read", seen=title, fix="save it as csv") from error
    rows = [[_cell(value) for value in row] for row in zip(*columns.values(), strict=True)]
    return _checked(Table(rows, list(columns)), title)


def _checked(table: Table, title: str) -> Table:
    if not table.rows or not table.rows[0]:
        raise DataError("{seen} has no rows", rule=EXPECTED, seen=title, fix="check the file")
    return table


# ---- csv, tsv, and lines of `FILE CLASS`


def _from_lines(text: str, title: str) -> Table:
    lines = [line for line in text.splitlines() if line.strip()]
    while len(lines) > 1 and _HEADING.match(lines[0]):
        lines = lines[1:]
    delimiter = _delimiter(lines[:50])
    if delimiter:
        try:
            found = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(
                f"{title} cannot be read", rule=EXPECTED, seen=str(error), fix="mend it"
            ) from error
        rows = [[cell.strip() for cell in row] for row in found]
        width = Counter(map(len, rows)).most_common(1)[0][0]
        rows = [(row + [""] * width)[:width] for row in rows]
    else:  # `images/my cat.jpg 3`
        rows = [line.strip().strip('"').rsplit(None, 1) for line in lines]
        if not all(len(row) == 2 for row in rows):
            raise _one_column(title, lines)
    if len(rows[0]) < 2:
        raise _one_column(title, lines)
    return Table(rows)


def _delimiter(lines: Sequence[str]) -> str:
    """What splits the lines into the most equal rows; "" if nothing does."""
    best, choice = 0.0, ""
    for delimiter in ",;\t|":
        try:
            widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        if width > 1 and count / len(lines) > best:
            best, choice = count / len(lines), delimiter
    return choice


def _one_column(title: str, lines: Sequence[str]) -> DataError:
    fix = "write FILE,CLASS in each line"
    problem = f"{title} names no class of each image, it has one column of {len(lines)} lines, first"
    return DataError(problem, rule=EXPECTED, seen=lines[0], fix=fix)


# ---- json and jsonl


def _from_json(text: str, title: str) -> Table:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            fix = "mend it, or write a csv"
            raise DataError(f"{title} is no JSON", rule=EXPECTED, seen=str(error), fix=fix) from error
    if isinstance(content, dict) and isinstance(content.get("labels"), list | dict):
        content = content["labels"]  # StyleGAN's dataset.json
    content = _as_records(content)
    try:
        if isinstance(content, dict):
            return Table(_pairs(content), ["file", "label"])
        if content and all(isinstance(row, dict) for row in content):
            columns = list(dict.fromkeys(key for row in content for key in row))
            return Table([[_cell(row.get(column)) for column in columns] for row in content], columns)
        if content and all(isinstance(row, list) and len(row) == 2 for row in content):
            return Table([[_cell(value) for value in row] for row in content], ["file", "label"])
    except TypeError as error:
        raise DataError(f"{title} gives an image no single class", rule=EXPECTED, seen=str(error),
                        fix="write one class an image, or --classes none") from error  # fmt: skip
    rule = 'it holds {"FILE": "CLASS", ...}, {"CLASS": ["FILE", ...], ...}, or objects with both'
    raise DataError("{seen} is no table of classes", rule=rule, seen=title, fix="write a csv of FILE,CLASS")


def _as_records(content: Any) -> Any:
    """One object a row from pandas' columns or rows, or from `{part: [row, ...]}`; else the content."""
    if not isinstance(content, dict) or not content:
        return content
    first, *others = content.values()
    if all(isinstance(value, dict) for value in content.values()):
        if len(content) < len(first) and all(value.keys() == first.keys() for value in others):
            return [{column: content[column][row] for column in content} for row in first]
        return [{"file": file, **row} for file, row in content.items()]
    if all(isinstance(value, list) for value in content.values()):
        rows = [row for value in content.values() for row in value]
        if rows and all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
            return rows
    return content


def _pairs(content: dict[str, object]) -> list[list[str]]:
    """Rows of file and class from `{file: class}` or `{class: [file, ...]}`."""
    if content and all(
        isinstance(value, list) and all(isinstance(item, str) for item in value) for value in content.values()
    ):
        return [[file, name] for name, files in content.items() for file in files]  # type: ignore[attr-defined]
    return [[file, _cell(value)] for file, value in content.items()]


def _cell(value: object) -> str:
    """A value as text: "" for nothing, whole numbers without a point, the place of the 1 in a one-hot vector.

    Raises:
        TypeError: it is several values.
    """
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, list):
        ones = [i for i, item in enumerate(value) if item]
        if len(value) == 1 and not isinstance(value[0], list | dict):
            return _cell(value[0])
        if len(ones) == 1 and value[ones[0]] == 1:
            return str(ones[0])
        raise TypeError(json.dumps(value)[:80])
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict):
        raise TypeError(json.dumps(value, default=str)[:80])
    return str(value).strip()
