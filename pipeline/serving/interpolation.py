"""Walks through latent space, and the moving pictures they become.

Owns: spherical interpolation, the frames between keys, PNG strips, GIF and MP4. Refuses: generators
(`pipeline.serving.models` draws what lies at the points), MLflow, torch.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.image_files import Pixels
from pipeline.errors import ConfigError
from pipeline.storage.files import replacing

Points = npt.NDArray[np.float32]  # (n,d)

SUFFIXES = (".png", ".gif", ".mp4")
MOST_FRAMES = 10_000
_NEAR = 1e-4
_SIDE = {".png": 56, ".gif": 224, ".mp4": 224}  # smaller images are enlarged by whole factors up to this


def slerp(one: Points, other: Points, share: float) -> Points:
    """The point `share` of the way from `one` to `other`, float32 (...,d), along a great circle.

    The direction turns evenly and the length changes evenly, for most of a Gaussian lies in a thin shell:
    the straight line runs through a middle that no sample ever came from (White 2016, "Sampling
    Generative Networks"). Points in opposite or equal directions, or at the origin, go straight.
    """
    first, last = one.astype(np.float64), other.astype(np.float64)
    lengths = [np.linalg.norm(end, axis=-1, keepdims=True) for end in (first, last)]
    safe = [np.where(length > 0, length, 1.0) for length in lengths]
    cosine = ((first / safe[0]) * (last / safe[1])).sum(-1, keepdims=True)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.sin(angle)
    straight = (sine < _NEAR) | (lengths[0] == 0) | (lengths[1] == 0)
    sine = np.where(straight, 1.0, sine)
    turned = (
        np.sin((1 - share) * angle) / sine * first / safe[0] + np.sin(share * angle) / sine * last / safe[1]
    )
    length = (1 - share) * lengths[0] + share * lengths[1]
    return np.where(straight, (1 - share) * first + share * last, turned * length).astype(np.float32)


def latent_path(keys: Points, frames: int, *, loop: bool = False) -> Points:
    """`frames` points float32 (frames,d), evenly spread over the legs between `keys` (k,d).

    Begins at the first key and ends at the last; with `loop` it comes back to just before the first.
    A single key stays where it is.
    """
    if len(keys) == 1:
        return np.repeat(keys, frames, axis=0)
    stops = np.concatenate([keys, keys[:1]]) if loop else keys
    legs = len(stops) - 1
    places = np.arange(frames) * (legs / (frames if loop else max(frames - 1, 1)))
    points = np.empty((frames, keys.shape[1]), np.float32)
    for index, place in enumerate(places):
        leg = min(int(place + 1e-9), legs - 1)
        share = max(0.0, float(place) - leg)
        points[index] = stops[leg] if share < 1e-9 else slerp(stops[leg], stops[leg + 1], min(share, 1.0))
    return points


def check_walk(out: Path, frames: int, fps: int) -> None:
    """Raise ConfigError unless `write` can write `frames` frames to `out`."""
    if out.suffix not in SUFFIXES:
        raise ConfigError(
            "--out ends in .png (a strip), .gif or .mp4", seen=out.name, fix="write --out walk.gif"
        )
    if not 2 <= frames <= MOST_FRAMES:
        raise ConfigError(f"--frames lies in [2, {MOST_FRAMES}]", seen=frames, fix="write --frames 60")
    if not 1 <= fps <= 100:
        raise ConfigError("--fps lies in [1, 100]", seen=fps, fix="write --fps 20")
    if out.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ConfigError(
            "an .mp4 is written by ffmpeg", seen="no ffmpeg on PATH", fix="install it, or write a .gif"
        )


def write_walk(images: Pixels, out: Path, *, fps: int = 20) -> Path:
    """Write images uint8 (n,H,W,C), n frames of a walk, as `out`'s suffix says; atomically.

    .png: side by side, up to 16 in a row. .gif: endless. .mp4: by ffmpeg.
    """
    frames = _enlarged(images, _SIDE[out.suffix])
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        if out.suffix == ".png":
            _strip(frames).save(temporary)
        elif out.suffix == ".gif":
            first, *others = [_picture(frame) for frame in frames]
            first.save(temporary, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
        else:
            _film(frames, temporary, fps)
    return out


def _enlarged(images: Pixels, side: int) -> Pixels:
    factor = max(1, side // images.shape[1])
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _strip(frames: Pixels, columns: int = 16) -> Image.Image:
    count, height, width, channels = frames.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    whole = np.zeros((rows * columns, height, width, channels), np.uint8)
    whole[:count] = frames
    sheet = whole.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return _picture(sheet.reshape(rows * height, columns * width, channels))


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _film(frames: Pixels, target: Path, fps: int) -> None:
    """H.264 where this ffmpeg has it; players want even sides and 4:2:0 colours."""
    height, width = frames.shape[1:3]
    command = (
        f"ffmpeg -y -loglevel error -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -".split()
    )
    command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    colours = frames if frames.shape[3] == 3 else frames.repeat(3, axis=3)
    data = b"".join(np.ascontiguousarray(frame).tobytes() for frame in colours)
    done = subprocess.run([*command, str(target)], input=data, capture_output=True)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ConfigError("ffmpeg writes the film", seen=said[-1], fix="write a .gif")
