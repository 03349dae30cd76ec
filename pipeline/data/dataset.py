"""The data set of a sweep: read once, split, fingerprinted, cached; the order in which a trial uses it."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.data.preprocessing import (
    MAX_SIDE,
    MIN_IMAGES,
    MIN_SIDE,
    Labels,
    Pixels,
    RawImages,
    too_few_images,
)
from pipeline.data.sources import find_source
from pipeline.errors import DataError
from pipeline.storage.files import cache_root, replacing

log = logging.getLogger(__name__)

VERSION = 1
"""Part of every cache key: raise it if the same files would be prepared differently."""
SPLIT_SEED = 1406_2661
"""Constant, so that every sweep on the same images trains and measures on the same split."""
MIN_HELD_OUT, HELD_OUT_FRACTION = 16, 0.1


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images of a sweep, square, grey (C=1) or RGB (C=3), with a constant split.

    train, held: uint8 (N,H,W,C) and (M,H,W,C) in 0..255, for training and held out of it; in a constant
    shuffled order, so that any prefix is a fair sample. train_labels, held_labels: int64 (N,) and (M,) in
    0..K-1, or None. classes: the K names; empty without labels. skipped: unreadable images left out.
    """

    source: str
    train: Pixels
    held: Pixels
    train_labels: Labels | None
    held_labels: Labels | None
    classes: tuple[str, ...]
    fingerprint: str
    skipped: int = 0

    @property
    def size(self) -> int:
        """Side of every image, in pixels."""
        return int(self.train.shape[1])

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return int(self.train.shape[3])

    @property
    def labelled(self) -> bool:
        """Whether every image has one of `classes`."""
        return self.train_labels is not None


class Sampler:
    """An endless shuffled stream over 0..n-1 that can be entered at any position.

    Element i belongs to epoch i // n, whose permutation depends on (seed, epoch) alone: a resumed trial
    continues the order of an uninterrupted one, however the stream is cut into batches. ValueError unless
    n is at least 1 and seed at least 0.
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1 or seed < 0:
            raise ValueError(f"n={n} seed={seed} is out of range: n is at least 1 and seed at least 0")
        self.n, self.seed = n, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def take(self, position: int, count: int) -> Labels:
        """Elements position .. position+count-1 of the stream: int64 (count,) in 0..n-1."""
        if position < 0 or count < 0:
            raise ValueError(f"position {position} or count {count} is negative")
        parts = [np.empty(0, np.int64)]
        while count > 0:
            epoch, start = divmod(position, self.n)
            parts.append(self._permutation(epoch)[start : start + count])
            position, count = position + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> Labels:
        if epoch != self._epoch:
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, epoch)))
            self._epoch, self._order = epoch, rng.permutation(self.n)
        return self._order


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N,H,W,C) in 0..255 -> float32 (N,C,H,W) in [-1, 1], in channels_last memory."""
    # The permuted NHWC tensor already is channels_last; the conversion keeps its strides.
    return images.permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1.0)


def load_dataset(
    source: str,
    *,
    image_size: int = 0,
    cache: Path | None = None,
    download: Path | None = None,
    out: Path | None = None,
) -> Dataset:
    """Read and prepare the images of `source`, or take them from the cache of an earlier call.

    Args:
        source: one of `tables.DATA_SOURCES.forms`.
        image_size: side in pixels, 8..4096; 0 = as they are (of folders: chosen from `image_files.SIZES` by
            the median image).
        cache: None = `cache_root()`. download: the folder for what is downloaded; None = `<cache>/downloads`.
        out: the folder of results, which holds no data wherever it lies; None = there is none.

    Raises:
        DataError: the source does not exist, cannot be read, or has too few usable images.
        ConfigError: it is the user's own and cannot be loaded, or fails.
    """
    if image_size and not MIN_SIDE <= image_size <= MAX_SIDE:
        rule, fix = f"image_size is 0 or in [{MIN_SIDE}, {MAX_SIDE}]", "set 0 to have a size chosen"
        raise DataError("image_size={seen} is out of range", rule=rule, seen=image_size, fix=fix)
    root = cache or cache_root()
    outputs = {root: "the cache"} | ({out: "the output folder"} if out else {})
    found = find_source(source, image_size, download or root / "downloads", outputs)
    if found.key is None:
        return _split(source, found.read())
    key = hashlib.sha256(json.dumps([VERSION, image_size, *found.key]).encode()).hexdigest()[:16]
    file = root / "data" / f"{source.partition(':')[0]}-{key}.npz"
    dataset = _read_cache(file, source)
    if dataset is None:
        dataset = _split(source, found.read())
        _write_cache(file, dataset)
    return dataset


