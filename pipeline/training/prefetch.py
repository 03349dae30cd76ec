"""The reals of each step, fetched ahead into buffers whose addresses never change.

Which images come next is known long before, so they are fetched while the device still trains. Where the
images lie on the device, the indices of many batches are sent there at once. Where they lie on the host,
being too large, the next batch is gathered into pinned memory and copied on a stream of its own. Mirror
images (`TrialConfig.mirror`) are stored nowhere: those of a batch are made in its buffer, on the device.

Not responsible for augmentation or for the order of the images (`pipeline.data.dataset.Sampler`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.data.dataset import Sampler, to_float
from pipeline.training.read_ahead import ReadAhead

_BATCHES_AHEAD = 256  # batches whose indices are sent at once
_FLOAT_BYTES = 256 * 2**20
"""Images that take no more than this as float32 are kept so on a GPU: three kernels less in every step."""


class Prefetcher:
    """Loads the batch at any position into its buffers; consecutive positions are fastest.

    Args:
        images: uint8 (N,H,W,C) on the device or on the host.
        labels: int64 (N,) on the device, or None.
        sampler: over the N images, or over 2N items: item N + i is image i, mirrored.
        batch: images per step.
        device: of the buffers.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | None, sampler: Sampler, batch: int, device: torch.device
    ) -> None:
        self._labels, self._sampler, self._batch = labels, sampler, batch
        self._device = device
        as_floats = device.type == "cuda" and images.device == device and 4 * images.nbytes <= _FLOAT_BYTES
        self._images = to_float(images).permute(0, 2, 3, 1) if as_floats else images
        self.pixels = torch.empty(batch, *images.shape[1:], dtype=self._images.dtype, device=device)
        self.labels = None if labels is None else torch.empty(batch, dtype=torch.int64, device=device)
        self._mirrors = sampler.n > len(images)
        self._rows, self._start = torch.empty(0, dtype=torch.int64, device=device), 0
        self._flipped = torch.empty(0, dtype=torch.bool, device=device)  # which of `_rows`; empty = none
        self._host_images = (
            None if images.device == device else _HostPrefetcher(images, sampler, batch, device)
        )
        self._read_ahead = ReadAhead.where_useful(images)

    def reals(self) -> Tensor:
        """The batch as float32 (N,C,H,W) in [-1, 1], in channels_last memory."""
        return self.pixels.permute(0, 3, 1, 2) if self.pixels.is_floating_point() else to_float(self.pixels)

    def load(self, position: int) -> None:
        """Put the batch that begins at `position` of the stream into the buffers."""
        if self._host_images is None or self._labels is not None or self._mirrors:
            batch = self._batch_on_device(position)
            rows = self._rows[batch]
            if self._host_images is None:
                torch.index_select(self._images, 0, rows, out=self.pixels)
            if self._labels is not None and self.labels is not None:
                torch.index_select(self._labels, 0, rows, out=self.labels)
        if self._host_images is not None:
            self._host_images.load(self.pixels, position)
        if self._read_ahead is not None:
            # Two batches ahead: the next one may already be on its way to the device.
            following = self._sampler.take(position + 2 * self._batch, self._batch)
            self._read_ahead.ask_for(following % len(self._images))
        if self._mirrors:
            flipped = self._flipped[batch].view(-1, 1, 1, 1)
            torch.where(flipped, mirrored(self.pixels), self.pixels, out=self.pixels)

    def _batch_on_device(self, position: int) -> slice:
        """Where the batch at `position` stands in `_rows` and `_flipped`, which are filled if need be."""
        offset = position - self._start
        if not 0 <= offset <= len(self._rows) - self._batch:
            items = self._sampler.take(position, _BATCHES_AHEAD * self._batch)
            rows = torch.from_numpy(items % len(self._images))
            self._rows, self._start, offset = _send(rows, self._device), position, 0
            if self._mirrors:
                self._flipped = _send(torch.from_numpy(items >= len(self._images)), self._device)
        return slice(offset, offset + self._batch)


def every_second_mirrored(images: Tensor) -> Tensor:
    """A copy of images (N,H,W,C) in which those with an odd index are mirrored."""
    copied = images.clone()
    copied[1::2] = mirrored(images[1::2])
    return copied


def mirrored(images: Tensor) -> Tensor:
    """Images (N,H,W,C) with left and right exchanged."""
    return images.flip(2)


def place_images(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images uint8 (N,H,W,C) on the device; on the host where they would take over half its free memory."""
    found = torch.from_numpy(images)
    if device.type == "cuda" and 2 * found.nbytes > torch.cuda.mem_get_info(device)[0]:
        return found
    return found.to(device)


def place_labels(labels: npt.NDArray[np.int64] | None, device: torch.device) -> Tensor | None:
    """Labels int64 (N,) on the device, or None where there are none."""
    return None if labels is None else torch.from_numpy(labels).to(device)


class _HostPrefetcher:
    """Copies batches from the host. Two buffers on each side: while one is used, the next is being filled."""

    def __init__(self, images: Tensor, sampler: Sampler, batch: int, device: torch.device) -> None:
        shape, cuda = (batch, *images.shape[1:]), device.type == "cuda"
        self._images, self._sampler = images, sampler
        self._host = [torch.empty(shape, dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
        self._on_device = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(2)]
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._pending = (-1, 0)  # position of the batch that is being copied, and its buffer

    def load(self, target: Tensor, position: int) -> None:
        """Copy the batch at `position` to `target`, and begin to copy the one after it."""
        if self._pending[0] != position:
            self._begin_copy(position, 0)
        buffer = self._pending[1]
        copied = self._copied[buffer]
        if copied is not None:
            torch.cuda.current_stream(target.device).wait_event(copied)
        target.copy_(self._on_device[buffer])
        self._begin_copy(position + len(target), 1 - buffer)

    def _begin_copy(self, position: int, buffer: int) -> None:
        copied = self._copied[buffer]
        if copied is not None:
            copied.synchronize()  # before the host overwrites this buffer: it is two steps ahead at most
        items = self._sampler.take(position, len(self._host[buffer]))
        rows = torch.from_numpy(items % len(self._images))
        torch.index_select(self._images, 0, rows, out=self._host[buffer])
        if self._stream is None:
            self._on_device[buffer].copy_(self._host[buffer])
        else:
            # Not before the device has used the last content of this buffer.
            self._stream.wait_stream(torch.cuda.current_stream(self._on_device[buffer].device))
            with torch.cuda.stream(self._stream):
                self._on_device[buffer].copy_(self._host[buffer], non_blocking=True)
                self._copied[buffer] = self._stream.record_event()
            # The buffer was allocated on another stream, which must not reuse its memory during a copy.
            self._on_device[buffer].record_stream(self._stream)
        self._pending = position, buffer


def _send(values: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
