"""Prefetching of batches, from the device and from the host."""

from __future__ import annotations

import pytest
import torch

from pipeline.data.dataset import Dataset, Sampler
from pipeline.training.prefetch import Prefetcher, _HostPrefetcher


@pytest.mark.parametrize("on_host", [False, True])
def test_a_prefetcher_gives_the_batch_at_any_position(dataset: Dataset, on_host: bool) -> None:
    """From the device: indices sent for 256 batches at once. From the host: fetched one batch ahead."""
    images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    sampler = Sampler(len(images), 3)
    prefetcher = Prefetcher(images, labels, sampler, 24, images.device)
    if on_host:
        prefetcher._host_images = _HostPrefetcher(images, sampler, 24, images.device)
    pixel_buffer, label_buffer = prefetcher.pixels, prefetcher.labels
    for position in [*range(0, 24 * 300, 24), 48, 24 * 299, 24 * 300, 7, 31]:
        rows = torch.from_numpy(sampler.take(position, 24))
        prefetcher.load(position)
        assert torch.equal(prefetcher.pixels, images[rows]), position
        assert torch.equal(prefetcher.labels, labels[rows])
    assert prefetcher.pixels is pixel_buffer
    assert prefetcher.labels is label_buffer
