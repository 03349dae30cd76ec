"""What was understood of a source while it was read: guesses, and what was left out and why."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_EXAMPLES = 3
"""So many names are kept for each reason."""


@dataclass
class LeftOut:
    """Files that are not used for one reason: how many, and the first names."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """What was understood of a source: guesses, and files that are not used.

    notes: one line for each guess, with the option that changes it. left_out: by reason, such as
    `unreadable`. classes_from: why these are the classes, as `the folders below train/`; "" without classes.
    given_split: the note on the split that the source gives.
    """

    notes: list[str] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    classes_from: str = ""
    given_split: str = ""

    def note(self, line: str) -> None:
        """Add a line, once."""
        if (line := printable(line)) not in self.notes:
            self.notes.append(line)

    def note_split(self, line: str) -> None:
        """Note which split the source gives."""
        self.given_split = printable(line)
        self.note(line)

    def withdraw_split(self, reason: str) -> None:
        """The split that the source gives is not used, for a reason that is noted instead."""
        self.notes = [line for line in self.notes if line != self.given_split]
        self.note(reason)

    def leave_out(self, reason: str, names: Iterable[str] = (), count: int = 0) -> None:
        """Count `names`, or `count` files where that is more, as left out for `reason`."""
        listed = list(names)
        if total := max(len(listed), count):
            entry = self.left_out.setdefault(reason, LeftOut())
            entry.count += total
            entry.examples += [printable(name) for name in listed[: MAX_EXAMPLES - len(entry.examples)]]


def printable(name: str) -> str:
    """A name on one line: control characters, and bytes that are no UTF-8, are escaped."""
    return name if name.isprintable() else "".join(map(_escaped, name))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte of a file's name
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character
