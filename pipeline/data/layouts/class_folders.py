"""Classes by folders: which folders are classes, and what is beside them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipeline.data.files.natural_order import natural_key
from pipeline.data.findings import Findings, printable
from pipeline.data.layouts.folder_names import HELD, is_annotations
from pipeline.data.layouts.places import FEW, Place, count, file_names
from pipeline.data.layouts.shards import shards_of
from pipeline.errors import DataError

BESIDE = "beside the class folders"
WITHOUT_CLASS = "in a part of the split without classes"
ONLY_HELD = "of a class without training images"
FORCE = "--classes folders"


def class_of(place: Place) -> str:
    """The class that a place's folder names; "" without one. In NFC: what looks the same is the same."""
    return unicodedata.normalize("NFC", place.folders[0]) if place.folders else ""


def classes_by_folders(places: list[Place], forced: bool, findings: Findings) -> list[Place] | None:
    """The places whose folders are classes; None if folders are none, which a note says where it is a guess.

    forced: whatever argues against it.

    Raises:
        DataError: forced, and no image is in a folder.
    """
    foldered = [place for place in places if place.folders]
    if forced:
        if not foldered:
            rule, fix = (
                "--classes folders needs one folder a class",
                "leave it out, or name a file of classes",
            )
            raise DataError("all images are in one folder", rule=rule, fix=fix)
    elif not _are_classes(places, foldered, findings):
        return None
    bare_parts = {p.part_folder for p in places if p.part_folder} - {p.part_folder for p in foldered}
    strays = [place for place in places if not place.folders]
    bare = [place for place in strays if place.part_folder in bare_parts]
    if bare:
        findings.leave_out(WITHOUT_CLASS, file_names(bare))
        parts = ", ".join(f"{printable(name)}/" for name in sorted(bare_parts))
        findings.note(f"{parts} without classes: {count(bare)} images left out, --classes none uses them")
    if loose := [place for place in strays if place not in bare]:
        findings.leave_out(BESIDE, file_names(loose))
        findings.note(f"{count(loose)} images beside the class folders left out: --classes none uses them")
    findings.classes_from = _described(foldered)
    return foldered


def _are_classes(places: Sequence[Place], foldered: Sequence[Place], findings: Findings) -> bool:
    files: dict[str, list[str]] = defaultdict(list)
    for place in foldered:
        files[class_of(place)] += [file.name.rpartition("/")[2] for file in place.files]
    if len(files) < 2:
        paths = [place.path or "." for place in places if not place.part_folder]
        only = next(iter(files), "") or os.path.commonpath(paths or ["."])
        if only and only != ".":
            findings.note(f"no classes: {printable(only)}/ is the only folder of images")
        return False
    if why := shards_of(files):
        findings.note(f"no classes: the {len(files)} folders are {why}, {FORCE} makes them classes")
        return False
    # A whole part without folders is no reason against them, unless it is the one to train on.
    labelled = {place.part_folder for place in foldered}
    bare = [place for place in places if not place.folders and place.part_folder in labelled | {""}]
    if any(place.part not in HELD for place in foldered):
        total = count(foldered) + count(bare)
        if count(bare) <= FEW * total:
            return True
        what = f"{count(bare)} of {total} images are beside the folders"
    else:
        what = "only held-out images are in folders"
    findings.note(f"no classes: {what}, {FORCE} makes the folders classes and leaves the others out")
    return False


def _described(places: Sequence[Place]) -> str:
    """Where the classes stand, as `the folders below train/ and val/`."""
    around: dict[str, None] = {}
    inside: set[str] = set()
    for place in places:
        parts = place.path.split("/")
        above = len(parts) - len(place.folders)
        if tuple(parts[above:]) == place.folders:
            around.setdefault("/".join(parts[:above]))
        elif place.folders[0] in parts:
            inside.add(place.part_folder)
        else:
            return "the names of the split's folders"  # cats_train/
    below = [f"{printable(path)}/" for path in (sorted(inside) if inside else around) if path]
    if len(below) > 3:
        below = [*below[:2], f"{len(below) - 2} more"]
    where = f" {'above' if inside else 'below'} {' and '.join(below)}" if below else ""
    return f"the folders{where}"


def match_held_classes(places: Sequence[Place], classes: dict[str, str], findings: Findings) -> list[Place]:
    """The places without the images of classes that no training image has.

    classes: by the image's name. A held-out class whose name differs from that of one training class in case
    or blanks alone becomes that one.
    """
    trained = {classes[file.name] for place in places if place.part not in HELD for file in place.files}
    held = {classes[file.name] for place in places for file in place.files} - trained
    if not held or not trained:
        return list(places)
    twins: dict[str, list[str]] = defaultdict(list)
    for name in trained:
        twins[_folded(name)].append(name)
    same = {name: found[0] for name in held if len(found := twins.get(_folded(name), [])) == 1}
    for name, twin in sorted(same.items()):
        findings.note(
            f"held-out class {printable(name)!r} taken for {printable(twin)!r}; rename it if it is not"
        )
    lost = held - same.keys()
    if lost:
        names = sorted(map(printable, lost), key=natural_key)
        findings.note(f"classes without training images left out: {_first(names)}; --split merge keeps them")
    for place in places:
        findings.leave_out(ONLY_HELD, [file.name for file in place.files if classes[file.name] in lost])
        place.files = [file for file in place.files if classes[file.name] not in lost]
        classes.update({f.name: same[classes[f.name]] for f in place.files if classes[f.name] in same})
    return [place for place in places if place.files]


def note_empty_folders(
    used: Sequence[Place], images: Iterable[str], others: Iterable[str], findings: Findings
) -> None:
    """Tell folders beside class folders that hold no image.

    images: the names of all images. others: of all other files, and empty folders as `NAME/`.
    """
    parents = {"/".join(place.path.split("/")[: -len(place.folders)]) for place in used}
    filled = {folder for name in images for folder in _folders(name)}
    empty = {
        folder
        for name in others
        for folder in _folders(name)
        if folder.rpartition("/")[0] in parents and not is_annotations(folder.rpartition("/")[2])
    } - filled
    if empty:
        shown = [f"{printable(name)}/" for name in sorted(empty, key=natural_key)]
        findings.note(f"folders without images are no classes: {_first(shown)}")


def _folders(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def note_odd_names(classes: Iterable[str], findings: Findings) -> None:
    """Tell names of classes that differ only in case or blanks."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[_folded(name)].append(name)
    for names in alike.values():
        if len(names) > 1:
            listed = " and ".join(repr(printable(name)) for name in names)
            findings.note(f"classes {listed} differ only in case or blanks; rename one to merge them")


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
