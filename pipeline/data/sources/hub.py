"""Data sets of Hugging Face: from the hub by name, or a copy (parquet files, a folder of `save_to_disk`).

No code of a data set is run, and nothing is unpickled.
"""

from __future__ import annotations

import functools
import glob
import importlib
import logging
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipeline.data.findings import Findings
from pipeline.data.images.encoded_images import encoded_images, look_at
from pipeline.data.images.image_formats import UnusableImage
from pipeline.data.preparing.preparation import MIN_IMAGES, check_unreadable, too_few_images
from pipeline.data.preparing.prepared_cache import remove_abandoned
from pipeline.data.source_types import ImageSource, RawImages, SourceRequest
from pipeline.data.sources.hub_tables import find_labels, image_column, join_splits
from pipeline.data.sources.path_hints import did_you_mean
from pipeline.errors import DataError, first_line

log = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SAVED_TO_DISK = ("dataset_dict.json", "state.json")
_SPLITS = {"train": "train", "val": "validation", "dev": "validation", "test": "test"}
_SPLIT_WORD = re.compile(
    r"(?<![a-z])(?:(train)(?:ing)?|(val)(?:id(?:ation)?)?|(dev)|(test)(?:ing)?)(?![a-z])"
)
RULE = "hf:NAME or hf:NAME:CONFIG is a data set of the hub, hf:PATH a copy of one"


class _Asked(NamedTuple):
    """What is written after `hf:`: a place on this machine, or a name on the hub; and a configuration."""

    place: str
    config: str
    local: bool


def hub_source(request: SourceRequest) -> ImageSource:
    """The images and classes of `hf:NAME`, `hf:NAME:CONFIG` or `hf:PATH`, with the splits of the data set.

    The key of a copy is made of its files' names, lengths and modification times; that of a data set of the
    hub is its revision, for which the hub, or the hub's cache on this machine, is asked.

    Raises:
        DataError: the package `datasets` is missing, there is no such data set, or the hub is out of reach;
            from `read`: it cannot be read, or has no images that are understood.
    """
    asked = _parse(str(request.path))
    library = _library()
    key, load = _local(library, asked) if asked.local else _on_the_hub(library, asked)

    def read() -> RawImages:
        unpacked = _folder_in(request.scratch)
        try:
            raw = _understand(library, load(unpacked), request)
        except Exception as error:  # pyarrow raises a dozen kinds for damaged files, a full disk, ...
            shutil.rmtree(unpacked, ignore_errors=True)
            raise (
                error if isinstance(error, DataError) else _unreadable(request.name, error, asked)
            ) from error
        weakref.finalize(raw.images, shutil.rmtree, unpacked, ignore_errors=True)
        return raw

    return ImageSource(key, read)


