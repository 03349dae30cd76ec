"""What commands print: results to stdout; log lines, progress and errors to stderr."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from pipeline.reporting.log_lines import err_console

# Off a terminal nothing is folded.
out_console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True, highlight=False)

_NARROWEST = 30
"""Characters of the narrowest last column that is folded."""


def print_rows(
    rows: Sequence[Sequence[str]], *, heading: bool = False, colours: Mapping[str, str] | None = None
) -> None:
    """Print rows of cells as aligned columns on stdout: folded to a terminal's width, whole elsewhere.

    heading: the first row names the columns. colours: style of a first cell by its text.
    """
    width = out_console.width if out_console.is_terminal else None
    for number, lines in enumerate(fold_rows(rows, width)):
        text = Text("\n".join(lines), style="bold" if heading and not number else "")
        first = rows[number][0]
        text.stylize((colours or {}).get(first, ""), 0, len(first))
        out_console.print(text)


def fold_rows(rows: Sequence[Sequence[str]], width: int | None) -> list[list[str]]:
    """The lines of each row, its cells in aligned columns two spaces apart; no line is cut inside a word.

    Where a row is longer than `width`, last cells are folded in their column, or, where that has less than 30
    characters, go below their row and the first of them (a heading) is left out. None = no row is folded.
    """
    *columns, last = zip(*rows, strict=True) if rows else [()]
    widths = [max(map(cell_len, column)) for column in columns]
    heads = [
        "".join(set_cell_size(cell, w) + "  " for cell, w in zip(row, widths, strict=False)) for row in rows
    ]
    room = sum(widths) + 2 * len(widths)
    if width is None or all(room + cell_len(cell) <= width for cell in last):
        return [[(head + cell).rstrip()] for head, cell in zip(heads, last, strict=True)]
    if width - room >= _NARROWEST:
        folded = [_fold(cell, width - room) or [""] for cell in last]
        indent = "\n" + " " * room
        return [(h + indent.join(f)).rstrip().split("\n") for h, f in zip(heads, folded, strict=True)]
    below = [[f"    {line}" for line in _fold(cell, width - 4)] for cell in last]
    return [
        [head.rstrip(), *(lines if i else [])]
        for i, (head, lines) in enumerate(zip(heads, below, strict=True))
    ]


def _fold(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, a line per tenth elsewhere.

    Yields a function to call with the number of images done and the number in all.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        printed = 0  # tenths

        def advance(done: int, n: int) -> None:
            nonlocal printed
            bar.update(task, completed=done, total=n, visible=True)
            if not err_console.is_terminal and done * 10 // n > printed:
                printed = done * 10 // n
                err_console.print(f"{done} of {n} images", markup=False)

        yield advance
