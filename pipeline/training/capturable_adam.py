"""An Adam step with its learning rate in a tensor, for CUDA graphs; on the state of `torch.optim.Adam`.

A kernel in a CUDA graph is replayed with the numbers of its capture, but reads tensors again. torch's fused
kernel accepts a tensor for the learning rate but not for beta2; if beta2 changes, the formula is computed
here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.training import _compat as compat
from pipeline.training.tensor_chunks import in_chunks

_Tensors = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]
"""Weights, gradients, Adam's means of gradients and of their squares."""


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


@torch.no_grad()
def step_with_tensor_lr(optimizer: torch.optim.Adam, lr: Tensor, beta2: Tensor | None) -> None:
    """One step without synchronisation; lr and beta2 of the parameter groups stay unchanged.

    lr, beta2: float32 scalars on the device of the parameters. beta2 = None: the number in the group, which
    allows the fused kernel.
    """
    for group in optimizer.param_groups:
        weights = [p for p in group["params"] if p.grad is not None]
        if not weights:
            continue
        states = [optimizer.state[p] for p in weights]
        means, squares, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        tensors = weights, [p.grad for p in weights], means, squares
        compat.foreach_add_(steps, 1)
        (beta1, fixed_beta2), eps = group["betas"], group["eps"]
        if beta2 is not None:
            _foreach_step(tensors, steps[0], lr, (beta1, beta2), eps)
            continue
        # As `torch.optim.Adam(fused=True)`, with tensors in smaller chunks on a GPU.
        weights, gradients, means, squares, steps = in_chunks(*tensors, whole=steps)
        compat.fused_adam_(
            weights, gradients, means, squares, [], steps,
            lr=lr, beta1=beta1, beta2=fixed_beta2, weight_decay=0.0, eps=eps,
            amsgrad=False, maximize=False, grad_scale=None, found_inf=None,
        )  # fmt: skip


def _foreach_step(
    tensors: _Tensors, step: Tensor, lr: Tensor, betas: tuple[float, Tensor], eps: float
) -> None:
    """Kingma & Ba 2015, algorithm 1, in torch's order of operations: without weight decay and AMSGrad.

    step: the number of steps, the same for all parameters, and so are the bias corrections.
    """
    (weights, gradients, means, squares), (beta1, beta2) = tensors, betas
    compat.foreach_lerp_(means, gradients, 1 - beta1)
    compat.foreach_mul_(squares, beta2)
    gradients_squared = compat.foreach_mul(gradients, gradients)
    compat.foreach_mul_(gradients_squared, 1 - beta2)
    compat.foreach_add_(squares, gradients_squared)
    roots = compat.foreach_sqrt(squares)
    compat.foreach_div_(roots, (1 - beta2**step).sqrt())
    compat.foreach_add_(roots, eps)
    changes = compat.foreach_div(means, roots)
    compat.foreach_mul_(changes, -lr / (1 - beta1**step))
    compat.foreach_add_(weights, changes)
