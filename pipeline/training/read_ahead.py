"""Reading memory-mapped images from the disk before they are needed, while the networks train."""

from __future__ import annotations

import ctypes
import mmap

from torch import Tensor

from pipeline.data.source_types import Labels

_LEAST_BYTES = 256 * 2**20
"""Fewer images stay in the page cache once they have been read."""


class ReadAhead:
    """Asks the kernel for rows of images (N,H,W,C) on the host; does nothing where that is of no use.

    A page that is missing when it is touched stops the process, and brings a hundred neighbours that nobody
    needs: images are read in random order.
    """

    def __init__(self, images: Tensor) -> None:
        self._address, self._row = images.data_ptr(), images[0].nbytes if len(images) else 0
        wanted = images.device.type == "cpu" and images.nbytes >= _LEAST_BYTES
        self._madvise = getattr(ctypes.CDLL(None), "madvise", None) if wanted else None
        if self._madvise is not None:
            self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def ask_for(self, rows: Labels) -> None:
        """Let the kernel read `rows`, int64 (n,), without waiting for it."""
        if self._madvise is None:
            return
        for row in rows.tolist():
            start = self._address + row * self._row
            page = start - start % mmap.PAGESIZE
            self._madvise(page, start + self._row - page, mmap.MADV_WILLNEED)
