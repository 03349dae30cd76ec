"""One step of Adam whose rates lie in tensors, for a step that is recorded once and replayed often.

Owns: `prepare` and `step_by_tensors`, on torch's own optimizer and its state. Refuses: choosing rates.

A recorded kernel keeps the numbers it was called with, but reads tensors anew. torch's fused kernel takes a
learning rate of either kind, beta2 as a number only; where beta2 moves, the formula is written out here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.training.tensor_chunks import in_chunks


def make_capturable(optimizer: torch.optim.Adam) -> None:
    """Make the state of all parameters that have none yet, as the first step would."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if not optimizer.state[p]:
                optimizer.state[p] = {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
                }


def step_with_tensor_lr(optimizer: torch.optim.Adam, lr: Tensor, beta2: Tensor | None) -> None:
    """A step that never waits for the device.

    lr, beta2: float32 scalars on the parameters' device. beta2 None: the number that the group has, by the
    fused kernel. The groups are left with the numbers they had.
    """
    for group in optimizer.param_groups:
        if beta2 is None:
            _by_kernel(optimizer, group, lr)
        else:
            _by_formula(optimizer, group, lr, beta2)


@torch.no_grad()
def _by_kernel(optimizer: torch.optim.Adam, group: dict[str, Any], lr: Tensor) -> None:
    """What `torch.optim.Adam(fused=True)` does, with smaller pieces of tensors for a GPU."""
    moved = [p for p in group["params"] if p.grad is not None]
    if not moved:
        return
    states = [optimizer.state[p] for p in moved]
    torch._foreach_add_([state["step"] for state in states], 1)
    slopes = [p.grad for p in moved]
    means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
    weights, slopes, means, squares, steps = in_chunks(moved, slopes, means, squares, whole=steps)
    beta1, beta2 = group["betas"]
    torch._fused_adam_(
        weights, slopes, means, squares, [], steps,
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=0.0, eps=group["eps"],
        amsgrad=False, maximize=False, grad_scale=None, found_inf=None,
    )  # fmt: skip


@torch.no_grad()
def _by_formula(optimizer: torch.optim.Adam, group: dict[str, Any], lr: Tensor, beta2: Tensor) -> None:
    """Kingma & Ba 2015, algorithm 1, as torch writes it: without weight decay and AMSGrad."""
    moved = [p for p in group["params"] if p.grad is not None]
    if not moved:
        return
    beta1, eps = group["betas"][0], group["eps"]
    slopes: list[Tensor] = [p.grad for p in moved]
    steps, means, squares = (
        [optimizer.state[p][name] for p in moved] for name in ("step", "exp_avg", "exp_avg_sq")
    )
    torch._foreach_add_(steps, 1)
    torch._foreach_lerp_(means, slopes, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    slopes_squared = torch._foreach_mul(slopes, slopes)
    torch._foreach_mul_(slopes_squared, 1 - beta2)
    torch._foreach_add_(squares, slopes_squared)
    # All have made as many steps: one correction each for all of them.
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, (1 - beta2 ** steps[0]).sqrt())
    torch._foreach_add_(roots, eps)
    changes = torch._foreach_div(means, roots)
    torch._foreach_mul_(changes, -lr / (1 - beta1 ** steps[0]))
    torch._foreach_add_(moved, changes)
