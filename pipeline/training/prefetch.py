"""The reals of each step, in buffers that stay where they are.

Owns: `place`, where the images lie; `Feed`: which images come next is known long before, so they are fetched
while the device still trains.
Refuses: what is done to an image (floats, augmentation), the order (`pipeline.data.dataset.Sampler`).

Where the images lie on the device, the places of many batches are sent there at once. Where they lie on the
host, being too large, the next batch is gathered into pinned memory and copied on a stream of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.data.dataset import Sampler, to_float

Sampling = Callable[[int], Tensor]

_AHEAD = 256  # batches whose places are sent at once
_FLOAT_BYTES = 256 * 2**20
"""Images that take no more than this as float32 lie on a GPU as such: three kernels less in every step."""


class Prefetcher:
    """Fills its buffers with the batch of any position; positions in a row cost nothing extra.

    Args:
        images: uint8 (N,H,W,C) on the device or on the host.
        labels: int64 (N,) on the device, or None.
        sampler: which images come at which position.
        batch: images per step.
        device: where the buffers lie.
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
        self._rows, self._start = torch.empty(0, dtype=torch.int64, device=device), 0
        self._courier = None if images.device == device else _Courier(images, batch, device)

    def reals(self) -> Tensor:
        """The batch as float32 (N,C,H,W) in [-1, 1], in channels_last memory."""
        return self.pixels.permute(0, 3, 1, 2) if self.pixels.is_floating_point() else to_float(self.pixels)

    def load(self, position: int) -> None:
        """Put the batch that begins at `position` of the stream into the buffers."""
        if self._courier is None or self._labels is not None:
            rows = self._rows_at(position)
            if self._courier is None:
                torch.index_select(self._images, 0, rows, out=self.pixels)
            if self._labels is not None and self.labels is not None:
                torch.index_select(self._labels, 0, rows, out=self.labels)
        if self._courier is not None:
            self._courier.deliver(self.pixels, position, self._take)

    def _take(self, position: int) -> Tensor:
        return torch.from_numpy(self._sampler.take(position, self._batch))

    def _rows_at(self, position: int) -> Tensor:
        at = position - self._start
        if not 0 <= at <= len(self._rows) - self._batch:
            rows = torch.from_numpy(self._sampler.take(position, _AHEAD * self._batch))
            self._rows, self._start, at = _send(rows, self._device), position, 0
        return self._rows[at : at + self._batch]


def place_images(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images uint8 (N,H,W,C) on the device; on the host where they would take over half its free memory."""
    found = torch.from_numpy(images)
    if device.type == "cuda" and 2 * found.nbytes > torch.cuda.mem_get_info(device)[0]:
        return found
    return found.to(device)


def place_labels(labels: npt.NDArray[np.int64] | None, device: torch.device) -> Tensor | None:
    """Labels int64 (N,) on the device, or None where there are none."""
    return None if labels is None else torch.from_numpy(labels).to(device)


class _Courier:
    """Brings batches from the host: while one is used, the next is on its way. Two of each buffer."""

    def __init__(self, images: Tensor, batch: int, device: torch.device) -> None:
        shape = (batch, *images.shape[1:])
        self._images, self._cuda = images, device.type == "cuda"
        self._host = [torch.empty(shape, dtype=torch.uint8, pin_memory=self._cuda) for _ in range(2)]
        self._there = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(2)]
        self._stream = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]
        self._arrived: list[torch.cuda.Event | None] = [None, None]
        self._sent = (-1, 0)  # position of the batch under way, and its buffer

    def deliver(self, target: Tensor, position: int, take: Sampling) -> None:
        """Copy the batch at `position` to `target`, and send for the one after it."""
        if self._sent[0] != position:
            self._send(position, 0, take)
        place = self._sent[1]
        arrived = self._arrived[place]
        if arrived is not None:
            torch.cuda.current_stream(target.device).wait_event(arrived)
        target.copy_(self._there[place])
        self._send(position + len(target), 1 - place, take)

    def _send(self, position: int, place: int, take: Sampling) -> None:
        arrived = self._arrived[place]
        if arrived is not None:
            arrived.synchronize()  # before the host writes there again: it runs two steps ahead at most
        torch.index_select(self._images, 0, take(position), out=self._host[place])
        if self._stream is None:
            self._there[place].copy_(self._host[place])
        else:
            # Not before the device has used what this buffer brought last time.
            self._stream.wait_stream(torch.cuda.current_stream(self._there[place].device))
            with torch.cuda.stream(self._stream):
                self._there[place].copy_(self._host[place], non_blocking=True)
                self._arrived[place] = self._stream.record_event()
            # It belongs to another stream, which must not give it away while a copy is under way.
            self._there[place].record_stream(self._stream)
        self._sent = position, place


def _send(values: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
