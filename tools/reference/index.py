"""index.md: what lies where."""

from __future__ import annotations

from collections.abc import Mapping

from tools.reference.markdown import HEADER, page, table

_MEANINGS = {
    "cli/index.md": "every command with its options",
    "parameters.md": "what a space may fix or search: type, default, range, unit, meaning",
    "sweep-options.md": "how many trials, how they are judged, where they run",
    "files.md": "every file of a sweep's folder and of a trial's",
    "summary-json.md": "every key of a sweep's summary",
    "measurement.md": "every number that is measured of a generator",
}


def pages(others: Mapping[str, str]) -> dict[str, str]:
    """The page by its path below docs/reference/. others: the pages that it lists."""
    rows = [(f"[{_title(others[path])}]({path})", meaning) for path, meaning in _MEANINGS.items()]
    intro = "These pages are generated from the code of this version; a test holds them current."
    return {"index.md": page("Reference", intro, table(("page", "what it lists"), rows))}


def _title(content: str) -> str:
    return content.removeprefix(HEADER).partition("\n")[0].removeprefix("# ")
