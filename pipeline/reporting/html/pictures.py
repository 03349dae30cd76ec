"""The pictures of a report as data URIs: sample grids of trials, the champion's filmstrip, its model card.

The files were written by the trials and for the card; here they are chosen and shrunk.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import SweepPaths
from pipeline.reporting.history import History
from pipeline.tracking.registry.latent_walk import WALKS
from pipeline.training.checkpoint import grid_path

COLUMNS = 10
"""Images to a row of a grid, as trials write them."""

CARD_COLUMNS = 8
"""Images to a row of each half of a card's picture of real and generated images."""

_MOST_BESIDE = 6  # rows and columns of images that are shown beside others
_HALF_WIDTH = 320  # pixels of a picture that is shown beside another
_MAX_PNG_BYTES = 24_000  # a PNG up to this size is embedded unchanged
_THUMBNAIL_WIDTH = 320  # pixels
_THUMBNAIL_BUDGET = 3_500_000  # bytes of all trials' thumbnails together, best trials first
_FILMSTRIP_ROWS = 10
_GRID_WIDTH = 640  # pixels


@dataclass(frozen=True)
class Grids:
    """Samples of a trial at one tick or several, as a data URI."""

    uri: str
    kimg: tuple[int, ...]


def grid(folder: Path, kimg: float | None, width: int = _GRID_WIDTH) -> Grids | None:
    """The sample grid at `kimg`, or at the last tick before it that has one."""
    wanted = grid_path(folder, int(kimg or 0))
    earlier = [path for path in _grid_files(folder) if path.name <= wanted.name]
    uri = data_uri(earlier[-1], width) if earlier else ""
    return Grids(uri, (int(earlier[-1].stem),)) if uri else None


def _grid_files(folder: Path) -> list[Path]:
    """The sample grids of a trial, first tick first."""
    return [path for path in sorted((folder / "samples").glob("*.png")) if path.stem.isdigit()]


def thumbnails(history: History) -> dict[int, str]:
    """The trials' sample grids at their best ticks as data URIs, by number; the best first, in a budget."""
    uris: dict[int, str] = {}
    spent = 0
    for trial in history.trials:
        found = grid(SweepPaths(history.root).trial(trial.number), trial.kimg, _THUMBNAIL_WIDTH)
        spent += len(found.uri) if found else 0
        if spent > _THUMBNAIL_BUDGET:
            break
        if found:
            uris[trial.number] = found.uri
    return uris


def data_uri(path: Path, width: int) -> str:
    """The picture in `path` as a data URI, at most `width` pixels wide; empty if it cannot be read.

    A small PNG is embedded unchanged, everything else as WebP.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.format == "PNG" and path.stat().st_size <= _MAX_PNG_BYTES:
                return _uri(path.read_bytes(), "png")
            return _encode(_shrink(picture, width))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # from Pillow: not a picture
        return ""


def real_and_generated(card: Path) -> tuple[str, str, int]:
    """The card's training images and samples as two pictures, and how many images each shows.

    The first rows and columns of each half, with gaps between the images. ("", "", 0) without a picture.
    """
    try:
        with Image.open(card / "real_and_generated.png") as both:
            both.load()
            side = both.height // CARD_COLUMNS
            shown = max(4, min(_MOST_BESIDE, _HALF_WIDTH // max(1, side)))
            halves = [
                np.asarray(both.crop((x, 0, x + both.height, both.height)))
                for x in (0, both.width - both.height)
            ]
            real, generated = (_with_gaps(half, side, shown) for half in halves)
            return real, generated, shown**2
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "", "", 0


def _with_gaps(sheet: np.ndarray, side: int, shown: int) -> str:
    """The first images of a sheet of images without gaps, with transparent gaps, as a data URI."""
    gap = max(1, side // 16)
    step, count = side + gap, shown * (side + gap) - gap
    colours = sheet if sheet.ndim == 3 else sheet[:, :, None].repeat(3, axis=2)
    spaced = np.zeros((count, count, 4), np.uint8)
    for row, column in np.ndindex(shown, shown):
        y, x = row * step, column * step
        image = colours[row * side : (row + 1) * side, column * side : (column + 1) * side]
        spaced[y : y + side, x : x + side, :3] = image[:, :, :3]
        spaced[y : y + side, x : x + side, 3] = 255
    buffer = io.BytesIO()
    picture = _shrink(Image.fromarray(spaced), 2 * _HALF_WIDTH)
    picture.save(buffer, format="WEBP", lossless=picture.width < _HALF_WIDTH, quality=80)
    return _uri(buffer.getvalue(), "webp")


def sprite(path: Path) -> tuple[str, int]:
    """A sprite of walks as a data URI, and its number of frames; ("", 0) if it cannot be read."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            side = picture.width // WALKS
            return (_uri(data, "webp"), picture.height // side) if picture.format == "WEBP" else ("", 0)
    except (OSError, ValueError, ZeroDivisionError, SyntaxError, Image.DecompressionBombError):
        return "", 0


def filmstrip(folder: Path) -> Grids | None:
    """The first rows of up to ten sample grids, stacked from first tick to last.

    Each column shows the same latents at every tick. None if fewer than two grids can be read.
    """
    found = _grid_files(folder)
    steps = {round(i) for i in np.linspace(0, len(found) - 1, _FILMSTRIP_ROWS)} if found else set()
    picked = [found[i] for i in sorted(steps)]
    rows = [(int(path.stem), row) for path in picked if (row := _first_row(path)) is not None]
    rows = [(kimg, row) for kimg, row in rows if row.shape == rows[0][1].shape]
    if len(rows) < 2:
        return None
    sheet = Image.fromarray(np.concatenate([row for _, row in rows]))
    return Grids(_encode(_shrink(sheet, _GRID_WIDTH)), tuple(kimg for kimg, _ in rows))


def _first_row(path: Path) -> np.ndarray | None:
    """The first row of a grid of square images, `COLUMNS` to a row; None if it cannot be read."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(_grey_or_rgb(picture))
    except (OSError, ValueError, SyntaxError):
        return None
    return pixels[: max(1, pixels.shape[1] // COLUMNS)]


def _shrink(picture: Image.Image, width: int) -> Image.Image:
    if picture.width <= width:
        return picture
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _encode(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    _grey_or_rgb(picture).save(buffer, format="WEBP", quality=80)
    return _uri(buffer.getvalue(), "webp")


def _grey_or_rgb(picture: Image.Image) -> Image.Image:
    return picture.convert("L" if picture.mode in ("L", "1") else "RGB")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
