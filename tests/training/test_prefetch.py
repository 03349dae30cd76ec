"""Prefetching of batches, from the device and from the host."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset, Sampler
from pipeline.training.prefetch import Prefetcher, _HostPrefetcher, every_second_mirrored


def make_prefetcher(
    images: Tensor, labels: Tensor | None, sampler: Sampler, on_host: bool, batch: int = 24
) -> Prefetcher:
    prefetcher = Prefetcher(images, labels, sampler, batch, images.device)
    if on_host:
        prefetcher._host_images = _HostPrefetcher(images, sampler, batch, images.device)
    return prefetcher


@pytest.mark.parametrize("on_host", [False, True])
def test_a_prefetcher_gives_the_batch_at_any_position(dataset: Dataset, on_host: bool) -> None:
    """From the device: indices sent for 256 batches at once. From the host: fetched one batch ahead."""
    images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    sampler = Sampler(len(images), 3)
    prefetcher = make_prefetcher(images, labels, sampler, on_host)
    pixel_buffer, label_buffer = prefetcher.pixels, prefetcher.labels
    for position in [*range(0, 24 * 300, 24), 48, 24 * 299, 24 * 300, 7, 31]:
        rows = torch.from_numpy(sampler.take(position, 24))
        prefetcher.load(position)
        assert torch.equal(prefetcher.pixels, images[rows]), position
        assert torch.equal(prefetcher.labels, labels[rows])
    assert prefetcher.pixels is pixel_buffer
    assert prefetcher.labels is label_buffer


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("on_host", [False, True])
def test_over_twice_the_images_the_second_half_is_mirrored(
    dataset: Dataset, on_host: bool, labelled: bool
) -> None:
    images = torch.from_numpy(dataset.train)
    labels = torch.from_numpy(dataset.train_labels) if labelled else None
    sampler = Sampler(2 * len(images), 3)
    doubled = torch.cat([images, torch.from_numpy(dataset.train[:, :, ::-1].copy())])
    prefetcher = make_prefetcher(images, labels, sampler, on_host)
    buffer = prefetcher.pixels
    for position in [*range(0, 24 * 300, 24), 48, 24 * 299, 24 * 300, 7, 31]:
        items = torch.from_numpy(sampler.take(position, 24))
        prefetcher.load(position)
        assert torch.equal(prefetcher.pixels, doubled[items]), position
        if labels is not None:
            assert torch.equal(prefetcher.labels, labels[items % len(images)])
    assert prefetcher.pixels is buffer


@pytest.mark.parametrize("on_host", [False, True])
def test_every_image_comes_once_plain_and_once_mirrored(dataset: Dataset, on_host: bool) -> None:
    """In each epoch of 2N = 320 images, of which half are mirrored."""
    images = torch.from_numpy(dataset.train)
    prefetcher = make_prefetcher(images, None, Sampler(320, 3), on_host, batch=40)
    wanted = sorted(i.tobytes() for one in dataset.train for i in (one, one[:, ::-1]))
    for epoch in (0, 1):
        seen = []
        for position in range(320 * epoch, 320 * (epoch + 1), 40):
            prefetcher.load(position)
            seen += [image.numpy().tobytes() for image in prefetcher.pixels]
        assert sorted(seen) == wanted


def test_images_with_an_odd_index_are_mirrored_in_a_copy(dataset: Dataset) -> None:
    images = torch.from_numpy(dataset.train[:3])
    copied = every_second_mirrored(images).numpy()
    assert (copied[[0, 2]] == dataset.train[[0, 2]]).all()
    assert (copied[1] == dataset.train[1, :, ::-1]).all()
    assert (images.numpy() == dataset.train[:3]).all()
