"""Pictures of any mode with 8 bits a channel as grey or sRGB ones."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
IGNORED = "colour profile ignored"
CONVERTED = "colour profile"
TRANSPARENT = "transparent"
_SPACES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
_NOTHING_CHANGES = 2  # in 255

Colour = tuple[int, int, int]


class Converted(NamedTuple):
    """A picture `L` or `RGB`, and what was special about it."""

    picture: Image.Image
    notes: tuple[str, ...] = ()


def to_srgb(image: Image.Image, background: Colour) -> Converted:
    """A picture of any mode as `L` if it is grey, else `RGB`: its profile applied, over `background`."""
    profile = image.info.get("icc_profile")
    if image.mode in ("L", "RGB") and not profile and "transparency" not in image.info:
        return Converted(image)
    mode = image.mode
    if mode == "LAB":
        return Converted(_from_lab(image), ("LAB",))
    notes = ["CMYK"] if mode == "CMYK" else []
    layer = _with_alpha(image) if image.has_transparency_data else None
    grey = mode in GREY_MODES
    picture = (layer or image).convert("L" if grey else mode if mode == "CMYK" else "RGB")
    if profile:
        picture, note = _through_profile(picture, bytes(profile))
        notes += [note] if note else []
    picture = picture.convert("L" if grey else "RGB")
    if layer:
        alpha = layer.getchannel("A")
        notes += [TRANSPARENT] if alpha.getextrema() != (255, 255) else []
        picture = over(picture, alpha, background)
    return Converted(picture, tuple(notes))


def over(picture: Image.Image, alpha: Image.Image, background: Colour) -> Image.Image:
    """A picture `L` or `RGB` with `alpha` over a colour: grey stays grey over grey."""
    layer = picture.convert("RGBA")
    layer.putalpha(alpha)
    flat = Image.alpha_composite(Image.new("RGBA", layer.size, background), layer)
    return flat.convert("L" if picture.mode == "L" and len(set(background)) == 1 else "RGB")


def _with_alpha(image: Image.Image) -> Image.Image:
    """`RGBA` of a picture with transparency of any kind."""
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")


def _from_lab(image: Image.Image) -> Image.Image:
    return ImageCms.applyTransform(image, _lab_transform()) or image.convert("RGB")


@lru_cache(1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.NOCACHE)


def _through_profile(picture: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """The picture in sRGB, and a note; as it is where the profile is broken or of another kind of picture."""
    transform = _transform(profile, picture.mode)
    if isinstance(transform, str):
        return picture, transform
    return ImageCms.applyTransform(picture, transform) or picture, CONVERTED


@lru_cache(64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str:
    """How pictures of `mode` come to sRGB; "" if they are there already, else why the profile is no help."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _SPACES.get(opened.profile.xcolor_space) != mode:
            return IGNORED
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(opened, srgb, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
        return "" if mode != "CMYK" and _changes_nothing(transform, mode) else transform
    except MemoryError:
        raise
    except Exception:  # a profile from anywhere
        return IGNORED


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether every colour of a grid stays what it is, give or take a rounding."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 256, 3)
    colours = Image.fromarray(np.ascontiguousarray(grid)) if mode == "RGB" else Image.fromarray(steps[None])
    changed = ImageCms.applyTransform(colours, transform)
    before = np.asarray(colours.convert("RGB"), np.int16)
    return bool(np.abs(np.asarray(changed, np.int16) - before).max() <= _NOTHING_CHANGES)
