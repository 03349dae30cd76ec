"""`Finding`: the result of one check; those of the checks that a sweep makes too, in the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UserError

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. level: warn = a sweep runs, but read this; bad = it fails until repaired."""

    name: str
    level: Level
    text: str


def judge(name: str, ok: str, check: Callable[[], Iterable[str]]) -> list[Finding]:
    """`bad` where a check of a sweep raises, a `warn` for each line that it returns, else `ok`.

    ok: the text where nothing is wrong.
    """
    try:
        warnings = [Finding(name, "warn", line) for line in check()]
    except UserError as error:
        return [Finding(name, "bad", str(error))]
    return warnings or [Finding(name, "ok", ok)]
