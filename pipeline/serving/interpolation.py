"""Walks through latent space: spherical interpolation between key points, as a PNG strip, GIF or MP4."""

from __future__ import annotations

import logging
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.data.pictures import DRAWN_BY, image_sheet, save_drawing, to_picture
from pipeline.data.source_types import Pixels
from pipeline.errors import ConfigError
from pipeline.serving.models import load_generator
from pipeline.storage.files import replacing
from pipeline.tracking.registry.class_names import describe_class
from pipeline.tracking.registry.latent_walk import latent_path
from pipeline.tracking.registry.load import LoadedGenerator

log = logging.getLogger(__name__)

MAX_FRAMES = 10_000
_SIDE = {".png": 56, ".gif": 224, ".mp4": 224}  # smaller images are enlarged by whole factors up to this


@dataclass(frozen=True, kw_only=True)
class WalkOptions:
    """A walk over the first image of each seed, over labels, or both at once.

    Attributes:
        seeds: empty = 0, 1, 2, 3; or 0 where there are several labels.
        labels: classes by number or name; one = all frames have it; several = the walk leads over them.
        frames: in all; 0 = 30 a segment (8 in a PNG strip).
        fps: frames per second.
        truncation: factor of the latents, in (0, 2].
        loop: whether to return to the first seed.
    """

    seeds: tuple[int, ...] = ()
    labels: tuple[int | str, ...] = ()
    frames: int = 0
    fps: int = 20
    truncation: float = 1.0
    loop: bool = False

    def resolve(self, out: Path) -> WalkOptions:
        """The same with seeds and number of frames filled in, for the file `out`.

        Raises:
            ConfigError: another suffix, fewer than two points, or a value out of range.
        """
        seeds = self.seeds or ((0,) if len(self.labels) > 1 else (0, 1, 2, 3))
        keys = max(len(seeds), len(self.labels))
        if keys < 2 or len({len(seeds), len(self.labels)} - {0, 1}) > 1:
            raise ConfigError(
                "{seen} make no walk",
                rule="at least two seeds or labels; if both, as many of each, or one of either",
                seen=f"{len(seeds)} seeds and {len(self.labels)} labels",
                fix="write --seeds 0,1,2",
            )
        frames = self.frames or (8 if out.suffix == ".png" else 30) * (keys - (not self.loop))
        if out.suffix not in _SIDE:
            raise ConfigError(
                "{seen} has no known format",
                rule="--out ends in .png (a strip), .gif or .mp4",
                seen=out.name,
                fix="write --out walk.gif",
            )
        limits = (
            ("--frames", frames, 2, MAX_FRAMES, "write --frames 60"),
            ("--fps", self.fps, 1, 100, "write --fps 20"),
        )
        for flag, value, low, high, fix in limits:
            if not low <= value <= high:
                rule = f"{flag} lies in [{low}, {high}]"
                raise ConfigError(f"{flag} {{seen}} is out of range", rule=rule, seen=value, fix=fix)
        if out.suffix == ".mp4" and shutil.which("ffmpeg") is None:
            raise ConfigError(
                "no ffmpeg on PATH", rule="an .mp4 needs ffmpeg", fix="install it, or write a .gif"
            )
        return replace(self, seeds=seeds, frames=frames)


def interpolate(model: str, out: Path, options: WalkOptions, *, tracking_uri: str = "") -> Path:
    """Write a walk through the latent space of a MODEL; frames at a seed have the bytes that `sample` gives.

    A log line tells the numbers and the names of the classes that `options.labels` mean.

    Raises:
        ConfigError: as `WalkOptions.resolve`. RegistryError: a seed or label out of range.
    """
    options = options.resolve(out)
    generator = load_generator(model, tracking_uri=tracking_uri)
    return write_walk(_render_walk(generator, options), out, fps=options.fps)


def _render_walk(generator: LoadedGenerator, walk: WalkOptions) -> Pixels:
    starts = [generator.latents(1, seed, None, walk.truncation) for seed in walk.seeds]
    labels = [generator.class_number(label) for label in walk.labels]
    if labels:
        log.info(", ".join(describe_class(label, generator.class_names) for label in labels))
    z = latent_path(np.concatenate([z for z, _ in starts]), walk.frames, loop=walk.loop)
    if len(labels) > 1:
        keys = generator.label_embeddings()[labels]
        return generator.render(z, embeddings=latent_path(keys, walk.frames, loop=walk.loop))
    sampled = starts[0][1]
    if sampled is None:
        return generator.render(z)
    label = labels[0] if labels else sampled[0]
    return generator.render(z, np.full(walk.frames, label, np.int64))


def write_walk(images: Pixels, out: Path, *, fps: int = 20) -> Path:
    """Write images uint8 (n,H,W,C), the frames of a walk, in the format of `out`'s suffix, atomically.

    .png: side by side, up to 16 in a row. .gif: repeats for ever. .mp4: by ffmpeg.

    Raises:
        ConfigError: ffmpeg failed.
    """
    factor = max(1, _SIDE[out.suffix] // images.shape[1])
    frames = images.repeat(factor, axis=1).repeat(factor, axis=2)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        if out.suffix == ".png":
            save_drawing(image_sheet(frames, min(16, len(frames))), temporary)
        elif out.suffix == ".gif":
            first, *others = [to_picture(frame) for frame in frames]
            first.info["comment"] = DRAWN_BY.encode()
            first.save(temporary, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
        else:
            _write_mp4(frames, temporary, fps)
    return out


def _write_mp4(frames: Pixels, target: Path, fps: int) -> None:
    """H.264 where this ffmpeg has it; players need even sides and 4:2:0 colours."""
    height, width = frames.shape[1:3]
    command = (
        f"ffmpeg -y -loglevel error -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -".split()
    )
    command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    colours = frames if frames.shape[3] == 3 else frames.repeat(3, axis=3)
    done = subprocess.run([*command, str(target)], input=colours.tobytes(), capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ConfigError("ffmpeg failed", seen=lines[-1], fix="write a .gif")
