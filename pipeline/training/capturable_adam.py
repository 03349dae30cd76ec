"""An Adam step with its learning rate in a tensor, for CUDA graphs; on the state of `torch.optim.Adam`.

A kernel in a CUDA graph is replayed with the numbers of its capture, but reads tensors again. torch's fused
kernel accepts a tensor for the learning rate but not for beta2; if beta2 changes, the formula is computed
here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.training._compat import (
    foreach_add_,
    foreach_div,
    foreach_div_,
    foreach_lerp_,
    foreach_mul,
    foreach_mul_,
    foreach_sqrt,
    fused_adam_,
)
from pipeline.training.tensor_chunks import in_chunks


def make_capturable(optimizer: torch.optim.Adam) -> None:
    """Create the state of all parameters that have none yet, as the first step would."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if not optimizer.state[p]:
                optimizer.state[p] = {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
                }


def step_with_tensor_lr(optimizer: torch.optim.Adam, lr: Tensor, beta2: Tensor | None) -> None:
    """One step without synchronisation; lr and beta2 of the parameter groups stay unchanged.

    lr, beta2: float32 scalars on the device of the parameters. beta2 = None: the number in the group, which
    allows the fused kernel.
    """
    for group in optimizer.param_groups:
        if beta2 is None:
            _fused_step(optimizer, group, lr)
        else:
            _foreach_step(optimizer, group, lr, beta2)


@torch.no_grad()
def _fused_step(optimizer: torch.optim.Adam, group: dict[str, Any], lr: Tensor) -> None:
    """As `torch.optim.Adam(fused=True)`, with tensors in smaller chunks on a GPU."""
    parameters = [p for p in group["params"] if p.grad is not None]
    if not parameters:
        return
    states = [optimizer.state[p] for p in parameters]
    foreach_add_([state["step"] for state in states], 1)
    gradients = [p.grad for p in parameters]
    means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
    weights, gradients, means, squares, steps = in_chunks(parameters, gradients, means, squares, whole=steps)
    beta1, beta2 = group["betas"]
    fused_adam_(
        weights, gradients, means, squares, [], steps,
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=0.0, eps=group["eps"],
        amsgrad=False, maximize=False, grad_scale=None, found_inf=None,
    )  # fmt: skip


@torch.no_grad()
def _foreach_step(optimizer: torch.optim.Adam, group: dict[str, Any], lr: Tensor, beta2: Tensor) -> None:
    """Kingma & Ba 2015, algorithm 1, in torch's order of operations: without weight decay and AMSGrad."""
    parameters = [p for p in group["params"] if p.grad is not None]
    if not parameters:
        return
    beta1, eps = group["betas"][0], group["eps"]
    gradients: list[Tensor] = [p.grad for p in parameters]
    steps, means, squares = (
        [optimizer.state[p][name] for p in parameters] for name in ("step", "exp_avg", "exp_avg_sq")
    )
    foreach_add_(steps, 1)
    foreach_lerp_(means, gradients, 1 - beta1)
    foreach_mul_(squares, beta2)
    gradients_squared = foreach_mul(gradients, gradients)
    foreach_mul_(gradients_squared, 1 - beta2)
    foreach_add_(squares, gradients_squared)
    # All parameters have the same number of steps, so the bias corrections are the same.
    roots = foreach_sqrt(squares)
    foreach_div_(roots, (1 - beta2 ** steps[0]).sqrt())
    foreach_add_(roots, eps)
    changes = foreach_div(means, roots)
    foreach_mul_(changes, -lr / (1 - beta1 ** steps[0]))
    foreach_add_(parameters, changes)
