"""The sprites of walks in latent space; the great circles are in tests/serving/test_interpolation.py."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from factories import CLASSES, generator_of
from PIL import Image

from pipeline.tracking.registry.latent_walk import WALKS, walk_sprites
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator


def rows(data: bytes) -> np.ndarray:
    """The frames of a sprite: (frames,walks,H,W)."""
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)
    side = sheet.shape[1] // WALKS
    return sheet.reshape(-1, side, WALKS, side).swapaxes(1, 2)


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_walks_begin_at_the_samples_and_are_the_same_every_time(classes: int, tmp_path: Path) -> None:
    packed = pack_generator(generator_of(classes), tmp_path, ModelMetadata())
    generator = LoadedGenerator(packed)
    found = walk_sprites(generator)
    assert list(found) == (["walk_latents", "walk_classes"] if classes else ["walk_latents"])
    assert walk_sprites(LoadedGenerator(packed)) == found
    latents, _ = generator.latents(WALKS, 0)
    begin = generator.render(latents, np.arange(WALKS) % classes if classes else None)[..., 0]
    for data in found.values():
        frames = rows(data)
        assert frames.shape == (36, WALKS, 8, 8)
        assert np.abs(frames[0] - begin).mean() < 12, "WebP changes the pixels a little"
        steps = np.abs(np.diff(frames, axis=0, append=frames[:1])).mean((1, 2, 3))
        assert steps.min() > 0
        assert steps.max() < np.abs(frames[0] - frames[12]).mean(), "no step is as long as the way"


def test_the_classes_of_a_walk_come_one_after_the_other(tmp_path: Path) -> None:
    generator = LoadedGenerator(pack_generator(generator_of(), tmp_path, ModelMetadata()))
    frames, (latents, _) = rows(walk_sprites(generator)["walk_classes"]), generator.latents(WALKS, 0)
    for stop in range(3):
        labels = (np.arange(WALKS) + stop) % CLASSES
        expected = generator.render(latents, labels)[..., 0].astype(int)
        assert np.abs(frames[12 * stop] - expected).mean() < 12
