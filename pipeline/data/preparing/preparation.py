"""The images of a source become a data set: read once, in the order of the split, looked at for copies."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.data.options import DataOptions
from pipeline.data.preparing.duplicates import Copies, describe, find_copies, with_frames
from pipeline.data.preparing.prepared import (
    IMAGES,
    Fingerprint,
    ImageFile,
    ImageMemory,
    blocks,
    fingerprint,
    replace_rows,
)
from pipeline.data.preparing.splitting import MIN_HELD_OUT, Split, keep_copies_together, predict_split
from pipeline.data.source_types import Labels, Pixels, RawImages
from pipeline.data.understood import Understood
from pipeline.errors import DataError

log = logging.getLogger(__name__)

MIN_IMAGES = 64
MAX_UNREADABLE = 0.1
MAX_PAIRS = 3
"""So many copies are named."""
PROGRESS_SEC = 5.0
_EVEN = 16  # values of a descriptor that are all the same where an image may be of one colour
_MOVED_BYTES = 512 * 2**20  # images that change places in memory


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedImages:
    """images: uint8 (N,S,S,C), the first `train` of them for training. labels, groups: int64 (N,) in that
    order.

    groups: the same number for copies of one image, -1 for images without copies; None = there are no copies.
    """

    images: Pixels
    train: int
    labels: Labels | None
    groups: Labels | None
    classes: tuple[str, ...]
    fingerprint: str
    understood: Understood


@dataclass
class _Written:
    """The images as they were written: at place i that of row `rows[i]`. failed: why a row was not read."""

    images: Pixels
    rows: Labels
    digest: Fingerprint
    descriptors: list[Pixels] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    low: int = 255
    high: int = 0
    grey: bool = True
    blank: int = 0

    def look(self, images: Pixels, reasons: Sequence[str]) -> None:
        """Notice the next images uint8 (n,S,S,C). reasons: why each of them was not read, "" if it was."""
        descriptors = describe(images, len(self.rows))
        self.descriptors.append(descriptors)
        if any(reasons):
            was_read = np.array([not reason for reason in reasons])
            images, descriptors = images[was_read], descriptors[was_read]
        if not len(images):
            return
        self.low, self.high = min(self.low, int(images.min())), max(self.high, int(images.max()))
        self.grey = self.grey and bool((images == images[..., :1]).all())
        even = images[(descriptors[:, :_EVEN] == descriptors[:, :1]).all(1)]
        self.blank += int((even == even[:, :1, :1]).all((1, 2, 3)).sum())


def prepare(raw: RawImages, options: DataOptions, where: str, folder: Path | None) -> PreparedImages:
    """Read all images, split them, and keep copies on one side of the split.

    where: names the source in messages. folder: takes `images.npy`; None = the images stay in memory.

    Raises:
        DataError: there are too few images, or too many cannot be read.
        OSError: the folder has no room for them.
    """
    _check_count(raw.images.shape[0], raw, where)
    if options.classes == "none":
        raw = replace(raw, labels=None, names=())
    raw = _with_usable_split(raw, options)
    written = _write(raw, folder)
    for line in raw.images.notes():
        raw.findings.note(line)
    raw, places = _readable(raw, written, where)
    copies = find_copies(np.concatenate(written.descriptors)[places], lambda row: written.images[places[row]])
    together = (
        with_frames(copies.groups, raw.files) if options.frames == "all" and raw.files else copies.groups
    )
    split, moved, across = _split(raw, together, copies.note)
    rows = np.concatenate(split)
    labels, classes = _relabel(raw)
    labels = None if labels is None else labels[rows]
    images, mark = _settle(written, places[rows], len(split.train), labels, folder)
    understood = Understood.of(
        raw.findings,
        value_range=(written.low, written.high),
        exact=copies.exact,
        near=copies.near,
        moved=moved,
        across=across,
        pairs=_name_pairs(raw, copies),
        blank=written.blank,
        distinct=len(rows) - copies.exact - copies.near,
    )
    groups = copies.groups[rows] if (copies.groups >= 0).any() else None
    return PreparedImages(
        images=images,
        train=len(split.train),
        labels=labels,
        groups=groups,
        classes=classes,
        fingerprint=mark,
        understood=understood,
    )


def too_few_images(count: int, what: str) -> DataError:
    """The error for fewer than `MIN_IMAGES` images; `what` says which were counted, and where."""
    rule, fix = f"a data set needs at least {MIN_IMAGES} images", "add images or check the path"
    return DataError("too few images: {seen}", rule=rule, seen=f"{count} {what}", fix=fix)


def _check_count(count: int, raw: RawImages, where: str) -> None:
    if count < MIN_IMAGES:
        left_out = Understood.of(raw.findings).describe_left_out()
        raise too_few_images(
            count, f"usable images in {where}" + (f"; left out: {left_out}" if left_out else "")
        )


def _with_usable_split(raw: RawImages, options: DataOptions) -> RawImages:
    """Without the source's own split where it is not wanted, or holds out too few images to measure with."""
    if raw.held is None and options.split == "given":
        rule, fix = "--split given holds out what a source calls validation or test", "leave it out"
        raise DataError(
            "the source gives no split: {seen}", rule=rule, seen=f"{raw.images.shape[0]} images", fix=fix
        )
    if raw.held is None or options.split == "merge":
        return replace(raw, held=None)
    held = int(raw.held.sum())
    if held >= MIN_HELD_OUT and len(raw.held) - held >= MIN_IMAGES:
        return raw
    if options.split == "given":
        rule = f"at least {MIN_HELD_OUT} images are held out, and {MIN_IMAGES} trained on"
        seen = f"{held} of {len(raw.held)}"
        fix = "add images, or write --split merge"
        raise DataError(
            "the split of the source is too small: {seen} held out", rule=rule, seen=seen, fix=fix
        )
    left = f"{held} of {len(raw.held)} images are held out by it, {len(raw.held) - held} trained on"
    raw.findings.withdraw_split(f"the given split is not used: {left}")
    return replace(raw, held=None)


