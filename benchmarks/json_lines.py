"""Results of long benchmarks, one JSON line each, so that a run which was cut off goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_lines(path: Path | None) -> list[dict[str, Any]]:
    """The results of earlier runs; none without a file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else []
    return [json.loads(line) for line in lines]


def add_line(path: Path | None, result: dict[str, Any], quiet: bool = False) -> None:
    """Print a result (unless quiet), and add it to the file if there is one."""
    line = json.dumps(result)
    if not quiet:
        print(line, flush=True)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
