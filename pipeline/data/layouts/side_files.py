"""Files beside the images that name their classes: StyleGAN's dataset.json, Hugging Face's metadata files."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.files.file_tree import FileEntry, FileTree, read_bytes
from pipeline.data.files.text_files import decode_text
from pipeline.data.findings import Findings, printable
from pipeline.data.layouts.class_table import Matched, has_column, match_table
from pipeline.data.layouts.image_index import ImageIndex
from pipeline.data.layouts.tables import EXPECTED, Table, parse_parquet, parse_table
from pipeline.errors import DataError

LIMIT = 2**28
"""Longer tables are not read."""
_HINTED = 2**25
_METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_DEPTH = 3
_FIX = "name a csv, json or jsonl of files and classes, or `none`, or `folders`"


@dataclass(frozen=True)
class ClassesOf:
    """The class of each image by its name, "" without one, by a file that is called `origin`.

    conflicting: images that it gives two classes. files: those of the tree that were read for it.
    """

    classes: dict[str, str]
    origin: str
    column: str
    conflicting: frozenset[str]
    files: frozenset[str]


def classes_by_side_files(
    tree: FileTree, others: Sequence[FileEntry], index: ImageIndex, names: Sequence[str], findings: Findings
) -> ClassesOf | None:
    """The classes that dataset.json or metadata files give; None where there are none.

    others: the files that are no images. A file that cannot be understood is told and not used.
    """
    for known in (("dataset.json",), _METADATA):
        files = [
            entry.name for entry in others if _base(entry.name) in known and entry.name.count("/") < _DEPTH
        ]
        matches = [match for name in files if (match := _match(tree, name, index, len(names), findings))]
        if not matches:
            continue
        classes = _joined(matches)
        named, title = sum(map(bool, classes)), " and ".join(sorted({_base(name) for name in files}))
        if named < len(names) / 2:  # of another set, or of a few; most images are not left out for a guess
            findings.note(
                f"{title} is not used, it names {named} of {len(names)} images;"
                f" --classes {printable(files[0])} uses it"
            )
            continue
        tell_rows(title, matches, findings)
        return _classes_of(names, classes, title, matches, files)
    return None


def _match(tree: FileTree, name: str, index: ImageIndex, count: int, findings: Findings) -> Matched | None:
    try:
        table = read_table(tree, name)
        if _base(name) != "dataset.json":
            if not any(c.casefold().endswith("file_name") for c in table.columns or table.rows[0]):
                return None
            if not has_column(table, "class"):
                columns = ", ".join((table.columns or table.rows[0])[:8])
                findings.note(
                    f"no classes in {_base(name)}, its columns are {columns}; --classes FILE names a table"
                )
                return None
        folder = name.rpartition("/")[0]
        return match_table(table, index, count, name, f"{folder}/" if folder else "")
    except DataError as error:
        if not _is_without_labels(tree, name):
            findings.note(f"{printable(name)} is not used: {error}")
        return None


def _is_without_labels(tree: FileTree, name: str) -> bool:
    """Whether a dataset.json says that there are no labels, or is of another kind."""
    content = _dataset_json(tree, name)
    return content is not None and not isinstance(content.get("labels"), list | dict)


def unlabelled_file(tree: FileTree, others: Sequence[FileEntry]) -> str:
    """The name of StyleGAN's dataset.json that says that there are no labels; "" if none does."""
    for entry in others:
        if entry.name.count("/") < _DEPTH:
            content = _dataset_json(tree, entry.name)
            if content is not None and content.get("labels", "") is None:
                return entry.name
    return ""


