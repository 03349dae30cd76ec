"""Which arrays of an npz hold the images and the labels, by the names that others give them.

images, labels                                 gansweep
arr_0, arr_1                                   numpy.savez(file, images, labels), guided-diffusion
x_train, y_train, x_test, y_test               Keras
train_images, train_labels, val_images, ...    MedMNIST
x, y; data, target; X, y; imgs; any name       where one array alone has the shape of images
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.data.arrays.array_layout import Header, looks_like_images
from pipeline.errors import DataError

IMAGES = ("images", "image", "imgs", "img", "pictures", "samples", "pixels", "data", "x")
LABELS = ("labels", "label", "targets", "target", "classes", "class", "y")
CLASS_NAMES = ("class_names", "classes", "label_names", "target_names", "names", "categories")
_PART = "training|train|validation|valid|val|dev|testing|test"
_KIND = "|".join((*IMAGES, *LABELS))
_PATTERN = re.compile(rf"(?:(?P<first>{_PART})[_\-. /]*)?(?P<kind>{_KIND})?(?:[_\-. /]*(?P<last>{_PART}))?")
_POSITIONAL = re.compile(r"arr_\d+")


class Part(NamedTuple):
    """Arrays that belong together: images, their labels ("" = none), and whether they are held out."""

    images: str
    labels: str
    held: bool


def find_parts(headers: Mapping[str, Header], path: Path) -> list[Part]:
    """The arrays of images, those for training first.

    Raises:
        DataError: there are none, or several that fit equally well.
    """
    named: dict[str, list[str]] = {}
    for name in headers:
        kind, part = _meaning(name)
        if kind in IMAGES or (part and not kind and looks_like_images(headers[name])):
            named.setdefault(part, []).append(name)
    if not named:
        named = {"": [name for name, header in headers.items() if looks_like_images(header)]}
    chosen = {part: _choose(names, headers, path) for part, names in named.items()}
    if "" in chosen and "train" in chosen:
        raise _ambiguous([chosen[""], chosen["train"]], headers, path)
    order = sorted(chosen, key=lambda part: ("", "train", "val", "test").index(part))
    first_is_train = order[0] in ("", "train")
    return [
        Part(chosen[part], _labels_of(chosen[part], part, headers), first_is_train and part != order[0])
        for part in order
    ]


def class_names_key(headers: Mapping[str, Header]) -> str:
    """The array of texts, one for each class, if there is one; else ""."""
    for name in CLASS_NAMES:
        if name in headers and headers[name].dtype.kind in "US" and len(headers[name].shape) == 1:
            return name
    return ""


def describe(headers: Mapping[str, Header]) -> str:
    """`x uint8 (70, 8, 8), y int64 (70,)`."""
    return ", ".join(f"{name} {header}" for name, header in headers.items()) or "nothing"


def _meaning(name: str) -> tuple[str, str]:
    """Of `x_train`: its kind `x` and its part `train`; ("", "") for a name without meaning."""
    found = _PATTERN.fullmatch(name.lower())
    if not found or (found["first"] and found["last"]):
        return "", ""
    part = found["first"] or found["last"] or ""
    short = next(
        (short for short in ("train", "val", "test") if part.startswith(short)), "val" if part else ""
    )
    return found["kind"] or "", short


def _choose(names: list[str], headers: Mapping[str, Header], path: Path) -> str:
    """The one array of images among those that are called so."""
    usable = [name for name in names if looks_like_images(headers[name])] or names
    if len(usable) > 1 and "images" in usable:
        return "images"
    if not usable:
        rule, fix = f"{path} needs an array `images`", _repair(path, next(iter(headers), "x"), "")
        raise DataError("no images in the npz: {seen}", rule=rule, seen=describe(headers), fix=fix)
    if len(usable) > 1:
        raise _ambiguous(usable, headers, path)
    return usable[0]


def _ambiguous(names: list[str], headers: Mapping[str, Header], path: Path) -> DataError:
    problem, rule = (
        "which array of the npz holds the images is unclear: {seen}",
        f"{path} has one, or `images`",
    )
    labels = _labels_of(names[0], "", headers)
    seen = describe({**{name: headers[name] for name in names}, **headers})
    return DataError(problem, rule=rule, seen=seen, fix=_repair(path, names[0], labels))


def _repair(path: Path, images: str, labels: str) -> str:
    arrays = f"images=a[{images!r}]" + (f", labels=a[{labels!r}]" if labels else "")
    load = f"import numpy as np; a = np.load({str(path)!r})"
    return f"python -c \"{load}; np.savez('fixed.npz', {arrays})\""


def _labels_of(images: str, part: str, headers: Mapping[str, Header]) -> str:
    """The labels beside an array of images, "" if there are none."""
    count = headers[images].shape[:1]
    candidates = {}
    for name, header in headers.items():
        kind, own_part = _meaning(name)
        text_of_classes = header.dtype.kind in "US" and header.shape != count
        if kind in LABELS and own_part in {part, "train" if part == "" else part} and not text_of_classes:
            candidates[name] = LABELS.index(kind), header.shape[:1] != count
        elif (
            all(map(_POSITIONAL.fullmatch, (images, name)))
            and name != images
            and header.shape[:1] == count
            and len(header.shape) <= 2
        ):
            candidates[name] = len(LABELS), False
    return min(candidates, key=lambda name: (candidates[name][1], candidates[name][0]), default="")