def _folder_in(scratch: Path) -> str:
    """A new folder in `scratch`, or in the system's temporary folder where that cannot be written."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        remove_abandoned(scratch, "hf-*")
        return tempfile.mkdtemp(prefix="hf-", dir=scratch)
    except OSError:
        return tempfile.mkdtemp(prefix="hf-")


def _parse(text: str) -> _Asked:
    base, _, config = text.rpartition(":")
    if os.path.exists(text):
        return _Asked(text, "", local=True)
    if base and os.path.exists(base):
        return _Asked(base, config, local=True)
    name, config = (base, config) if base else (text, "")
    if not _HUB_NAME.fullmatch(name) or name.endswith(".parquet") or name in (".", ".."):
        raise DataError("there is no data set {seen}", rule=RULE, seen=f"hf:{text}", fix="check the path")
    return _Asked(name, config, local=False)


def _library() -> Any:
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        rule, fix = "hf: needs the package datasets", "pip install 'gansweep[hf]'"
        raise DataError("hf: cannot be read", rule=rule, seen=str(error), fix=fix) from error
    library.disable_progress_bars()
    library.utils.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every retry
    return library


def _unreadable(name: str, error: Exception, asked: _Asked) -> DataError:
    fix = "check the copy"
    if not asked.local:
        copy = asked.place.rpartition("/")[2]
        download = f"hf download {asked.place} --repo-type dataset --local-dir {copy}"
        fix = f"check the name and the network; or where there is one: {download}, and --data hf:{copy}"
    return DataError(f"{name} cannot be read: {{seen}}", rule=RULE, seen=first_line(error), fix=fix)


# ---- where it is


Found = tuple[list[object], Callable[[str], Mapping[str, Any]]]
"""The key of a source, and what reads its splits (`datasets.Dataset` each), given a folder to unpack into."""


def _on_the_hub(library: Any, asked: _Asked) -> Found:
    log.info(f"asking the hub for {asked.place}")
    try:
        builder = library.load_dataset_builder(asked.place, asked.config or None)
    except Exception as error:  # no network, no such name, a configuration to be chosen
        raise _unreadable(f"hf:{asked.place}", error, asked) from error
    key: list[object] = ["hf", asked.place, builder.config.name, builder.hash]
    return key, lambda unpacked: _prepared(builder)


def _prepared(builder: Any) -> Mapping[str, Any]:
    builder.download_and_prepare()
    splits: Mapping[str, Any] = builder.as_dataset()
    return splits


def _local(library: Any, asked: _Asked) -> Found:
    path, config = Path(asked.place), asked.config
    files = [path] if path.is_file() else _files_below(path)
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    rows = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    key: list[object] = ["hf", str(path.resolve()), config, rows]
    if any((path / name).is_file() for name in _SAVED_TO_DISK):
        return key, lambda unpacked: _saved_to_disk(library, path)
    inside = path / config if config and (path / config).is_dir() else path
    build = functools.partial(library.load_dataset_builder, str(path), config or None)
    if inside != path or not _has_configurations(path / "README.md"):
        splits = _parquet_splits(inside, [file for file in files if file.is_relative_to(inside)])
        build = functools.partial(library.load_dataset_builder, "parquet", data_files=splits)
    return key, lambda unpacked: _prepared(build(cache_dir=unpacked))


def _parquet_splits(root: Path, files: list[Path]) -> dict[str, list[str]]:
    """The parquet files of each split, as patterns."""
    splits: dict[str, list[str]] = {}
    for file in files:
        if file.suffix == ".parquet":
            name = file.name if file == root else file.relative_to(root).as_posix()
            splits.setdefault(_split_of(name), []).append(glob.escape(str(file.resolve())))
    if not splits:
        rule = "a copy is a folder of parquet files, one of them, or a folder of save_to_disk"
        fix = did_you_mean(root, "check the path")
        raise DataError("there is no parquet file in {seen}", rule=rule, seen=str(root), fix=fix)
    return splits


def _files_below(root: Path) -> list[Path]:
    files = (path for path in root.rglob("*") if path.is_file())
    return sorted(f for f in files if not any(part[0] == "." for part in f.relative_to(root).parts))


def _has_configurations(card: Path) -> bool:
    """Whether a data set's card says which files belong to which configuration and split."""
    if not card.is_file():
        return False
    header = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
    return header.startswith("---") and re.search(r"^configs:", header, re.MULTILINE) is not None


def _split_of(name: str) -> str:
    """`train`, `validation` or `test`, by the last word in a file's path that says so."""
    words = [next(filter(None, found)) for found in _SPLIT_WORD.findall(name.lower())]
    return _SPLITS[words[-1]] if words else "train"


def _saved_to_disk(library: Any, path: Path) -> Mapping[str, Any]:
    found = library.load_from_disk(str(path))
    return found if isinstance(found, dict) else {"train": found}


# ---- what is in it


def _understand(library: Any, splits: Mapping[str, Any], request: SourceRequest) -> RawImages:
    findings, options = Findings(), request.options
    column = image_column(library, splits, findings)
    table, held, names = join_splits(library, splits, column, findings)
    wanted = options.classes != "none"
    classes = find_labels(library, table, column, findings) if wanted else None
    row_of = {names[row]: int(row) for row in (classes.rows if classes else range(len(names)))}
    encoded = table.select_columns([column])

    def opener(name: str) -> BinaryIO:
        return _stream(encoded[row_of[name]][column])

    log.info(f"looking at {len(row_of):,} rows of {request.name}")
    looked = look_at(list(row_of), opener)
    broken = [f"{name} ({error})" for name, error in looked.unusable.items()]
    check_unreadable(len(broken), len(row_of), broken)
    for name, error in looked.unusable.items():
        findings.leave_out(error.reason, [name])
    files = [name for name in row_of if name in looked.headers]
    if len(files) < MIN_IMAGES:
        raise too_few_images(len(files), f"usable images in {request.name}")
    images, index = encoded_images(files, looked, opener, options, findings)
    files = [files[i] for i in index]
    rows = np.array([row_of[name] for name in files], np.int64)
    held = held[rows]
    return RawImages(
        images=images,
        labels=classes.labels[rows] if classes else None,
        names=classes.names if classes else (),
        held=held if held.any() and not held.all() else None,
        files=files,
        findings=findings,
    )


def _stream(entry: Mapping[str, Any] | None) -> BinaryIO:
    if entry and entry["bytes"] is not None:
        return BytesIO(entry["bytes"])
    if entry and entry["path"]:
        return open(entry["path"], "rb")
    raise UnusableImage("no image in the row")
