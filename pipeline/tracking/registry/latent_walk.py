"""Walks in latent space: points on great circles, and the sprites of them for a model card.

A sprite is one picture of many frames: a column for each walk, a row for each frame.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.pictures import image_sheet, to_picture
from pipeline.data.source_types import Pixels
from pipeline.errors import RegistryError

if TYPE_CHECKING:  # it imports mlflow, which the report does not need
    from pipeline.tracking.registry.load import LoadedGenerator

Points = npt.NDArray[np.float32]  # (n,d)

WALKS = 8
"""Columns of a sprite."""

_STOPS = 3  # points that a walk leads over, and back to the first
_FRAMES = 36  # of a walk
_SIDE = 96  # pixels; frames of larger images are reduced to this
_MAX_BYTES = 300_000  # of a sprite, if one of the qualities reaches it
_QUALITIES = (80, 60, 40, 20)
_PARALLEL = 1e-4  # sine of an angle below which two directions count as parallel


def slerp(start: Points, end: Points, fraction: float) -> Points:
    """The point at `fraction` in [0, 1] of the way from `start` to `end`, float32 (...,d), by a great circle.

    Direction and length change at a constant rate. Most of a Gaussian's mass lies in a thin shell, and the
    middle of a straight line lies outside it, where no training latent ever was (White 2016, "Sampling
    Generative Networks"). Between points in equal or opposite directions, or at the origin, it is linear.
    """
    first, last = start.astype(np.float64), end.astype(np.float64)
    lengths = [np.linalg.norm(point, axis=-1, keepdims=True) for point in (first, last)]
    safe = [np.where(length > 0, length, 1.0) for length in lengths]
    cosine = ((first / safe[0]) * (last / safe[1])).sum(-1, keepdims=True)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.sin(angle)
    straight = (sine < _PARALLEL) | (lengths[0] == 0) | (lengths[1] == 0)
    sine = np.where(straight, 1.0, sine)
    weights = np.sin((1 - fraction) * angle) / sine, np.sin(fraction * angle) / sine
    direction = weights[0] * first / safe[0] + weights[1] * last / safe[1]
    length = (1 - fraction) * lengths[0] + fraction * lengths[1]
    return np.where(straight, (1 - fraction) * first + fraction * last, direction * length).astype(np.float32)


def latent_path(keys: Points, frames: int, *, loop: bool = False) -> Points:
    """`frames` points float32 (frames,d), evenly spaced on the segments between the points `keys` (k,d).

    From the first key to the last; with `loop` back to one step before the first. A single key is repeated.
    """
    if len(keys) == 1:
        return np.repeat(keys, frames, axis=0)
    stops = np.concatenate([keys, keys[:1]]) if loop else keys
    segments = len(stops) - 1
    positions = np.arange(frames) * (segments / (frames if loop else max(frames - 1, 1)))
    points = np.empty((frames, keys.shape[1]), np.float32)
    for index, position in enumerate(positions):
        k = min(int(position + 1e-9), segments - 1)
        fraction = max(0.0, float(position) - k)
        points[index] = stops[k] if fraction < 1e-9 else slerp(stops[k], stops[k + 1], min(fraction, 1.0))
    return points


def walk_sprites(generator: LoadedGenerator) -> dict[str, bytes]:
    """The walks of a generator as WebP files by their names: the same generator gives the same bytes.

    walk_latents: walk i leads over three latents and back, the first being that of sample i of seed 0; in a
    conditional model all of it has class i. walk_classes: walk i keeps that latent and leads over the classes
    i, i+1 and i+2; only for a conditional model that embeds its labels.
    """
    latents, _ = generator.latents(WALKS * _STOPS, 0)
    stops = latents.reshape(_STOPS, WALKS, -1).swapaxes(0, 1)
    z = np.concatenate([latent_path(points, _FRAMES, loop=True) for points in stops])
    if not generator.classes:
        return {"walk_latents": _sprite(generator.render(z))}
    classes = np.arange(WALKS, dtype=np.int64) % generator.classes
    found = {"walk_latents": _sprite(generator.render(z, classes.repeat(_FRAMES)))}
    try:
        table = generator.label_embeddings()
    except RegistryError:
        return found
    visited = (classes[:, None] + np.arange(_STOPS)) % generator.classes
    embeddings = np.concatenate([latent_path(table[row], _FRAMES, loop=True) for row in visited])
    kept = latents[:WALKS].repeat(_FRAMES, axis=0)
    return {**found, "walk_classes": _sprite(generator.render(kept, embeddings=embeddings))}


def _sprite(images: Pixels) -> bytes:
    """Images uint8 (WALKS * frames,H,W,C), walk by walk, as a WebP."""
    if images.shape[1] > _SIDE:
        images = np.stack([_reduced(image) for image in images])
    frames = images.reshape(WALKS, -1, *images.shape[1:]).swapaxes(0, 1)
    sheet = image_sheet(np.ascontiguousarray(frames).reshape(images.shape), WALKS)
    data = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        sheet.save(buffer, format="WEBP", quality=quality)
        data = buffer.getvalue()
        if len(data) <= _MAX_BYTES:
            break
    return data


def _reduced(image: Pixels) -> Pixels:
    small = np.asarray(to_picture(image).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    return small.reshape(_SIDE, _SIDE, -1)
