"""Walks through latent space: great circles between points, and the files written of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.serving import interpolation
from pipeline.tracking.registry import latent_walk


def points(count: int, dim: int, seed: int = 0) -> latent_walk.Points:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def test_a_great_circle_between_two_axes() -> None:
    one, other = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 2.0]], np.float32)
    half = latent_walk.slerp(one, other, 0.5)
    assert np.allclose(half, 1.5 * np.sqrt(0.5) * np.ones(2))  # halfway in angle and in length


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_walk_stays_in_the_shell_of_the_gaussian(share: float) -> None:
    """The middle of the straight line is shorter by a factor of 0.7."""
    one, other = points(50, 64), points(50, 64, seed=1)
    lengths = np.linalg.norm(latent_walk.slerp(one, other, share), axis=1)
    ends = [np.linalg.norm(end, axis=1) for end in (one, other)]
    assert np.allclose(lengths, (1 - share) * ends[0] + share * ends[1], rtol=1e-4)


def test_the_angle_grows_evenly() -> None:
    one, other = points(1, 16), points(1, 16, seed=1)
    steps = np.concatenate([latent_walk.slerp(one, other, share) for share in np.linspace(0, 1, 6)])
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    angles = np.arccos((steps[1:] * steps[:-1]).sum(1))
    assert np.allclose(angles, angles[0], atol=1e-3)


@pytest.mark.parametrize("other", [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
def test_between_equal_opposite_and_zero_points_it_is_linear(other: list[float]) -> None:
    one = np.array([1.0, 0.0], np.float32)
    assert np.allclose(latent_walk.slerp(one, np.array(other, np.float32), 0.5), [(1 + other[0]) / 2, 0.0])


@pytest.mark.parametrize(("loop", "at"), [(False, [0, 5, 10]), (True, [0, 4, 8])])
def test_a_path_passes_through_its_keys(loop: bool, at: list[int]) -> None:
    keys = points(3, 8)
    path = latent_walk.latent_path(keys, 12 if loop else 11, loop=loop)
    assert path.dtype == np.float32
    assert np.array_equal(path[at], keys)
    if loop:
        assert np.allclose(path[10], latent_walk.slerp(keys[2:], keys[:1], 0.5)[0], atol=1e-6)


def test_a_single_key_is_repeated() -> None:
    assert np.array_equal(latent_walk.latent_path(points(1, 8), 5), np.repeat(points(1, 8), 5, axis=0))


def frames(channels: int, count: int = 5, size: int = 28) -> np.ndarray:
    images = np.zeros((count, size, size, channels), np.uint8)
    for index in range(count):
        images[index] = 50 * index % 251
    return images


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_shows_the_frames_from_left_to_right(channels: int, tmp_path: Path) -> None:
    out = interpolation.write_walk(frames(channels), tmp_path / "deep" / "walk.png")
    picture = np.asarray(Image.open(out))
    assert picture.shape[:2] == (56, 5 * 56)
    assert [picture[28, 56 * i + 28].max() for i in range(5)] == [0, 50, 100, 150, 200]
    assert [path.name for path in out.parent.iterdir()] == ["walk.png"]


def test_a_long_strip_is_broken_into_rows(tmp_path: Path) -> None:
    out = interpolation.write_walk(frames(1, count=20), tmp_path / "walk.png")
    assert Image.open(out).size == (16 * 56, 2 * 56)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_has_every_frame_with_its_duration(channels: int, tmp_path: Path) -> None:
    with Image.open(interpolation.write_walk(frames(channels), tmp_path / "walk.gif", fps=25)) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (5, (224, 224), 0)
        for index in range(5):
            film.seek(index)
            assert film.info["duration"] == 40
            assert np.asarray(film.convert("L"))[100, 100] == 50 * index


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg on PATH")
@pytest.mark.parametrize("size", [28, 255])
def test_ffmpeg_writes_an_mp4(size: int, tmp_path: Path) -> None:
    out = interpolation.write_walk(frames(1, size=size), tmp_path / "walk.mp4")
    assert out.read_bytes()[4:8] == b"ftyp"


def test_without_ffmpeg_an_mp4_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no ffmpeg on PATH .*\.gif"):
        interpolation.WalkOptions().resolve(tmp_path / "walk.mp4")


@pytest.mark.parametrize(
    ("name", "count", "fps", "message"),
    [
        ("walk.avi", 10, 20, "walk.avi has no known format"),
        ("walk.gif", 1, 20, "--frames 1 is out of range"),
        ("walk.gif", 10**9, 20, "--frames 1000000000 is out of range"),
        ("walk.gif", 10, 0, "--fps 0 is out of range"),
    ],
)
def test_an_impossible_walk_is_refused(name: str, count: int, fps: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        interpolation.WalkOptions(frames=count, fps=fps).resolve(tmp_path / name)
