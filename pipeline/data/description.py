"""A data set in a few lines: what `run` says of it before it begins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.data.dataset import Dataset


def class_counts(dataset: Dataset) -> dict[str, int]:
    """Images of every class by its name, in the order of the labels; training and held out together."""
    if dataset.train_labels is None or dataset.held_labels is None:
        return {}
    labels = np.concatenate([dataset.train_labels, dataset.held_labels])
    counts = np.bincount(labels, minlength=len(dataset.classes)).tolist()
    return dict(zip(dataset.classes, counts, strict=True))


def smallest_class(dataset: Dataset) -> tuple[str, int]:
    """Name and number of training images of the class that has the fewest; "" and 0 without labels."""
    if dataset.train_labels is None:
        return "", 0
    counts = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
    return dataset.classes[counts.argmin()], int(counts.min())


def describe_images(dataset: Dataset) -> str:
    """`300 images (30 held out), 32x32, grey`."""
    total, side = len(dataset.train) + len(dataset.held), dataset.size
    colour = "grey" if dataset.channels == 1 else "colour"
    return f"{total:,} images ({len(dataset.held):,} held out), {side}x{side}, {colour}"


def describe_classes(dataset: Dataset) -> str:
    """`10 classes (the folders below train/)`; `no classes`."""
    if not dataset.labelled:
        return "no classes"
    why = dataset.understood.classes_from
    guess = f" ({why}; --classes none ignores them)" if why else ""
    return f"{len(dataset.classes)} classes{guess}"


def describe_single(dataset: Dataset) -> str:
    """`2 classes have one image, which is trained on (a, b); ...`; "" where none has."""
    single = [name for name, count in class_counts(dataset).items() if count == 1]
    if not single:
        return ""
    shown = ", ".join(single[:3]) + (", ..." if len(single) > 3 else "")
    which = f"{len(single):,} classes have one image, which is trained on ({shown})"
    return f"{which}; --classes none trains without classes"


def describe_copies(dataset: Dataset) -> str:
    """How many images are copies of another, and what was done about it; "" where none are."""
    found = dataset.understood
    if not (found.exact or found.near):
        return ""
    kinds = [f"{found.exact:,} exact" if found.exact else "", f"{found.near:,} near" if found.near else ""]
    text = " and ".join(filter(None, kinds))
    if found.pairs:
        text += f" ({found.pairs[0][1]} of {found.pairs[0][0]}, ...)"
    if found.across:
        return f"{text}; {found.across:,} images have copies on both sides of the split"
    return f"{text}; copies stay on one side of the split" + (
        f" ({found.moved:,} moved)" if found.moved else ""
    )


def short_form(dataset: Dataset) -> Iterator[str]:
    """What was understood, one line for each thing."""
    yield f"{describe_images(dataset)}, {describe_classes(dataset)}"
    if left_out := dataset.understood.describe_left_out():
        yield f"left out: {left_out}"
    if copies := describe_copies(dataset):
        yield f"copies of another image: {copies}"
    if dataset.understood.blank:
        yield f"{dataset.understood.blank:,} images are of one colour"
    if single := describe_single(dataset):
        yield single
    yield from dataset.understood.notes
