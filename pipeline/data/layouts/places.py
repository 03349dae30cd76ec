"""Images folder by folder: folders too many around them, and folders of annotations beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.data.files.file_tree import FileEntry
from pipeline.data.findings import Findings, printable
from pipeline.data.layouts.folder_names import is_annotations, is_images, is_split

FEW = 0.25
"""Up to this part of the images, strays are left out; if there are more, the folders are no classes."""


@dataclass(eq=False)
class Place:
    """The images in one folder.

    path: the folder below the root, `a/b`. folders: those of its folders that may still mean something.
    part: of a given split, "" without one; part_folder: how the part is called.
    """

    path: str
    folders: tuple[str, ...]
    files: list[FileEntry]
    part: str = ""
    part_folder: str = ""


def group_by_folder(images: Iterable[FileEntry]) -> list[Place]:
    """One place for each folder with images, in the order of the images."""
    places: dict[str, Place] = {}
    for image in images:
        path = image.name.rpartition("/")[0]
        place = places.setdefault(path, Place(path, tuple(path.split("/")) if path else (), []))
        place.files.append(image)
    return list(places.values())


def count(places: Iterable[Place]) -> int:
    """How many images are in `places`."""
    return sum(len(place.files) for place in places)


def file_names(places: Iterable[Place]) -> list[str]:
    """The names of the images in `places`."""
    return [file.name for place in places for file in place.files]


def unwrap(places: Sequence[Place]) -> None:
    """Take away first folders that are around all images, a few strays apart."""
    while True:
        inner = [place for place in places if place.folders]
        if len({place.folders[0] for place in inner}) != 1 or count(places) - count(inner) > FEW * count(
            places
        ):
            return
        for place in inner:
            place.folders = place.folders[1:]


def without_annotations(places: Sequence[Place], findings: Findings) -> list[Place]:
    """The places but those in folders of annotations (`masks`) beside a folder of `images`, or a split."""
    left_out: set[int] = set()
    for depth in range(3):
        siblings: dict[tuple[str, ...], set[str]] = {}
        for place in places:
            if len(place.folders) > depth:
                siblings.setdefault(place.folders[:depth], set()).add(place.folders[depth])
        parents = {
            parent for parent, names in siblings.items() if any(map(is_images, names)) or is_split(names)
        }
        left_out |= {
            id(place)
            for place in places
            if len(place.folders) > depth
            and place.folders[:depth] in parents
            and is_annotations(place.folders[depth])
        }
    return leave_out_annotations(places, [place for place in places if id(place) in left_out], findings)


def leave_out_annotations(
    places: Sequence[Place], annotations: Sequence[Place], findings: Findings
) -> list[Place]:
    """The other places; those of annotations are counted and told."""
    if not annotations:
        return list(places)
    findings.leave_out("annotations", file_names(annotations))
    shown = [f"{printable(place.path)}/" for place in annotations[:3]]
    listed = ", ".join([*shown, "..."] if len(annotations) > 3 else shown)
    what = f"{count(annotations)} images in {listed} taken for annotations and left out"
    findings.note(f"{what}: --classes folders takes each folder for a class")
    left_out = set(annotations)
    return [place for place in places if place not in left_out]
