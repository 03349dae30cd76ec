"""Markdown that GitHub and the site show alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

HEADER = "<!-- Generated from the code by `python -m tools.reference`; do not edit. -->\n\n"


def page(title: str, *parts: str) -> str:
    """A page: the generated-by line, its title, its parts; empty parts are left out."""
    return HEADER + "\n\n".join([f"# {title}", *(part.strip("\n") for part in parts if part)]) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a column without any value is left out."""
    cells = [[*row] for row in rows]
    used = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in cells)]
    lines = [[columns[i] for i in used], ["---"] * len(used), *([row[i] for i in used] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(value: str) -> str:
    """Plain text for a table's cell or a paragraph; what stands between backticks stays code."""
    parts = " ".join(value.split()).split("`")
    if len(parts) % 2 == 0:
        parts = ["`".join(parts)]
    return "".join(code(part) if number % 2 else _escape(part) for number, part in enumerate(parts))


def code(value: object) -> str:
    """Code for a table's cell; a bar inside backticks would end the cell on GitHub."""
    plain = str(value)
    if "|" not in plain and "`" not in plain:
        return f"`{plain}`" if plain else ""
    return f"<code>{_escape(plain)}</code>"


def block(content: str, language: str = "") -> str:
    return f"```{language}\n{content.rstrip()}\n```"


def _escape(plain: str) -> str:
    marks = {"&": "&amp;", "<": "&lt;", "|": "&#124;", "*": r"\*"}
    return "".join(marks.get(character, character) for character in plain)
