"""Finds the images that a table names: with or without folders, suffix, capitals or leading zeros."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

NONE, SEVERAL = -1, -2


class ImageIndex:
    """Images by what people call them.

    Of several images that fit, the one with the same folders is meant, else the only one that is `preferred`.
    """

    def __init__(self, names: Sequence[str], preferred: Sequence[bool]) -> None:
        """names: of the images, with their folders. preferred: for each, whether it trains."""
        self._names = [_normal(name) for name in names]
        self._preferred = preferred
        self._exact = {name: i for i, name in enumerate(names)}
        self._by_base: dict[str, list[int]] = defaultdict(list)
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(self._names):
            base = name.rpartition("/")[2]
            self._by_base[base].append(i)
            self._by_stem[_stem(base)].append(i)
        self._by_number: dict[str, list[int]] | None = None

    def find(self, key: str) -> int:
        """The number of the image that `key` names; `NONE`, or `SEVERAL` if it may be one of many."""
        if (exact := self._exact.get(key)) is not None:
            return exact
        key = _normal(key)
        base = key.rpartition("/")[2]
        if not base:
            return NONE
        candidates = self._by_base.get(base) or self._by_stem.get(base) or self._by_stem.get(_stem(base))
        return self._choose(key, candidates or self._numbered(base))

    def _choose(self, key: str, candidates: Sequence[int]) -> int:
        folders = key.split("/")[:-1]
        fitting = [i for i in candidates if _agree(folders, self._names[i].split("/")[:-1])]
        for chosen in (
            fitting,
            [i for i in fitting if self._names[i].split("/")[:-1] == folders],
            [i for i in fitting if self._preferred[i]],
        ):
            if len(chosen) == 1:
                return chosen[0]
        return SEVERAL if fitting else NONE

    def _numbered(self, base: str) -> Sequence[int]:
        """`7` or `7.0` for `0007.png`: programs that read numbers drop their zeros."""
        number = base.removesuffix(".0")
        number = number if _is_number(number) else _stem(base)
        if not _is_number(number):
            return ()
        if self._by_number is None:
            self._by_number = defaultdict(list)
            for stem, images in self._by_stem.items():
                if _is_number(stem):
                    self._by_number[stem.lstrip("0")] += images
        return self._by_number.get(number.lstrip("0"), ())


def _normal(name: str) -> str:
    name = unicodedata.normalize("NFC", name.strip().replace("\\", "/")).casefold()
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _stem(base: str) -> str:
    return base.rpartition(".")[0] or base


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _agree(one: list[str], other: list[str]) -> bool:
    """Whether the shorter path of folders ends the longer one."""
    shared = min(len(one), len(other))
    return not shared or one[-shared:] == other[-shared:]
