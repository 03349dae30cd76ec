"""The split that folders give: train/ and test/ around the classes, below them, or instead of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.data.findings import Findings, printable
from pipeline.data.layouts.folder_names import (
    HELD,
    TRAIN,
    SplitName,
    is_annotations,
    is_images,
    is_plain_split_name,
    split_name,
)
from pipeline.data.layouts.places import Place, count, file_names, leave_out_annotations, unwrap

BESIDE = "beside the folders of the split"
_DEPTHS = 3


def find_parts(places: list[Place], findings: Findings, forced_classes: bool) -> list[Place]:
    """Set `part` of each place and take the split's folder out of its `folders`; the places that are used.

    forced_classes: `--classes folders`, so that a lone `test` beside other folders is a class like them.
    """
    for depth in range(_DEPTHS):
        names = {place.folders[depth] for place in places if len(place.folders) > depth}
        found = {name: split for name in names if (split := split_name(name))}
        if names and len(found) == len(names) and _is_split(found):
            return _set_parts(places, depth, found, findings)
        if depth == 0 and (used := _among_others(places, names, findings, forced_classes)) is not None:
            return used
    return places


def _is_split(found: Mapping[str, SplitName]) -> bool:
    parts = {split.part for split in found.values()}
    return TRAIN in parts and len(parts) > 1


def _set_parts(
    places: list[Place], depth: int, found: Mapping[str, SplitName], findings: Findings
) -> list[Place]:
    masks = [p for p in places if len(p.folders) > depth and is_annotations(found[p.folders[depth]].rest)]
    masks = masks if not all(split.rest for split in found.values()) else []  # train_masks/ beside train/
    places = leave_out_annotations(places, masks, findings)
    deep = [place for place in places if len(place.folders) > depth]
    rests = {found[place.folders[depth]].rest for place in deep}
    named = len(rests) > 1 and "" not in rests  # cats_train/ cats_test/ dogs_train/, trainA/ trainB/
    for place in deep:
        name = place.folders[depth]
        place.part, place.part_folder = found[name].part, name
        middle = (found[name].rest,) if named else ()
        place.folders = (*place.folders[:depth], *middle, *place.folders[depth + 1 :])
    if depth == 0 and not named:
        _unwrap_parts(deep)
    return places


def _unwrap_parts(places: Sequence[Place]) -> None:
    """Take away what is around all images of a part: train/train/cats, test/images/cats."""
    for _ in range(_DEPTHS):
        parts: dict[str, list[Place]] = {}
        for place in places:
            parts.setdefault(place.part_folder, []).append(place)
        firsts = {part: {place.folders[:1] for place in inside} for part, inside in parts.items()}
        single = {part: next(iter(names)) for part, names in firsts.items() if len(names) == 1}
        if len(single) == len(parts) and len(set(single.values())) == 1:
            unwrap(places)
        for part, name in single.items():
            if name and (name[0] == part or is_images(name[0]) or split_name(name[0])):
                unwrap(parts[part])


def _among_others(
    places: list[Place], names: set[str], findings: Findings, forced_classes: bool
) -> list[Place] | None:
    """Folders of a split beside others; None where there is none."""
    found = {name: split for name in names if (split := split_name(name)) and not split.rest}
    others = names - found.keys()
    if not others or not found:
        return None
    if TRAIN in {split.part for split in found.values()}:
        if not any(split.part in HELD for split in found.values()):
            return None
        beside = [place for place in places if place.folders and place.folders[0] in others]
        if count(beside) > count(places) / 2:
            return None
        findings.leave_out(BESIDE, file_names(beside))
        listed = _listed(others)
        findings.note(f"{listed} not used, beside folders of a split: --split merge --classes none uses them")
        return _set_parts([place for place in places if place not in beside], 0, found, findings)
    lone = {name for name in found if is_plain_split_name(name)}
    return None if forced_classes or not lone else _lone_parts(places, lone, names - lone, findings)


def _lone_parts(
    places: list[Place], lone: set[str], classes: set[str], findings: Findings
) -> list[Place] | None:
    """`test` beside `cat` and `dog`: the held-out images of these, or images without a class."""
    if len(classes) < 2:
        return None  # `control` and `test` are as good as any two classes
    for place in places:
        if not place.folders or place.folders[0] not in lone:
            place.part = TRAIN
            continue
        name, part = place.folders[0], split_name(place.folders[0])
        inside = {p.folders[1] for p in places if p.folders[0:1] == (name,) and len(p.folders) > 1}
        if part and (not inside or inside & classes):
            place.part, place.part_folder = part.part, name
        else:
            place.part = TRAIN  # it has folders of its own: a class like the others
    taken = sorted({place.part_folder for place in places if place.part_folder})
    for place in places:
        if place.part_folder:
            place.folders = place.folders[1:]
    if taken:
        findings.note(f"{_listed(taken)} taken for a part of a split: --classes folders makes each a class")
    return places


def describe_split(places: Sequence[Place], held: bool) -> str:
    """A line on the given split, `held` or ignored; "" where there is none."""
    rows = []
    for is_held in (False, True):
        inside = [place for place in places if (place.part in HELD) == is_held]
        folders = sorted({place.part_folder for place in inside if place.part_folder})
        rows.append((_listed(folders) or "the other folders", count(inside)))
    (trains, n), (holds, m) = rows
    if not n or not m:
        return ""
    if not held:
        return f"given split ignored ({trains}: {n} images, {holds}: {m} images); --split given keeps it"
    return f"given split: {n} images of {trains}, and {m} held out of {holds}; --split merge ignores it"


def _listed(names: set[str] | Sequence[str]) -> str:
    shown = [f"{printable(name)}/" for name in sorted(names)]
    more = f" and {len(shown) - 4} more" if len(shown) > 5 else ""
    shown = shown[:4] if more else shown
    return ", ".join(shown) + more
