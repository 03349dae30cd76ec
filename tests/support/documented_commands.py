"""The shell commands of a page, and how a test runs each of them in seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_pages import code_blocks


@dataclass(frozen=True)
class Command:
    """A command as the page has it, without its comment. line: where it stands, counted from 1."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Elsewhere:
    """A command that no test can run. check: what runs in its place; empty if nothing can."""

    reason: str
    check: str = ""


@dataclass
class Plan:
    """How the commands of the pages run; remembers which of its entries were used.

    shorter: a pattern of a command's text -> what replaces it. elsewhere: commands that are not run.
    """

    shorter: dict[str, str]
    elsewhere: dict[str, Elsewhere]
    used: set[str] = field(default_factory=set)

    def command_for(self, text: str) -> str:
        """What runs for the command `text`; empty if nothing does."""
        if text in self.elsewhere:
            self.used.add(text)
            return self.elsewhere[text].check
        for pattern, replacement in self.shorter.items():
            text, count = re.subn(pattern, replacement, text)
            self.used |= {pattern} if count else set()
        return text

    def unused(self) -> list[str]:
        """The entries that no page needs."""
        return [entry for entry in (*self.shorter, *self.elsewhere) if entry not in self.used]


def documented_commands(page: Path, root: Path) -> list[Command]:
    """The commands of the page's ```bash blocks, in order; lines that end in a backslash are joined."""
    found = []
    for block in code_blocks(page.read_text(encoding="utf-8")):
        if block.language != "bash":
            continue
        held = ""
        for number, line in enumerate(block.text.splitlines(), block.line):
            held += line
            if held.endswith("\\"):
                held = held[:-1]
                continue
            if text := _without_comment(held):
                found.append(Command(str(page.relative_to(root)), number, text))
            held = ""
    return found


def _without_comment(line: str) -> str:
    """The line up to the first `#` that begins a word outside of quotes."""
    kept = re.match(r"""(?:'[^']*'|"[^"]*"|(?<=\S)\#|[^'"\#])*""", line)
    return kept[0].strip() if kept else ""
