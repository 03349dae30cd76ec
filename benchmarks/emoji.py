"""Pictures that no table knows: the emoji of Debian's Noto Color Emoji, drawn on white.

apt-get install --no-install-recommends fonts-noto-color-emoji
python benchmarks/emoji.py emoji        # writes the folder `emoji`, about 1,300 PNGs in seven folders
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
DRAWN_SIZE = 109  # the only size that the font has
SIDE = 64
CLASSES = {
    "symbols": (0x2600, 0x27BF),
    "nature": (0x1F300, 0x1F43F),
    "objects": (0x1F440, 0x1F5FF),
    "faces": (0x1F600, 0x1F64F),
    "transport": (0x1F680, 0x1F6FF),
    "people": (0x1F900, 0x1F9FF),
    "more": (0x1FA70, 0x1FAFF),
}
"""Code points of each folder, by Unicode's blocks."""


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python benchmarks/emoji.py FOLDER")
    if not FONT.is_file():
        raise SystemExit(f"no {FONT}: apt-get install --no-install-recommends fonts-noto-color-emoji")
    print(f"{write_emoji(Path(sys.argv[1]))} emoji: {sys.argv[1]}")


def write_emoji(folder: Path) -> int:
    """Write each emoji of one code point to `folder`/CLASS/CODE.png; returns their number."""
    font, count = ImageFont.truetype(str(FONT), DRAWN_SIZE), 0
    absent = font.getmask("\U00010000", mode="RGBA").getbbox()
    for name, (first, last) in CLASSES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for code in range(first, last + 1):
            if font.getmask(chr(code), mode="RGBA").getbbox() in (None, absent):
                continue
            picture = Image.new("RGB", (136, 128), "white")
            ImageDraw.Draw(picture).text((0, 0), chr(code), font=font, embedded_color=True)
            picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(folder / name / f"{code:x}.png")
            count += 1
    return count


if __name__ == "__main__":
    main()
