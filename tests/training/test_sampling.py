"""Images of a generator for fids: streams that follow a seed, labels as frequent as in the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.data.dataset import Dataset
from pipeline.training import sampling
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks


def test_equal_seeds_give_equal_streams(dataset: Dataset, tiny: Any) -> None:
    torch.manual_seed(0)
    generator = build_networks(tiny(), ImageShape(8, 1))[0].eval()
    a, b = (sampling.image_sampler(generator, dataset) for _ in range(2))
    c = sampling.image_sampler(generator, dataset, 1)
    first = a(300)  # more than a chunk
    assert first.shape == (300, 8, 8, 1)
    assert first.dtype == torch.uint8
    assert torch.equal(first, b(300))
    assert not torch.equal(first, c(300))
    assert not torch.equal(first, a(300))


def test_labels_are_as_frequent_as_in_the_data(dataset: Dataset, tiny: Any) -> None:
    generator = build_networks(tiny(conditional=True), ImageShape(8, 1, 3))[0].eval()
    data_labels = torch.tensor([0, 2, 2, 2])
    rng = torch.Generator().manual_seed(0)
    z, labels = sampling.draw_latents(generator, 2000, rng, data_labels)
    assert z.shape == (2000, 8)
    assert labels is not None
    assert np.allclose(np.bincount(labels.numpy(), minlength=3) / 2000, [0.25, 0, 0.75], atol=0.03)
    unconditional = build_networks(tiny(), ImageShape(8, 1))[0].eval()
    assert sampling.draw_latents(unconditional, 2, rng, data_labels)[1] is None
