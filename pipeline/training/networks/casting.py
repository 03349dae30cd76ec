"""Weights cast to bfloat16 for a GPU: all of a network's by one kernel, and their gradients by another.

Autocast casts every weight and bias by a kernel of its own, forwards and backwards: a fifth of the kernels of
a small GAN's step. Here a pass finds them cast already, and autocast leaves them as they are: the numbers are
the same to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call

from pipeline.training.tensor_chunks import in_chunks

_CAST = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
"""Layers whose weights autocast casts."""

_KNOWN = ("torch.nn.", "pipeline.training.networks.build.")


class CastParameters:
    """Passes of a network under autocast in a step, between two updates of its weights.

    network: taken as it is where it is not on a GPU, not under autocast, or has modules of the user's own,
    which may do with their weights what they like.
    """

    def __init__(self, network: nn.Module, bfloat16: bool) -> None:
        self._network = network
        self._names = _names(network) if bfloat16 and _on_gpu(network) else []
        self._weights = dict(network.named_parameters())
        self._cast: dict[str, Tensor] = {}
        self._at_once = False

    def begin(self, at_once: bool) -> None:
        """A step begins. at_once: it is recorded: Python's time in it, a fifth more, does not count."""
        self._at_once = at_once
        self._cast = {}

    def renew(self) -> None:
        """Cast the present weights; to be called after each update, and where gradients begin or end."""
        if self._names and self._at_once:
            cast = _Cast.apply(*(self._weights[name] for name in self._names))
            self._cast = dict(zip(self._names, cast, strict=True))

    def end(self) -> None:
        """The step is over: forget the casts, and with them what autograd knows of it."""
        self._cast = {}

    def __call__(self, *args: Any) -> Tensor:
        found: Tensor = (
            functional_call(self._network, self._cast, args) if self._cast else self._network(*args)
        )
        return found


class _Cast(Function):
    """float32 tensors -> bfloat16 copies in the same memory format; gradients the other way."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        return _copies(list(weights), torch.bfloat16)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [gradient for gradient in gradients if gradient is not None]
        copies = iter(_copies(there, torch.float32))
        return tuple(None if gradient is None else next(copies) for gradient in gradients)


def _copies(tensors: list[Tensor], kind: torch.dtype) -> tuple[Tensor, ...]:
    found = [torch.empty_like(tensor, dtype=kind) for tensor in tensors]
    if found:
        copies, sources = in_chunks(found, tensors)
        torch._foreach_copy_(copies, sources)
    return tuple(found)


def _names(network: nn.Module) -> list[str]:
    modules = dict(network.named_modules())
    if not all(type(module).__module__.startswith(_KNOWN) for module in modules.values()):
        return []
    return [
        f"{place}.{name}" if place else name
        for place, module in modules.items()
        if isinstance(module, _CAST)
        for name, _ in module.named_parameters(recurse=False)
    ]


def _on_gpu(network: nn.Module) -> bool:
    return all(weight.is_cuda for weight in network.parameters())