# --- Split and fingerprint -----------------------------------------------------------------------


def _split(source: str, raw: RawImages) -> Dataset:
    if len(raw.images) < MIN_IMAGES:
        raise too_few_images(len(raw.images), f"usable images in {source}")
    labels, classes = _relabel(raw)
    held = held_out(len(raw.images) if labels is None else labels)
    # Shuffled once: sources are often sorted by class, and then no prefix would be a fair sample.
    order = _shuffled(len(held))
    rows = [order[~held[order]], order[held[order]]]
    train, held_images = (np.ascontiguousarray(raw.images[row]) for row in rows)
    train_labels, held_labels = (None if labels is None else labels[row] for row in rows)
    digest = fingerprint(train, held_images, train_labels, held_labels)
    return Dataset(source, train, held_images, train_labels, held_labels, classes, digest, raw.skipped)


def _relabel(raw: RawImages) -> tuple[Labels | None, tuple[str, ...]]:
    """Label values -> 0..K-1 in ascending order, with names; a single class is no label at all."""
    if raw.labels is None:
        return None, ()
    values, labels = np.unique(raw.labels, return_inverse=True)
    if len(values) < 2:
        return None, ()
    return labels.astype(np.int64), tuple(raw.names[v] if raw.names else str(v) for v in values)


def held_out(labels: Labels | int) -> npt.NDArray[np.bool_]:
    """Which images are held out of training: bool (N,), the same for the same labels (or count).

    A tenth of every class, and at least one of a class that has two. If that is less than `MIN_HELD_OUT` in
    all, more are taken from all classes in proportion: a class loses its last training image last of all.
    """
    labels = np.zeros(labels, np.int64) if isinstance(labels, int) else labels
    order = _shuffled(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, shuffled within
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    sizes = np.repeat(counts, counts)
    rank = np.arange(len(labels)) - np.repeat(first, counts)
    quota = np.maximum(np.rint(HELD_OUT_FRACTION * sizes), sizes >= 2)
    # Quota first, then by the fraction of its class that is held out with this image.
    taken = np.lexsort(((rank + 1) / sizes, rank >= quota))[: max(MIN_HELD_OUT, int((rank < quota).sum()))]
    held = np.zeros(len(labels), bool)
    held[order[taken]] = True
    return held


def _shuffled(n: int) -> Labels:
    # RandomState's stream is frozen across numpy versions; Generator's is not.
    return np.random.RandomState(SPLIT_SEED).permutation(n).astype(np.int64)


def fingerprint(train: Pixels, held: Pixels, train_labels: Labels | None, held_labels: Labels | None) -> str:
    """16 hex digits of a SHA-256 over pixels, labels, shapes and split; without paths and class names."""
    digest = hashlib.sha256()
    for part in (train, held, train_labels, held_labels):
        digest.update(b"none" if part is None else f"{part.dtype.str} {part.shape}".encode())
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


# --- The prepared cache --------------------------------------------------------------------------


def _read_cache(file: Path, source: str) -> Dataset | None:
    """The cached data set; None if there is none or it is damaged (the zip's checksums cover every byte)."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            meta = json.loads(arrays["meta"].tobytes())
            names = ("train_labels", "held_labels")
            train_labels, held_labels = (arrays[name] if meta["labelled"] else None for name in names)
            classes, digest, skipped = tuple(meta["classes"]), meta["fingerprint"], meta["skipped"]
            train, held = arrays["train"], arrays["held"]
            return Dataset(source, train, held, train_labels, held_labels, classes, digest, skipped)
    except FileNotFoundError:
        return None
    except Exception as error:  # as for any damaged zip
        log.info(f"prepared images cannot be used ({type(error).__name__}): preparing them again: {file}")
        return None


def _write_cache(file: Path, dataset: Dataset) -> None:
    meta = {name: getattr(dataset, name) for name in ("labelled", "classes", "fingerprint", "skipped")}
    arrays: dict[str, npt.NDArray[Any]] = {"train": dataset.train, "held": dataset.held}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    if dataset.train_labels is not None and dataset.held_labels is not None:
        arrays |= {"train_labels": dataset.train_labels, "held_labels": dataset.held_labels}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("xb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
    except OSError as error:  # a full or read-only disk costs the next start some time, nothing else
        log.info(f"the prepared images are not cached: {error}")
