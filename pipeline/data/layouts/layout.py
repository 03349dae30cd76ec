"""What a list of files means: which images are used, which classes they have, which split is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.files.file_tree import FileEntry, FileTree
from pipeline.data.files.natural_order import natural_key
from pipeline.data.findings import Findings, printable
from pipeline.data.layouts.class_folders import (
    class_of,
    classes_by_folders,
    match_held_classes,
    note_empty_folders,
    note_odd_names,
)
from pipeline.data.layouts.folder_names import HELD
from pipeline.data.layouts.given_split import describe_split, find_parts
from pipeline.data.layouts.image_index import ImageIndex
from pipeline.data.layouts.places import (
    Place,
    count,
    file_names,
    group_by_folder,
    unwrap,
    without_annotations,
)
from pipeline.data.layouts.side_files import (
    ClassesOf,
    classes_by_file,
    classes_by_side_files,
    hint_at_tables,
    unlabelled_file,
)
from pipeline.data.options import DataOptions
from pipeline.errors import DataError

NOT_AN_IMAGE = "not an image"
_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".md", ".xml", ".yaml", ".yml", ".html")


@dataclass(frozen=True, eq=False)
class Layout:
    """The images that are used, in natural order of their names.

    labels: int64 (N,), the place of each image's class in `names`; None without classes. names: of two or
    more classes, in natural order, printable. held: bool (N,), what the source calls validation or test; None
    where it does not say, or it is to be ignored.
    """

    files: list[FileEntry]
    labels: npt.NDArray[np.int64] | None
    names: list[str]
    held: npt.NDArray[np.bool_] | None


def understand_layout(
    tree: FileTree, options: DataOptions, findings: Findings, is_image: Callable[[FileEntry], bool]
) -> Layout:
    """Understand the files of `tree` by their names and by tables of classes among them.

    Guesses are noted in `findings`, and images that are not used are counted there. Files that `is_image`
    does not take and that say nothing about the images are counted as `NOT_AN_IMAGE`; it is called once for
    each entry. What is counted elsewhere is to be taken out of `tree.entries` before.

    Raises:
        DataError: what `options` ask for is not there, or a file of classes cannot be understood.
    """
    images: list[FileEntry] = []
    others: list[FileEntry] = []
    for entry in tree.entries:
        (images if is_image(entry) else others).append(entry)
    layout, used = Layout([], None, [], None), frozenset[str]()
    if images:
        layout, used = _understand(tree, images, others, options, findings)
    findings.leave_out(NOT_AN_IMAGE, [entry.name for entry in others if entry.name not in used])
    return layout


def _understand(
    tree: FileTree,
    images: Sequence[FileEntry],
    others: Sequence[FileEntry],
    options: DataOptions,
    findings: Findings,
) -> tuple[Layout, frozenset[str]]:
    """The layout, and the names of those of the `others` by which it was understood."""
    forced = options.classes == "folders"
    places = group_by_folder(images)
    if not forced:
        places = without_annotations(places, findings)
    unwrap(places)
    if (options.classes, options.split) != ("none", "merge"):  # else all images, whatever their folders
        places = find_parts(places, findings, forced)
    if options.split == "given" and not any(place.part in HELD for place in places):
        rule, fix = "--split given needs folders as train/ and test/", "leave it out to have a split drawn"
        raise DataError("no folder is called val or test", rule=rule, fix=fix)
    if options.classes == "none":
        return _finish(places, None, options, findings), frozenset()
    texts = [entry for entry in others if _is_text(entry)]
    if not forced:
        if found := _by_tables(places, tree, texts, options, findings):
            labelled = _labelled(places, found, findings)
            return _finish(labelled, found.classes, options, findings), found.files
        if silent := unlabelled_file(tree, texts):
            findings.note(f"no classes: {printable(silent)} has none, --classes folders takes the folders")
            return _finish(places, None, options, findings), frozenset((silent,))
    by_folders = classes_by_folders(places, forced, findings)
    if by_folders is None:
        hint_at_tables(tree, texts, _index(places), count(places), findings)
        return _finish(places, None, options, findings), frozenset()
    names = [entry.name for entry in others] + [f"{folder}/" for folder in tree.empty_folders]
    note_empty_folders(by_folders, [entry.name for entry in images], names, findings)
    classes = {file.name: class_of(place) for place in by_folders for file in place.files}
    return _finish(by_folders, classes, options, findings), frozenset()


def _is_text(entry: FileEntry) -> bool:
    return entry.name.casefold().endswith(_TEXTS)


def _by_tables(
    places: Sequence[Place],
    tree: FileTree,
    texts: Sequence[FileEntry],
    options: DataOptions,
    findings: Findings,
) -> ClassesOf | None:
    """The classes by `--classes FILE`, or by files beside the images; None where neither names any."""
    names, index = file_names(places), _index(places)
    if file := options.classes_file:
        return classes_by_file(file, tree, index, names, findings)
    return classes_by_side_files(tree, texts, index, names, findings)


def _index(places: Sequence[Place]) -> ImageIndex:
    trains = [place.part not in HELD for place in places for _ in place.files]
    return ImageIndex(file_names(places), trains)


def _labelled(places: Sequence[Place], found: ClassesOf, findings: Findings) -> list[Place]:
    """The places with the images alone that a table gives a class."""
    classes = found.classes
    names = [file.name for place in places for file in place.files if not classes[file.name]]
    names.sort(key=natural_key)
    findings.leave_out(
        f"of two classes in {found.origin}", [name for name in names if name in found.conflicting]
    )
    lost = [name for name in names if name not in found.conflicting]
    findings.leave_out(f"without a class in {found.origin}", lost)
    if lost:
        findings.note(
            f"{len(lost)} images without a class in {found.origin} left out: --classes none uses them"
        )
    findings.classes_from = f"{found.origin}, column {found.column}"
    for place in places:
        place.files = [file for file in place.files if classes[file.name]]
    return [place for place in places if place.files]


def _finish(
    places: Sequence[Place], classes: dict[str, str] | None, options: DataOptions, findings: Findings
) -> Layout:
    """The layout of the images in `places`. classes: of each image by its name; None without."""
    merged = options.split == "merge"
    if classes is not None and not merged:
        places = match_held_classes(places, classes, findings)
    rows = [(file, place.part in HELD) for place in places for file in place.files]
    rows.sort(key=lambda row: natural_key(row[0].name))
    files = [file for file, _ in rows]
    held = np.array([is_held for _, is_held in rows], bool)
    if note := describe_split(places, not merged):
        findings.note_split(note)
    split = None if merged or not note else held
    if classes is None:
        return Layout(files, None, [], split)
    counts = Counter(classes[file.name] for file in files)
    names = sorted(counts, key=natural_key)
    if len(names) == 1:
        findings.note(f"no classes: all images are of one ({names[0]})")
        findings.classes_from = ""
        return Layout(files, None, [], split)
    note_odd_names(names, findings)
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[classes[file.name]] for file in files], np.int64)
    return Layout(files, labels, [printable(name) for name in names], split)
