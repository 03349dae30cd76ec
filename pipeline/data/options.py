"""What a user says about how images are read: one field for each option of `run`, `data` and `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import ImageColor

from pipeline.config import names_file
from pipeline.errors import DataError, nearest

MIN_SIDE, MAX_SIDE = 8, 4096
FITS = ("crop", "pad", "stretch")
SPLITS = ("", "given", "merge")
FRAMES = ("first", "all")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How images are read and prepared.

    size: side of the prepared images in pixels, 8..4096; 0 = chosen by the images. classes: `none`,
    `folders`, or a file (csv, tsv, json, jsonl) that names each image's class; "" = what the source itself
    says. split: `given` holds out what the source calls validation or test, `merge` ignores that; "" = given
    where enough images are. fit: how an image that is not square becomes so: `crop` its centre, `pad` it with
    `background`, or `stretch` it. background: under transparent pixels and beside padded images, as `white`
    or `#rrggbb`. frames: of stacks and animations, `first` or `all`.

    Raises:
        DataError: a value is out of its range.
    """

    size: int = 0
    classes: str = ""
    split: str = ""
    fit: str = "crop"
    background: str = "white"
    frames: str = "first"

    def __post_init__(self) -> None:
        if self.size and not MIN_SIDE <= self.size <= MAX_SIDE:
            rule, fix = f"image_size is 0 or in [{MIN_SIDE}, {MAX_SIDE}]", "set 0 to have a size chosen"
            raise DataError("image_size={seen} is out of range", rule=rule, seen=self.size, fix=fix)
        for name, allowed in (("fit", FITS), ("split", SPLITS), ("frames", FRAMES)):
            value, choices = getattr(self, name), [choice for choice in allowed if choice]
            if value not in allowed:
                rule = f"{name} is {', '.join(choices)}"
                fix = nearest(value, choices)
                raise DataError(f"{name}={{seen}} is unknown", rule=rule, seen=value, fix=fix)
        self.background_colour  # noqa: B018  (raises)

    @property
    def background_colour(self) -> tuple[int, int, int]:
        """Red, green and blue, 0..255."""
        try:
            return ImageColor.getrgb(self.background)[:3]
        except ValueError as error:
            rule = "background is a colour: white, black, grey, #rrggbb, rgb(r,g,b)"
            fix = "write --background white"
            raise DataError(
                "background={seen} is no colour", rule=rule, seen=self.background, fix=fix
            ) from error

    @property
    def classes_file(self) -> Path | None:
        """The file that names the classes, or None."""
        return Path(self.classes).expanduser() if names_file(self.classes) else None


AS_FOUND = DataOptions()
"""Everything is chosen by the images."""
