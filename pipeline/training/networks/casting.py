"""Weights cast to bfloat16 on a GPU by one kernel for a whole network, and their gradients by another.

Autocast launches one kernel for each weight and bias, forwards and backwards: a fifth of the kernels of a
small GAN's step. Here the weights are cast before the forward pass, and autocast leaves them as they are. The
results are bit-identical.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call

from pipeline.training._compat import foreach_copy_
from pipeline.training.tensor_chunks import in_chunks

_CAST = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
"""Layers whose weights autocast casts."""
_TRUSTED = ("torch.nn.", "pipeline.training.networks.")
"""Modules of these packages use their weights in forward passes only."""


class CastParameters:
    """The forward pass of a network in a training step, with weights cast to bfloat16 by one kernel.

    The network is called as it is, and autocast does the casts, unless all of it is on a GPU and `bfloat16`
    is true; also if it has custom modules, which may use their weights in other ways.
    """

    def __init__(self, network: nn.Module, bfloat16: bool) -> None:
        self._network = network
        self._names = _names(network) if bfloat16 and _on_gpu(network) else []
        self._weights = dict(network.named_parameters())
        self._cast: dict[str, Tensor] = {}
        self._graphed = False

    def begin(self, graphed: bool) -> None:
        """Start a step. graphed: in a CUDA graph, where extra Python time (a fifth) does not count."""
        self._graphed = graphed
        self._cast = {}

    def refresh(self) -> None:
        """Cast the current weights: call it after each update, and where gradients are switched on or off."""
        if self._names and self._graphed:
            cast = _Cast.apply(*(self._weights[name] for name in self._names))
            self._cast = dict(zip(self._names, cast, strict=True))

    def end(self) -> None:
        """End a step: drop the cast weights and their autograd graph."""
        self._cast = {}

    def __call__(self, *args: Any) -> Any:
        return functional_call(self._network, self._cast, args) if self._cast else self._network(*args)


class _Cast(Function):
    """float32 tensors -> bfloat16 copies in the same memory format; gradients are cast back."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        return _copies(list(weights), torch.bfloat16)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        present = [gradient for gradient in gradients if gradient is not None]
        copies = iter(_copies(present, torch.float32))
        return tuple(None if gradient is None else next(copies) for gradient in gradients)


def _copies(tensors: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        targets, sources = in_chunks(copies, tensors)
        foreach_copy_(targets, sources)
    return tuple(copies)


def _names(network: nn.Module) -> list[str]:
    """Names of the parameters that autocast casts; none if the network has custom modules."""
    modules = dict(network.named_modules())
    if not all(type(module).__module__.startswith(_TRUSTED) for module in modules.values()):
        return []
    return [
        f"{path}.{name}" if path else name
        for path, module in modules.items()
        if isinstance(module, _CAST)
        for name, _ in module.named_parameters(recurse=False)
    ]


def _on_gpu(network: nn.Module) -> bool:
    return all(weight.is_cuda for weight in network.parameters())
