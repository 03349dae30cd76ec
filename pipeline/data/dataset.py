"""The data set of a sweep: prepared once, memory-mapped; the order in which a trial uses it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.data.options import AS_FOUND, DataOptions
from pipeline.data.preparing.preparation import PreparedImages
from pipeline.data.preparing.prepared_cache import link_prepared, open_prepared, prepare_in
from pipeline.data.source_types import ImageSource, Labels, Pixels
from pipeline.data.sources.lookup import find_source
from pipeline.data.understood import Understood
from pipeline.errors import DataError
from pipeline.storage.files import cache_root

# Prepared images are mapped read-only; torch warns of that, although nobody writes to them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

VERSION = 2
"""Part of every cache key: raise it if the same files would be prepared differently."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images of a sweep, square, grey (C=1) or RGB (C=3), with a constant split.

    train, held: uint8 (N,H,W,C) and (M,H,W,C) in 0..255, for training and held out of it; in a constant
    shuffled order, so that any prefix is a fair sample. train_labels, held_labels: int64 (N,) and (M,) in
    0..K-1, or None. classes: the K names; empty without labels. train_groups: int64 (N,), the same number for
    training images that are copies of one another, -1 for those without copies, or None where there are no
    copies. understood: all else that is known of them. folder: of the prepared images, which are
    memory-mapped from it; None = they are in memory.
    """

    source: str
    train: Pixels
    held: Pixels
    train_labels: Labels | None
    held_labels: Labels | None
    classes: tuple[str, ...]
    fingerprint: str
    train_groups: Labels | None = None
    understood: Understood = Understood()
    folder: Path | None = None

    @property
    def size(self) -> int:
        """Side of every image, in pixels."""
        return int(self.train.shape[1])

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return int(self.train.shape[3])

    @property
    def different(self) -> Labels:
        """Indices int64 of the training images, of each group of copies the first."""
        if self.train_groups is None:
            return np.arange(len(self.train))
        first = np.unique(self.train_groups, return_index=True)[1]
        single = self.train_groups < 0
        return np.flatnonzero(single | np.isin(np.arange(len(single)), first))

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
    options: DataOptions = AS_FOUND,
    *,
    cache: Path | None = None,
    download: Path | None = None,
    out: Path | None = None,
) -> Dataset:
    """Read and prepare the images of `source`, or open what an earlier call prepared.

    Args:
        source: one of `tables.DATA_SOURCES.forms`.
        options: how images are read and prepared.
        cache: None = `cache_root()`. download: the folder for what is downloaded; None = `<cache>/downloads`.
        out: the folder of results, which holds no data wherever it lies; None = there is none.

    Raises:
        DataError: the source does not exist, cannot be read, or has too few usable images.
        ConfigError: it is the user's own and cannot be loaded, or fails.
    """
    root = cache or cache_root()
    outputs = {root: "the cache"} | ({out: "the output folder"} if out else {})
    found = find_source(
        source,
        options,
        downloads=download or root / "downloads",
        outputs=outputs,
        scratch=root / "scratch",
    )
    prepared, folder = _prepare(source, found, options, root / "data")
    dataset = as_dataset(prepared, source, folder)
    if found.findings:
        understood = dataset.understood.with_left_out(found.findings)
        dataset = dataclasses.replace(dataset, understood=understood)
    return dataset


def _prepare(
    source: str, found: ImageSource, options: DataOptions, data: Path
) -> tuple[PreparedImages, Path | None]:
    """The images of `found`, prepared in a folder of `data`, or earlier; no folder = they are in memory."""
    name = _prepared_name(source, found.key, options)
    prepared = open_prepared(data / name) if name else None
    if prepared is not None:
        return prepared, data / name
    prepared, folder = prepare_in(data, name, found.read(), options, source)
    if name and folder and not options.size:  # who asks for this very size gets the same images
        sized = dataclasses.replace(options, size=prepared.images.shape[1])
        link_prepared(folder, _prepared_name(source, found.key, sized))
    return prepared, folder


def as_dataset(prepared: PreparedImages, source: str, folder: Path | None) -> Dataset:
    """The data set of prepared images; folder: where they lie, None = in memory."""
    count, labels, groups = prepared.train, prepared.labels, prepared.groups
    return Dataset(
        source,
        prepared.images[:count],
        prepared.images[count:],
        None if labels is None else labels[:count],
        None if labels is None else labels[count:],
        prepared.classes,
        prepared.fingerprint,
        train_groups=None if groups is None else groups[:count],
        understood=prepared.understood,
        folder=folder,
    )


def _prepared_name(source: str, key: Sequence[object] | None, options: DataOptions) -> str:
    """The name of the folder of prepared images; "" where `key` is None: nothing determines the content."""
    if key is None:
        return ""
    file, classes = options.classes_file, ""
    try:
        if file and file.is_file():
            classes = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        fix = "make it readable, or name another"
        raise DataError(
            "--classes {seen} cannot be read", seen=f"{file}: {error.strerror}", fix=fix
        ) from error
    content = json.dumps([VERSION, dataclasses.astuple(options), classes, *key])
    return f"{source.partition(':')[0]}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