# --- Reading and writing ----------------------------------------------------------------------------


def _write(raw: RawImages, folder: Path | None) -> _Written:
    """Write the images in the order of the split that holds if there are no copies and all can be read."""
    shape, split = raw.images.shape, predict_split(raw.images.shape[0], raw.labels, raw.held)
    rows = np.concatenate(split)
    target = ImageFile(folder / IMAGES, shape) if folder else ImageMemory(shape)
    written = _Written(np.empty(0, np.uint8), rows, Fingerprint(len(split.train), len(split.held), shape[1:]))
    with ThreadPoolExecutor(2) as pool:
        pending: list[Future[None]] = []
        for place, images, reasons in _read_ahead(raw, rows):
            for done in pending:
                done.result()
            pending = [pool.submit(target.append, images), pool.submit(written.digest.add, images)]
            written.look(images, reasons)
            written.failed |= {int(rows[place + i]): reason for i, reason in enumerate(reasons) if reason}
        for done in pending:
            done.result()
    written.images = target.close()
    return written


def _read_ahead(raw: RawImages, rows: Labels) -> Iterator[tuple[int, Pixels, list[str]]]:
    """Blocks of images with their place, while the next one is being read."""
    total, began = len(rows), time.monotonic()
    logged = began
    with ThreadPoolExecutor(1) as reader:
        parts = list(blocks(total, int(np.prod(raw.images.shape[1:]))))
        pending = reader.submit(raw.images.read, rows[parts[0]])
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            images, reasons = pending.result()
            if following is not None:
                pending = reader.submit(raw.images.read, rows[following])
            yield part.start, images, reasons
            if (now := time.monotonic()) - logged >= PROGRESS_SEC:
                left = (now - began) / part.stop * (total - part.stop)
                log.info(f"preparing images: {part.stop:,} of {total:,}, {left:.0f} s left")
                logged = now


def _readable(raw: RawImages, written: _Written, where: str) -> tuple[RawImages, Labels]:
    """The source without the images that could not be read, and the place int64 (N,) of each other one."""
    count = len(written.rows)
    good = np.ones(count, bool)
    good[list(written.failed)] = False
    if written.failed:
        raw = _without_failed(raw, good, written.failed, where)
    places = np.empty(count, np.int64)
    places[written.rows] = np.arange(count)
    return raw, places[good]