def _dataset_json(tree: FileTree, name: str) -> dict[str, object] | None:
    """The object in a dataset.json; None of any other file, or if it cannot be read."""
    if _base(name) != "dataset.json":
        return None
    try:
        content = json.loads(tree.read_text(name, LIMIT))
    except (DataError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_table(tree: FileTree, name: str) -> Table:
    """A table in the tree. DataError: it cannot be read or understood."""
    if name.casefold().endswith(".parquet"):
        return parse_parquet(io.BytesIO(read_bytes(tree, name, LIMIT)), name)
    return parse_table(tree.read_text(name, LIMIT), name)


def classes_by_file(
    path: Path, tree: FileTree, index: ImageIndex, names: Sequence[str], findings: Findings
) -> ClassesOf:
    """The classes that `--classes FILE` gives. FILE is looked for on the disk, then in the tree.

    The name alone of files in several folders of the tree means all of them, each for its own folder.

    Raises:
        DataError: there is no such file, or it cannot be understood.
    """
    inner = path.as_posix().removeprefix(f"{tree.title}/")
    found = [entry.name for entry in tree.entries if entry.name == inner]
    found = found or [entry.name for entry in tree.entries if entry.name.rpartition("/")[2] == inner]
    try:
        if path.is_file():
            matches = [match_table(_read_file(path), index, len(names), path.name)]
        elif found:
            matches = [_match_inner(tree, name, index, len(names), len(found) > 1) for name in found]
        else:
            raise _no_file(path)
    except OSError as error:
        raise DataError(
            "a file of classes cannot be read", rule=EXPECTED, seen=str(error), fix=_FIX
        ) from error
    tell_rows(path.name, matches, findings)
    return _classes_of(names, _joined(matches), path.name, matches, found)


def _no_file(path: Path) -> DataError:
    words = [word for word in ("none", "folders") if word.startswith(str(path).lower())]
    fix = f"did you mean {words[0]!r}?" if words else _FIX
    what = "{seen} is no file of classes" if path.exists() else "there is no file {seen} of classes"
    return DataError(what, rule=EXPECTED, seen=str(path), fix=fix)


def _match_inner(tree: FileTree, name: str, index: ImageIndex, count: int, own_folder: bool) -> Matched:
    """The match of a table in the tree. own_folder: it names the images of its own folder alone."""
    folder = name.rpartition("/")[0]
    return match_table(
        read_table(tree, name), index, count, name, f"{folder}/" if own_folder and folder else ""
    )


def _joined(matches: Sequence[Matched]) -> list[str]:
    """The class of each image by the first table that gives one."""
    return [next(filter(None, found), "") for found in zip(*(m.classes for m in matches), strict=True)]


def _classes_of(
    names: Sequence[str],
    classes: Sequence[str],
    origin: str,
    matches: Sequence[Matched],
    files: Iterable[str],
) -> ClassesOf:
    by_name = dict(zip(names, classes, strict=True))
    conflicting = frozenset(names[i] for match in matches for i in match.conflicting if not classes[i])
    return ClassesOf(by_name, origin, matches[0].column, conflicting, frozenset(files))


def _read_file(path: Path) -> Table:
    if path.suffix.casefold() == ".parquet":
        with path.open("rb") as stream:
            return parse_parquet(stream, path.name)
    if path.stat().st_size > LIMIT:
        raise DataError(
            f"{path.name} is longer than {{seen}} bytes", rule=EXPECTED, seen=LIMIT, fix="shorten it"
        )
    return parse_table(decode_text(path.read_bytes()), path.name)


def tell_rows(title: str, matches: Sequence[Matched], findings: Findings) -> None:
    """Tell the rows of a table that name no image, or several."""
    for what, rows in (
        ("name no image here", [file for match in matches for file in match.unknown]),
        ("may mean several images, write their folders", [f for m in matches for f in m.ambiguous]),
    ):
        if rows:
            shown = ", ".join(printable(row) for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
            findings.note(f"{title}: {len(rows)} rows {what} ({shown})")


def hint_at_tables(
    tree: FileTree, others: Sequence[FileEntry], index: ImageIndex, count: int, findings: Findings
) -> None:
    """Tell of files that may name classes where nothing else did: those that `--classes` would take."""
    groups: dict[str, list[str]] = {}
    for entry in others:
        base = entry.name.rpartition("/")[2]
        is_table = os.path.splitext(base)[1].casefold() in _TABLES
        if is_table and entry.size <= _HINTED and base.casefold() not in (*_METADATA, "dataset.json"):
            groups.setdefault(base, []).append(entry.name)
    if len(groups) > 5:  # files of something else
        return
    useful = []
    for base, files in groups.items():
        try:
            match = _match_inner(tree, files[0], index, count, len(files) > 1)
        except DataError:
            continue
        if len({*match.classes} - {""}) > 1:
            useful.append(base if len(files) > 1 else files[0])
    if useful:
        findings.note(f"{', '.join(useful)} may name classes: --classes {shlex.quote(useful[0])}")


def _base(name: str) -> str:
    return name.rpartition("/")[2].casefold()
