"""The picture of the README: a sweep as it went, and what its leader drew.

python -m tools.readme_picture runs/mnist5k    # writes docs/pictures/readme-sweep.gif
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from PIL import Image, ImageColor, ImageDraw, ImageFont

OUT = Path("docs/pictures/readme-sweep.gif")
SIZE, SCALE, FRAMES, MOST_BYTES = (880, 330), 2, (30, 24, 18, 12, 8), 400_000
PLOT = (60, 66, 330, 262)
SAMPLES = (370, 66, 856, 309)
COLOURS = PAPER, EDGE, FAINT, TEXT, LEADER, STOPPED = (
    "#161b22",
    "#30363d",
    "#8b949e",
    "#c9d1d9",
    "#3fb950",
    "#f0883e",
)

Event = dict[str, Any]


class Picture:
    """Draws the state of a sweep after any number of its events."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self.summary = json.loads((sweep / "summary.json").read_text())
        lines = (sweep / "spool.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        records = [event["record"] for event in events if event["event"] == "record"]
        self.ticks = [record for record in records if record["fid"]]
        fids = [tick["fid"] for tick in self.ticks]
        self.low, self.high = min(fids) * 0.85, sorted(fids)[int(0.97 * (len(fids) - 1))] * 1.1
        self.kimg = max(tick["kimg"] for tick in self.ticks)

    def frame(self, seen: int) -> Image.Image:
        """The picture after the first `seen` ticks; after all of them the best finalist leads."""
        image = Image.new("RGB", tuple(SCALE * side for side in SIZE), PAPER)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=EDGE, width=SCALE)
        ticks, over = self.ticks[:seen], seen == len(self.ticks) and self.summary["finalists"]
        winner = self.summary["finalists"][0]["best"]["trial"] if over else None
        best = min((tick for tick in ticks if winner in (None, tick["trial"])), key=lambda tick: tick["fid"])
        self._write(draw, (24, 20), f"gansweep: {self.summary['name']}", bold=True)
        self._write(draw, (SAMPLES[0], 20), self._status(ticks, best, over), LEADER if over else TEXT)
        self._axes(draw)
        leader = best["trial"]
        for trial in sorted({tick["trial"] for tick in ticks}, key=lambda number: number == leader):
            self._curve(draw, [tick for tick in ticks if tick["trial"] == trial], seen, trial == leader)
        self._samples(image, best)
        return image.resize(SIZE, Image.Resampling.LANCZOS)

    def _status(self, ticks: list[Event], best: Event, over: bool) -> str:
        if not over:
            trials = len({tick["trial"] for tick in ticks})
            return f"{trials} trials, trial {best['trial']} leads: fid {best['fid']:.2f}"
        measured, registered = self.summary["finalists"][0]["measurement"], self.summary["registered"]
        name = f"models:/{registered['name']}@champion" if registered else f"trial {best['trial']}"
        return f"{name}: fid {measured['fid']:.2f} [{measured['fid_low']:.2f}, {measured['fid_high']:.2f}]"

    def _axes(self, draw: ImageDraw.ImageDraw) -> None:
        left, top, right, bottom = PLOT
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for value in (10.0**power, 3 * 10.0**power):
                if self.low <= value <= self.high:
                    y = self._place(0, value)[1] / SCALE
                    draw.line([SCALE * each for each in (left, y, right, y)], EDGE, SCALE)
                    self._write(draw, (left - 8, y - 7), f"{value:g}", FAINT, anchor="ra")
        self._write(draw, (left, top - 20), "fid of every trial", FAINT)
        self._write(draw, (right, bottom + 4), f"{self.kimg} kimg", FAINT, anchor="ra")
        self._write(draw, (left, bottom + 4), "0", FAINT)
        self._write(draw, (SAMPLES[0], top - 20), "drawn by the leader", FAINT)

    def _curve(self, draw: ImageDraw.ImageDraw, ticks: list[Event], seen: int, leads: bool) -> None:
        points = [self._place(tick["kimg"], tick["fid"]) for tick in ticks]
        colour = LEADER if leads else FAINT
        if len(points) > 1:
            draw.line(points, colour, (4 if leads else 2) * SCALE // 2, joint="curve")
        (x, y), r = points[-1], 3 * SCALE
        later = any(tick["trial"] == ticks[0]["trial"] for tick in self.ticks[seen:])
        if later or leads or ticks[-1]["kimg"] >= self.kimg:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        else:  # stopped early
            draw.line((x - r, y - r, x + r, y + r), STOPPED, SCALE)
            draw.line((x - r, y + r, x + r, y - r), STOPPED, SCALE)

    def _samples(self, image: Image.Image, best: Event) -> None:
        sheet = Image.open(self.sweep / f"trials/{best['trial']}/samples/{best['kimg']:06d}.png").convert(
            "RGB"
        )
        left, top, right, bottom = (SCALE * side for side in SAMPLES)
        factor = min((right - left) / sheet.width, (bottom - top) / sheet.height)
        width, height = int(sheet.width * factor), int(sheet.height * factor)
        shown = sheet.resize((width, height), Image.Resampling.LANCZOS)
        image.paste(shown, (left, top))

    def _place(self, kimg: float, fid: float) -> tuple[float, float]:
        left, top, right, bottom = PLOT
        share = math.log(min(max(fid, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return SCALE * (left + (right - left) * kimg / self.kimg), SCALE * (bottom - (bottom - top) * share)

    def _write(
        self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str = TEXT,
        *, bold: bool = False, anchor: str = "la",
    ) -> None:  # fmt: skip
        style = font_manager.FontProperties(family="DejaVu Sans Mono", weight="bold" if bold else "normal")
        font = ImageFont.truetype(font_manager.findfont(style), 13 * SCALE)
        draw.text([SCALE * each for each in place], text, colour, font=font, anchor=anchor)


def _palette(image: Image.Image) -> Image.Image:
    """32 colours: those of the lines, and the most frequent ones of the image."""
    fixed = [channel for colour in COLOURS for channel in ImageColor.getrgb(colour)]
    frequent = image.quantize(32 - len(COLOURS), dither=Image.Dither.NONE).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette(fixed + (frequent or [])[: 3 * (32 - len(COLOURS))])
    return palette


def write(picture: Picture, count: int) -> int:
    """Write the animation with at most `count` frames; returns its size in bytes."""
    total = len(picture.ticks)
    drawn = [
        picture.frame(each) for each in sorted({-(-total * step // count) for step in range(1, count + 1)})
    ]
    palette = _palette(drawn[-1])
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in drawn]
    waits = [250] * (len(frames) - 1) + [5000]
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=waits, loop=0, optimize=True)
    return OUT.stat().st_size


def main() -> None:
    picture = Picture(Path(sys.argv[1]))
    size = next((size for count in FRAMES if (size := write(picture, count)) < MOST_BYTES), 0)
    print(f"{OUT}: {size / 1000:.0f} kB" if size else f"{OUT} is too large: above {MOST_BYTES / 1000:.0f} kB")


if __name__ == "__main__":
    main()
