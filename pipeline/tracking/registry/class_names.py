"""A class of a generator, given by its number or by its name: `2`, `cat`, `number:2`."""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Sequence

from pipeline.errors import RegistryError

NUMBER = "number:"
"""`number:2` is class 2, whatever the classes are called."""
_SHOWN = 8  # names in an error


def find_class(text: str, names: Sequence[str], classes: int) -> int:
    """The number of the class that `text` means: its number or its name.

    A text that is the number of one class and the name of another is refused: an old model may have the
    classes 0, 1, 10, 2, in this order. A number that no class has is returned, and refused where it is used.

    Args:
        names: of the classes by number; empty = they have none. classes: their number.

    Raises:
        RegistryError: no class, or several, have this number or name.
    """
    digits = re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip().removeprefix(NUMBER))
    number = int(digits[0]) if digits else None
    if number is not None and text.strip().startswith(NUMBER):
        return number
    found = _named(text, names)
    if number is not None and 0 <= number < classes:
        found = sorted({number, *found})
    if len(found) > 1:
        means = " and ".join(describe_class(one, names) for one in found)
        fix = " or ".join(f"{NUMBER}{one}" for one in found)
        raise RegistryError(
            "label {seen} means several classes", rule=means, seen=text.strip(), fix=f"write {fix}"
        )
    if found:
        return found[0]
    if number is not None:
        return number
    rule = f"a label is a number in [0, {classes - 1}], or a name"
    raise RegistryError("no class is called {seen}", rule=rule, seen=repr(text), fix=_nearest(text, names))


def describe_class(number: int, names: Sequence[str]) -> str:
    """`class 2: "ten"`, or `class 2` where it has no name."""
    return f"class {number}: {_quoted(names[number])}" if 0 <= number < len(names) else f"class {number}"


def split_classes(text: str) -> tuple[str, ...]:
    """`0,cat` as texts; a name with a comma stands in double quotes."""
    parts = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(part.strip() for part in parts if part.strip())


def _named(text: str, names: Sequence[str]) -> list[int]:
    """The classes of this name: exactly, else but for spaces at its ends and the form of its accents."""
    exact = [number for number, name in enumerate(names) if name == text]
    return exact or [number for number, name in enumerate(names) if _plain(name) == _plain(text)]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _nearest(text: str, names: Sequence[str]) -> str:
    """`did you mean "cat" or "cow"?`, or the first names."""
    folded = {_plain(name).casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(_plain(text).casefold(), folded, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(_quoted(folded[name]) for name in close)}?"
    if not names:
        return "write a number: its classes have no names"
    more = f" ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"its classes are {', '.join(map(_quoted, names[:_SHOWN]))}{more}"


def _quoted(name: str) -> str:
    printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return f'"{"".join(printable)}"'
