"""What a Markdown page holds: its links, the anchors of its headings, its fenced code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[2]
"""The checkout."""

TOP_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")

_INLINE = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_NESTED = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:[ \t]*<?([^\s>]+)>?", re.MULTILINE)
_HTML = re.compile(r"<[a-zA-Z][^>]*?\s(?:href|src|srcset)=[\"']([^\"']+)[\"']")
_HTML_ANCHOR = re.compile(r"<[a-zA-Z][^>]*?\s(?:id|name)=[\"']([^\"']+)[\"']")
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*$")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([^\s`]*)")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)((?:[^\n]|\n(?!\s*\n))+?)(?<!`)\1(?!`)")


@dataclass(frozen=True)
class Link:
    """A link or a picture. target: as written. line: counts from 1."""

    target: str
    line: int

    @property
    def is_external(self) -> bool:
        return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", self.target) is not None


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block. language: the first word after the fence, may be empty. line: of its first line."""

    language: str
    text: str
    line: int


def pages(root: Path = ROOT) -> list[Path]:
    """Every page that people read: those of the top level, of docs/ and of examples/."""
    below = [path for folder in ("docs", "examples") for path in sorted((root / folder).rglob("*.md"))]
    return [path for name in TOP_PAGES if (path := root / name).is_file()] + below


def links(text: str) -> list[Link]:
    """The links and pictures of a page, in Markdown and in HTML, outside of code."""
    prose = dict(_prose(text))
    lines = [prose.get(number, "") for number in range(1, len(text.splitlines()) + 1)]
    plain = _CODE_SPAN.sub(lambda match: re.sub(r"[^\n]", "x", match[0]), "\n".join(lines))
    found = [
        Link(match[1], 1 + plain.count("\n", 0, match.start(1)))
        for pattern in (_INLINE, _NESTED, _DEFINITION, _HTML)
        for match in pattern.finditer(plain)
    ]
    return list(dict.fromkeys(found))


def anchors(text: str) -> set[str]:
    """What `#anchor` may be on a page: its headings, as GitHub names them, and the ids of its HTML."""
    found = set()
    for _, line in _prose(text):
        heading = _HEADING.match(line)
        found |= {slug(heading[2])} if heading else set()
        found |= set(_HTML_ANCHOR.findall(line))
    return found


def slug(heading: str) -> str:
    """The anchor of a heading: lower case, blanks as `-`, without punctuation."""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def code_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of a page, with the indentation of the fence removed."""
    blocks: list[CodeBlock] = []
    fence, indent, language, first = "", 0, "", 0
    held: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if not fence and match:
            fence, language, first, held = match[1], match[2], number + 1, []
            indent = len(line) - len(line.lstrip())
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            blocks.append(CodeBlock(language, "".join(f"{each}\n" for each in held), first))
            fence = ""
        elif fence:
            held.append(line[min(indent, len(line) - len(line.lstrip())) :])
    return blocks


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """The relative links of a page whose file or anchor is not there: `page:line: target`."""
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        if link.is_external:
            continue
        path, _, anchor = link.target.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        missing = not target.exists() or not target.is_relative_to(root)
        if not missing and anchor and target.suffix == ".md":
            missing = unquote(anchor) not in anchors(target.read_text(encoding="utf-8"))
        if missing:
            broken.append(f"{page.relative_to(root)}:{link.line}: {link.target}")
    return broken


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines outside of fenced blocks."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if not fence and match:
            fence = match[1]
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        elif not fence:
            yield number, line