def _without_failed(
    raw: RawImages, good: np.ndarray[tuple[int], np.dtype[np.bool_]], failed: dict[int, str], where: str
) -> RawImages:
    names = {row: raw.files[row] if raw.files else f"image {row}" for row in sorted(failed)}
    check_unreadable(len(failed), len(good), [f"{names[row]} ({failed[row]})" for row in names])
    for row, name in names.items():
        raw.findings.leave_out("unreadable", [f"{name} ({failed[row][:80]})"])
    _check_count(int(good.sum()), raw, where)
    rows = np.flatnonzero(good)
    return replace(
        raw,
        labels=None if raw.labels is None else raw.labels[rows],
        held=None if raw.held is None else raw.held[rows],
        files=[raw.files[row] for row in rows.tolist()] if raw.files else (),
    )


def check_unreadable(bad: int, total: int, examples: list[str]) -> None:
    """DataError where more than a tenth of `total` images cannot be read; examples: names and reasons."""
    if bad > MAX_UNREADABLE * total:
        named = ", ".join(examples[:MAX_PAIRS]) + (", ..." if bad > MAX_PAIRS else "")
        problem, rule = "too many images are unreadable: {seen}", f"at most {MAX_UNREADABLE:.0%} of them"
        raise DataError(problem, rule=rule, seen=f"{bad} of {total}", fix=f"repair or remove them: {named}")


# --- Split and labels -------------------------------------------------------------------------------


def _split(raw: RawImages, groups: Labels, note: str) -> tuple[Split, int, int]:
    """The split; how many of the groups were moved to one side, and how many lie on both nevertheless.

    groups: int64 (N,) of images that stay together. note: on what could not be grouped.
    """
    if note:
        raw.findings.note(note)
    for held in (raw.held, None) if raw.held is not None else (None,):
        simple = predict_split(len(groups), raw.labels, held)
        split, moved = keep_copies_together(simple, groups, raw.labels, given=held is not None)
        if len(split.held) >= min(MIN_HELD_OUT, len(simple.held)):
            return split, moved, 0
        if held is not None:
            left = f"{len(split.held)} of {len(simple.held)} held-out images are no copies of training images"
            raw.findings.withdraw_split(f"the given split is not used: {left}")
    raw.findings.note("there are too few different images: copies of held-out images are trained on")
    return simple, 0, moved


def _relabel(raw: RawImages) -> tuple[Labels | None, tuple[str, ...]]:
    """Label values -> 0..K-1 in ascending order, with names; a single class is no label at all."""
    if raw.labels is None:
        return None, ()
    values, labels = np.unique(raw.labels, return_inverse=True)
    if len(values) < 2:
        raw.findings.note("all images are of one class, which is no label")
        return None, ()
    return labels.astype(np.int64), tuple(raw.names[v] if len(raw.names) else str(v) for v in values)


def _name_pairs(raw: RawImages, copies: Copies) -> tuple[tuple[str, str], ...]:
    """The names of the first copies, each beside the image that it is a copy of."""
    found: list[tuple[str, str]] = []
    for group in dict.fromkeys(copies.groups[copies.groups >= 0].tolist()):
        first, second = np.flatnonzero(copies.groups == group)[:2]
        found.append(
            (raw.files[first], raw.files[second]) if raw.files else (f"image {first}", f"image {second}")
        )
        if len(found) == MAX_PAIRS:
            break
    return tuple(found)


# --- The final order --------------------------------------------------------------------------------


def _settle(
    written: _Written, places: Labels, train: int, labels: Labels | None, folder: Path | None
) -> tuple[Pixels, str]:
    """The images at `places` of what was written, in this order, and their fingerprint.

    RGB images that are all grey become grey (C = 1).
    """
    images = written.images
    halves = (None, None) if labels is None else (labels[:train], labels[train:])
    channels = 1 if written.grey else images.shape[3]
    if channels == images.shape[3] and len(places) == len(images):
        moved = np.flatnonzero(places != np.arange(len(places)))
        if not len(moved):
            return images, written.digest.finish(*halves)
        if len(moved) * images[0].nbytes <= _MOVED_BYTES:
            images = replace_rows(images, moved, images[places[moved]], folder)
            return images, fingerprint(images[:train], images[train:], *halves)
    shape = (len(places), *images.shape[1:3], channels)
    target = ImageFile(folder / f"new-{IMAGES}", shape) if folder else ImageMemory(shape)
    for rows in blocks(len(places), images[0].nbytes):
        target.append(images[places[rows]][..., :channels])
    images = target.close()
    if folder:
        os.replace(folder / f"new-{IMAGES}", folder / IMAGES)
    return images, fingerprint(images[:train], images[train:], *halves)
