"""The pages: small enough to read, every link alive, all of them in a site that needs no other host."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_pages import ROOT, anchors, broken_links, code_blocks, links, pages

PAGES = [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages()]
LARGEST, LARGEST_README = 12 * 1024, 10 * 1024


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_long(page: Path) -> None:
    limit = LARGEST_README if page == ROOT / "README.md" else LARGEST
    assert page.stat().st_size <= limit


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def navigation(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    items = entries.values() if isinstance(entries, dict) else entries
    return [path for entry in items for path in navigation(entry)]


def site_config() -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)  # the site's slugs
    content: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    return content


def test_the_navigation_has_every_page_once() -> None:
    named = navigation(site_config()["nav"])
    assert len(named) == len(set(named))
    of_docs = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    outside = {page.relative_to(ROOT).as_posix() for page in pages() if "docs" not in page.parts}
    assert of_docs - {*named} == set()
    assert {*named} == of_docs | outside - {"README.md"}


class Requests(HTMLParser):
    """Collects what a browser loads by itself, from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        loads = [given.get("src", ""), given.get("srcset", "")]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            loads.append(given.get("href", ""))
        self.foreign += [url for url in loads if re.match(r"(https?:)?//", url)]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_other_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": "", "NO_MKDOCS_2_WARNING": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    output = done.stdout + done.stderr
    assert "WARNING" not in output, output
    assert done.returncode == 0, output
    built = sorted(tmp_path.rglob("*.html"))
    assert len(built) > len(navigation(site_config()["nav"]))
    for page in built:
        requests = Requests()
        requests.feed(page.read_text(encoding="utf-8"))
        assert requests.foreign == [], page
    styles = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\"']*", styles) == []


def test_links_anchors_and_blocks_are_read_as_github_reads_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` (c), d\n[good](#a-b-c-d) [bad](#a-b) `[code](no.md)` [long\ntext](gone.md)\n"
        "[![picture](no.png)](page.md)\n\n```sh\n[fenced](no.md)\n```\n[elsewhere](https://example.org/x)\n",
        encoding="utf-8",
    )
    content = page.read_text(encoding="utf-8")
    assert anchors(content) == {"a-b-c-d"}
    assert [(block.language, block.text, block.line) for block in code_blocks(content)] == [
        ("sh", "[fenced](no.md)\n", 7)
    ]
    assert len(links(content)) == 6
    assert broken_links(page, tmp_path) == ["page.md:2: #a-b", "page.md:3: gone.md", "page.md:4: no.png"]
