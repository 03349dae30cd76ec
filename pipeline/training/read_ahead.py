"""Reading memory-mapped images from the disk before they are needed, while the networks train."""

from __future__ import annotations

import ctypes
import mmap
from typing import Self

from torch import Tensor

from pipeline.data.source_types import Labels

_LEAST_BYTES = 256 * 2**20
"""Fewer images stay in the page cache once they have been read."""


class ReadAhead:
    """Asks the kernel for rows of images (N,H,W,C) on the host.

    A page that is missing when it is touched stops the process, and brings a hundred neighbours that nobody
    needs: images are read in random order.
    """

    def __init__(self, images: Tensor) -> None:
        self._address, self._row = images.data_ptr(), images[0].nbytes
        self._madvise = ctypes.CDLL(None).madvise
        self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    @classmethod
    def where_useful(cls, images: Tensor) -> Self | None:
        """None where the images stay in memory, or this system has no `madvise`."""
        large = images.device.type == "cpu" and images.nbytes >= _LEAST_BYTES
        return cls(images) if large and hasattr(ctypes.CDLL(None), "madvise") else None

    def ask_for(self, rows: Labels) -> None:
        """Let the kernel read `rows`, int64 (n,), without waiting for it."""
        for row in rows.tolist():
            start = self._address + row * self._row
            page = start - start % mmap.PAGESIZE
            self._madvise(page, start + self._row - page, mmap.MADV_WILLNEED)
