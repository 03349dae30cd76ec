"""Hooks of mkdocs: files outside of docs/ that pages link to become part of the site.

Links are written as GitHub follows them, relative to the page's place in the repository. A linked page
becomes a page of the site, any other linked file is copied into it; a link to a folder becomes plain text.
The site's first page takes the place of README.md.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages of the navigation; so are those of examples/."""

_LINK = re.compile(r"(?P<text>!?\[(?:[^\[\]]|!?\[[^\]]*\]\([^)]*\))*\])\((?P<target>[^)\s]+)\)")
_FENCED = re.compile(r"^([ \t]*)(`{3,}|~{3,}).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside of docs/, and every file outside that a page links to."""
    found = {path: None for path in (*ALWAYS, *_examples()) if (ROOT / path).is_file()}
    pages = {DOCS + file.src_uri for file in files.documentation_pages()} | found.keys()
    while pages:
        page = pages.pop()
        for target in _outside(page):
            if target not in found and (ROOT / target).is_file() and target != "README.md":
                found[target] = None
                pages |= {target} if target.endswith(".md") else set()
    for path in found:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Links as the site follows them."""
    here = _place(page.file.src_uri)

    def rewrite(match: re.Match[str]) -> str:
        target, anchor = _resolve(here, match["target"])
        if target is None:
            return match[0]
        if (ROOT / target).is_dir():
            return match["text"][1:-1]
        site, anchor = ("index.md", "") if target == "README.md" else (target.removeprefix(DOCS), anchor)
        link = posixpath.relpath(site, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match['text']}({link}{anchor})"

    return _outside_of_code(markdown, rewrite)


def _examples() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.md"))


def _outside(page: str) -> list[str]:
    """The files outside of docs/ that a page links to."""
    targets: list[str] = []

    def collect(match: re.Match[str]) -> str:
        target, _ = _resolve(page, match["target"])
        targets.extend([target] if target and not target.startswith(DOCS) else [])
        return match[0]

    _outside_of_code((ROOT / page).read_text(encoding="utf-8"), collect)
    return targets


def _outside_of_code(markdown: str, replace: Any) -> str:
    """The text with `replace` on its links, except in fenced blocks."""
    parts, end = [], 0
    for block in _FENCED.finditer(markdown):
        parts += [_LINK.sub(replace, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, _LINK.sub(replace, markdown[end:])])


def _resolve(page: str, target: str) -> tuple[str | None, str]:
    """The path in the repository that a link of a page means, None for another host; and its anchor."""
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|/", path):
        return None, ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)), mark + anchor


def _place(src_uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return DOCS + src_uri if (ROOT / DOCS / src_uri).is_file() else src_uri
