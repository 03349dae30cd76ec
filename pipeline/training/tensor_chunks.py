"""Lists of tensors, cut so that torch's kernels for whole lists keep a GPU busy.

Those kernels (`torch._foreach_*`, fused Adam) give each block of threads 65,536 numbers, which it walks
through: a few blocks, and 5 to 20 microseconds, for the weights of a small network. In pieces each block has
less to do. What is computed number by number is the same to the bit; a norm is, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ONE_LAUNCH = {1: 110, 2: 64, 4: 36}
"""Tensors that one launch takes, by the number of lists (torch's MultiTensorApply.cuh)."""
_OF_A_BLOCK = 65_536
_SHORTEST = 4_096


def in_chunks(*lists: Sequence[Tensor], whole: Sequence[Tensor] = ()) -> tuple[list[Tensor], ...]:
    """Lists of equal length whose n-th tensors have one shape, as lists of pieces; on a CPU as they are.

    Pieces are views (k,) of dense memory. Tensors that are not dense in the same order stay whole.
    whole: one more list, of what belongs to the n-th tensors: each of it stands beside all of their pieces.
    """
    found = [*lists, whole] if whole else [*lists]
    rows = list(zip(*found, strict=True))
    length = _length([row[0].numel() for row in rows], len(lists))
    if not rows or not rows[0][0].is_cuda or length is None:
        return tuple(list(tensors) for tensors in found)
    count = len(lists)
    pieces = [(*piece, *row[count:]) for row in rows for piece in _cut(row[:count], length)]
    return tuple(map(list, zip(*pieces, strict=True)))


def _length(sizes: list[int], lists: int) -> int | None:
    """Of a piece, so that all of them go into one launch; None where that gains nothing."""
    spare = _ONE_LAUNCH[lists] - len(sizes)
    if spare <= 0:
        return None
    length = max(_SHORTEST, -(-sum(sizes) // spare // 1024) * 1024)
    return length if length < _OF_A_BLOCK else None


def _cut(row: tuple[Tensor, ...], length: int) -> list[tuple[Tensor, ...]]:
    if len({tensor.stride() for tensor in row}) > 1 or not _is_dense(row[0]):
        return [row]
    flat = [torch.split(tensor.as_strided((tensor.numel(),), (1,)), length) for tensor in row]
    return list(zip(*flat, strict=True))


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )
