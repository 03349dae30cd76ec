"""Folders that cut one set into pieces and so are no classes: shards, dates, hash buckets."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence

from pipeline.data.files.natural_order import natural_key
from pipeline.data.layouts.places import FEW

_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})")
_SHARD_WORD = re.compile(
    r"(part|shard|chunk|batch|subset|slice|block|volume|vol|disc|disk|archive|fold|dir|folder|images?|imgs?|data)[\W_]*",
    re.IGNORECASE,
)
_CAMERA = re.compile(r"[1-9][0-9]{2}[A-Z0-9_]{5}")
_DATE = re.compile(
    r"(photos from )?(19|20)[0-9]{2}[-_. ]?(0[1-9]|1[0-2])([-_. ]?[0-3][0-9])?|photos from (19|20)[0-9]{2}",
    re.IGNORECASE,
)
_HEX = re.compile(r"[0-9a-f]+")
_STEPS = (100, 128, 256, 500, 512, 1000, 1024, 2000, 4096, 5000, 10_000, 100_000)
_NAMED_AFTER_HASH = 16


def shards_of(folders: Mapping[str, Sequence[str]]) -> str:
    """Why folders hold pieces of one set, as `numbered shards`; "" if they may be classes.

    folders: by the name of each, the names of the files in it, without folders; at least two.
    """
    names = list(folders)
    if len(names) < 2:
        return ""
    for pattern, what in ((_CAMERA, "folders of a camera"), (_DATE, "dates")):
        if why := _named_after(pattern, what, folders):
            return why
    if _are_buckets(folders):
        return "the first digits of the files' names"
    return "numbered shards" if _are_numbered(folders) else ""


def _named_after(pattern: re.Pattern[str], what: str, folders: Mapping[str, Sequence[str]]) -> str:
    """`what` if at least two folders, which hold all images but a few, fit the pattern; else ""."""
    others = {name for name in folders if not pattern.fullmatch(name)}
    few = FEW * sum(map(len, folders.values()))
    if len(folders) - len(others) < 2 or sum(len(folders[name]) for name in others) > few:
        return ""
    return f"mostly {what}" if others else what


def _are_buckets(folders: Mapping[str, Sequence[str]]) -> bool:
    """`ab/ab12...png`, files spread by the first digits of a hash."""
    for name, files in folders.items():
        bucket = name.casefold()
        if len(bucket) > 4 or not _HEX.fullmatch(bucket):
            return False
        for file in files:
            stem = os.path.splitext(file)[0].casefold().replace("-", "")
            if len(stem) < _NAMED_AFTER_HASH or not _HEX.fullmatch(stem) or not stem.startswith(bucket):
                return False
    return True


def _are_numbered(folders: Mapping[str, Sequence[str]]) -> bool:
    """`00000/img00000000.png`, `01000/01999.png`, `part-0001/...`: files numbered on across the folders."""
    matches = [_NUMBERED.fullmatch(name) for name in sorted(folders, key=natural_key)]
    found = [match for match in matches if match]
    if len(found) < len(matches) or len({match[1] for match in found}) > 1:
        return False
    prefix, numbers = found[0][1], [int(match[2]) for match in found]
    counts = [len(folders[match[0]]) for match in found]
    same_size = counts[0] > 1 and len(set(counts[:-1])) == 1 and counts[-1] <= counts[0]
    files = [[_number(file) for file in folders[match[0]]] for match in found]
    if _SHARD_WORD.fullmatch(prefix):
        return same_size or _go_on(files)
    widths = {len(match[2]) for match in found}
    padded = not prefix and len(widths) == 1 and min(widths) >= 3 and found[0][2].startswith("0")
    if not padded or not _go_on(files):
        return False
    steps = [*_STEPS, *([counts[0]] if same_size and min(widths) >= 4 else []), math.gcd(*numbers)]
    return any(_is_step(step, numbers, files) for step in steps if step > 1)


def _number(file: str) -> int:
    """The last number of a file's name; -1 without one."""
    found = re.findall(r"[0-9]{1,18}", os.path.splitext(file)[0])
    return int(found[-1]) if found else -1


def _go_on(files: list[list[int]]) -> bool:
    """Whether the numbers of each folder's files follow those of the folder before."""
    if any(min(numbers) < 0 for numbers in files):
        return False
    return all(max(before) < min(after) for before, after in zip(files, files[1:], strict=False))


def _is_step(step: int, folders: list[int], files: list[list[int]]) -> bool:
    """Whether a folder's number follows from those of its files, counted from 0 or 1."""
    for first in (0, 1):
        for unit in (1, step):
            if all(
                (number - first) // step * unit == folder - (first if unit == 1 else 0)
                for folder, numbers in zip(folders, files, strict=True)
                for number in (min(numbers), max(numbers))
            ):
                return True
    return False
