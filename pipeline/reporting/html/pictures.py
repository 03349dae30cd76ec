"""The pictures of a report: sample grids of trials, the champion's course, its card; as data URIs.

Owns: which file is shown and how small. Refuses: drawing samples (the trials and the card did).
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import SweepPaths
from pipeline.reporting.history import History, TrialView
from pipeline.training.checkpoint import grid_path

COLUMNS = 10
"""Images to a row of a grid, as trials write them."""

_KEEP = 24_000  # a PNG up to so many bytes goes in as it is
_THUMB = 320  # else it becomes so many pixels wide
_BUDGET = 3_500_000  # bytes of all trials' thumbnails together, best trials first
_TICKS = 10  # rows of a filmstrip at most
_FILM = 640  # pixels across a filmstrip at most


def grid_of(folder: Path, kimg: float | None) -> tuple[int, Path] | None:
    """The grid at `kimg`, or of the last tick before that has one: (its kimg, file)."""
    wanted = grid_path(folder, int(kimg or 0))
    found = [path for path in sorted(wanted.parent.glob("*.png")) if path.stem.isdigit()]
    earlier = [path for path in found if path.name <= wanted.name]
    return (int(earlier[-1].stem), earlier[-1]) if earlier else None


def thumbnails(history: History) -> dict[int, str]:
    """A data URI of every trial's best grid, best trials first, as far as the budget goes."""
    uris: dict[int, str] = {}
    spent = 0
    for told in history.trials:
        found = grid_of(SweepPaths(history.root).trial(told.number), told.kimg)
        uri = data_uri(found[1], _THUMB) if found else ""
        spent += len(uri)
        if spent > _BUDGET:
            break
        if uri:
            uris[told.number] = uri
    return uris


def data_uri(path: Path, width: int) -> str:
    """The picture in `path` for a page, at most `width` pixels across; empty where it is none."""
    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.format == "PNG" and path.stat().st_size <= _KEEP:
                return _uri(path.read_bytes(), "png")
            return _encoded(_at_most(picture, width))
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ):  # what Pillow raises for no picture
        return ""


def filmstrip(folder: Path, told: TrialView) -> tuple[list[int], str] | None:
    """The first row of up to ten grids below one another, first tick to last: (their kimg, data URI).

    The same latents stand in the same column all along.
    """
    found = [path for path in sorted((folder / "samples").glob("*.png")) if path.stem.isdigit()]
    steps = {round(i) for i in np.linspace(0, len(found) - 1, _TICKS)} if found else set()
    picked = [found[i] for i in sorted(steps)]
    rows = [(int(path.stem), row) for path in picked if (row := _first_row(path)) is not None]
    rows = [(kimg, row) for kimg, row in rows if row.shape == rows[0][1].shape]
    if len(rows) < 2:
        return None
    sheet = Image.fromarray(np.concatenate([row for _, row in rows]))
    return [kimg for kimg, _ in rows], _encoded(_at_most(sheet, _FILM))


def _first_row(path: Path) -> np.ndarray | None:
    """Images are square, ten to a row: the first row is a tenth of the grid's width high."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if picture.mode in ("L", "1") else "RGB"))
    except (OSError, ValueError, SyntaxError):
        return None
    return pixels[: max(1, pixels.shape[1] // COLUMNS)]


def _at_most(picture: Image.Image, width: int) -> Image.Image:
    if picture.width <= width:
        return picture
    size = (width, max(1, round(picture.height * width / picture.width)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _encoded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("L" if picture.mode in ("L", "1") else "RGB").save(buffer, format="WEBP", quality=80)
    return _uri(buffer.getvalue(), "webp")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
