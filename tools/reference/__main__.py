"""Write docs/reference/ from the code; with `--check` name the pages that differ, and exit 1."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.reference import cli, files, index, parameters, summary_json, sweep_options

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
_KINDS = (cli, parameters, sweep_options, summary_json, files)


def generate() -> dict[str, str]:
    """Every page by its path below docs/reference/."""
    pages = {path: content for kind in _KINDS for path, content in kind.pages().items()}
    return {**index.pages(pages), **pages}


def stale(folder: Path = FOLDER) -> list[str]:
    """The pages that are missing, differ from the code, or belong to nothing any more."""
    pages = generate()
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.md")}
    texts = {name: path.read_text(encoding="utf-8") for name, path in there.items()}
    differing = [name for name, content in pages.items() if texts.get(name) != content]
    return sorted([*differing, *(there.keys() - pages.keys())])


def write(folder: Path = FOLDER) -> list[str]:
    """Make the folder current; returns the pages that were not."""
    pages, changed = generate(), stale(folder)
    for name in changed:
        path = folder / name
        if name not in pages:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[name], encoding="utf-8")
    return changed


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    check = parser.parse_args(arguments).check
    changed = stale(folder) if check else write(folder)
    for name in changed:
        print(f"{'stale' if check else 'written'}: docs/reference/{name}")
    if check and changed:
        print("run python -m tools.reference")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
