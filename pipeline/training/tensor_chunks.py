"""Lists of tensors split into chunks, so that torch's multi-tensor kernels occupy a whole GPU.

Those kernels (`torch._foreach_*`, fused Adam) give each thread block 65,536 elements to process in sequence:
for the weights of a small network these are a few blocks, and 5 to 20 microseconds. With chunks each block
has less to do. Element-wise results are bit-identical; norms are equal up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.training._compat import foreach_norm

_ONE_LAUNCH = {1: 110, 2: 64, 4: 36}
"""Tensors per kernel launch, by the number of lists (torch's MultiTensorApply.cuh)."""
_BLOCK_ELEMENTS = 65_536
_MIN_CHUNK = 4_096


def in_chunks(*lists: Sequence[Tensor], whole: Sequence[Tensor] = ()) -> tuple[list[Tensor], ...]:
    """Split the tensors of all lists into chunks in the same way; on a CPU the lists are returned unchanged.

    Chunks are views (k,) of dense memory. Tensors whose memory layouts differ or are not dense stay whole.

    Args:
        lists: of equal length; their n-th tensors have the same shape.
        whole: another list, whose n-th tensor is not split but repeated for each chunk of the n-th tensors.

    Returns:
        As many lists as were given, `whole` last.
    """
    given = [*lists, whole] if whole else [*lists]
    rows = list(zip(*given, strict=True))
    length = _chunk_length([row[0].numel() for row in rows], len(lists))
    if not rows or not rows[0][0].is_cuda or length is None:
        return tuple(list(tensors) for tensors in given)
    count = len(lists)
    chunks = [(*chunk, *row[count:]) for row in rows for chunk in _split(row[:count], length)]
    return tuple(map(list, zip(*chunks, strict=True)))


def gradient_norm(network: nn.Module) -> Tensor:
    """L2 norm of the gradient of all parameters: a scalar on the network's device."""
    (chunks,) = in_chunks([p.grad for p in network.parameters() if p.grad is not None])
    norm: Tensor = torch.linalg.vector_norm(torch.stack(foreach_norm(chunks)))
    return norm


def _chunk_length(sizes: list[int], lists: int) -> int | None:
    """Elements per chunk such that all chunks fit in one launch; None if splitting gains nothing."""
    spare = _ONE_LAUNCH[lists] - len(sizes)
    if spare <= 0:
        return None
    length = max(_MIN_CHUNK, math.ceil(sum(sizes) / (spare * 1024)) * 1024)
    return length if length < _BLOCK_ELEMENTS else None


def _split(row: tuple[Tensor, ...], length: int) -> list[tuple[Tensor, ...]]:
    if len({tensor.stride() for tensor in row}) > 1 or not _is_dense(row[0]):
        return [row]
    flat = [torch.split(tensor.as_strided((tensor.numel(),), (1,)), length) for tensor in row]
    return list(zip(*flat, strict=True))


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )
