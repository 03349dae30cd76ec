"""How image files of people become one uint8 array, and what is refused on the way.

Owns: what is done to an image before a network sees it, and the two sources that are files of the
user's making: a folder of images, and an npz. Refuses: known data sets, splits and caches
(`pipeline.data.dataset`); object arrays, pickles and formats that are not in `FORMATS`.

An image is turned upright (EXIF), centre-cropped to a square, laid over white where transparent,
reduced to 8 bits, and resized with an antialiased Lanczos filter. Nothing else is done to it.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pipeline.errors import DataError

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Say = Callable[[str], None]

MIN_IMAGES = 64
MIN_SIDE, MAX_SIDE = 8, 4096
SIZES = (8, 16, 28, 32, 64, 128, 256)
MAX_BYTES = 16 * 2**30
MAX_PIXELS = 89_478_485  # Pillow's own warning level (a quarter GiB of RGB)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
# Pillow would otherwise try every format it knows by content, Ghostscript's among them.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"))
PROGRESS_SEC = 5.0


class Raw(NamedTuple):
    """A source before its split. `names`: class name of label value i, or empty."""

    images: Pixels
    labels: Labels | None = None
    names: Sequence[str] = ()
    skipped: int = 0


class Plan(NamedTuple):
    """What decides the answer (JSON values), and how to get it when the cache has not got it."""

    key: list[Any]
    prepare: Callable[[], Raw]


def too_few(count: int, what: str) -> DataError:
    """The error to raise for fewer than `MIN_IMAGES` images."""
    rule = f"a data set has at least {MIN_IMAGES} images"
    return DataError(rule, seen=f"{count} {what}", fix="add images or check the path")


# --- npz -----------------------------------------------------------------------------------------


def plan_npz(path: Path, size: int) -> Plan:
    """An npz of `images`, uint8 (N,H,W) or (N,H,W,1 or 3), and perhaps `labels`, integer (N,).

    size: side in pixels; 0 = as it is. Only the file's place, length and time are looked at here.

    Raises:
        DataError: no such file; from `prepare`, one that is damaged or holds something else.
    """
    if not os.path.isfile(path):
        raise DataError("npz:PATH names a file", seen=str(path), fix="check the path")
    stat = path.stat()
    key = ["npz", str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    return Plan(key, lambda: fit_raw(_npz(path), size))


def _npz(path: Path) -> Raw:
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
    return Raw(images if images.ndim == 4 else images[..., None], labels)


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


def plan_folder(root: Path, size: int) -> Plan:
    """The image files below `root`, in the order of their names; classes by first sub-folder.

    size: side in pixels; 0 = chosen from `SIZES` by the median image. No file is opened here.

    Raises:
        DataError: no such folder; from `prepare`, too few images, or too many that are unreadable.
    """
    if not os.path.isdir(root):
        raise DataError("folder:PATH names a folder", seen=str(root), fix="check the path")
    files = sorted(_image_files(root))
    stats = [(str(f.relative_to(root)), s.st_size, s.st_mtime_ns) for f in files for s in [_stat(f)]]
    key = ["folder", str(root.resolve()), stats]
    return Plan(key, lambda: _folder(root, files, size))


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


def _folder(root: Path, files: list[Path], size: int) -> Raw:
    if len(files) < MIN_IMAGES:
        raise too_few(len(files), f"image files ({' '.join(SUFFIXES)}) in {root}")
    short, grey = np.zeros(len(files), np.int64), np.zeros(len(files), bool)

    def look(i: int) -> None:
        with _open(files[i]) as image:
            short[i], grey[i] = min(image.size), image.mode in GREY_MODES

    reasons = _each(look, len(files), "looking at images")
    good = [i for i, reason in enumerate(reasons) if not reason]
    _check_unreadable(files, reasons)
    mode = "L" if grey[good].all() else "RGB"
    raw = decode_all(files, size or _choose_size(short[good]), mode, reasons)
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


def decode_all(files: list[Path], size: int, mode: str, reasons: list[str] | None = None) -> Raw:
    """Decode the files that have no reason against them yet; fills `reasons` in place.

    mode: "L" (C=1) or "RGB" (C=3, or 1 where every image turns out grey). images: uint8 (N,size,size,C).

    Raises:
        DataError: more than a tenth of the files are unreadable, or they would not fit in memory.
    """
    reasons = [""] * len(files) if reasons is None else reasons
    good = [i for i, reason in enumerate(reasons) if not reason]
    shape = (len(good), size, size, 1 if mode == "L" else 3)
    _check_bytes(shape)
    log.info(f"preparing {len(good)} images at {size}x{size}")
    images = np.empty(shape, np.uint8)

    def read(i: int) -> None:
        with _open(files[good[i]]) as image:
            images[i] = _square(image, mode, size)

    for i, reason in enumerate(_each(read, len(good), "preparing images")):
        reasons[good[i]] = reason
    _check_unreadable(files, reasons)
    skipped = sum(map(bool, reasons))
    if skipped:
        log.info(f"left out {skipped} unreadable images: {_examples(files, reasons)}")
        images = images[[not reasons[i] for i in good]]
    return Raw(_drop_colour(images), skipped=skipped)


def _drop_colour(images: Pixels) -> Pixels:
    """RGB whose three channels are equal everywhere (grey pictures saved as colour) -> one channel."""
    if images.shape[3] == 3 and all(bool((image == image[..., :1]).all()) for image in images):
        return np.ascontiguousarray(images[..., :1])
    return images


def _each(work: Callable[[int], None], total: int, what: str) -> list[str]:
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
                log.info(f"{what}: {len(reasons)} of {total}")
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


def fit_raw(raw: Raw, size: int) -> Raw:
    """Square the images of an array (N,H,W,C) and bring them to `size` (0 = as they are).

    Raises:
        DataError: smaller than `MIN_SIDE` and no size given, or they would not fit in memory.
    """
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
