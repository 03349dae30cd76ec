"""torch's private interfaces that training uses: in this file alone, tested with torch 2.11.0 and 2.14.1.

tests/training/test_compat.py says which one another version lacks. The foreach functions are what
`torch.optim` itself is made of: one kernel for a list of tensors.
"""

from __future__ import annotations

import torch

BatchNorm = torch.nn.modules.batchnorm._BatchNorm
foreach_add_ = torch._foreach_add_
foreach_copy_ = torch._foreach_copy_
foreach_div = torch._foreach_div
foreach_div_ = torch._foreach_div_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul = torch._foreach_mul
foreach_mul_ = torch._foreach_mul_
foreach_norm = torch._foreach_norm
foreach_sqrt = torch._foreach_sqrt
fused_adam_ = torch._fused_adam_


def drop_pool(device_index: int, pool: tuple[int, int]) -> None:
    """End a memory pool that a failed capture has left open; RuntimeError where torch has done so itself."""
    torch._C._cuda_endAllocateToPool(device_index, pool)
    torch._C._cuda_releasePool(device_index, pool)
