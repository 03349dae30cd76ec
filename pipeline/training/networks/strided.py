"""Convolutions as products of matrices, where CPUs with bfloat16 units were seen to be faster at those.

Owns: `hasten`, for the convolutions that GANs halve and double images with, in bfloat16 on a CPU. Refuses:
all others, float32, GPUs: these stay torch's, bit for bit.

A CPU with bfloat16 units reaches its speed in products of matrices. oneDNN's strided convolution comes near
it, but not the gradient of its weights on small maps, nor images of one or three channels, nor a kernel that
covers its whole input (`benchmarks/throughput.py` has a row without this file).

A convolution is linear in its input x and in its weight w. With a small image y, T(x, w, y) = <conv(x, w), y>
is linear in each, and all that autograd ever asks for, to any order, is one of its three derivatives:

    small(x, w) = dT/dy    the convolution, large to small
    large(y, w) = dT/dx    the transposed convolution, small to large
    slope(y, x) = dT/dw    the gradient of the weights of both

Shapes: x (N,Cx,2H,2W), y (N,Cy,H,W), w (Cy,Cx,4,4): kernel 4, stride 2, padding 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

_FEW = 4  # channels: those of images
_SMALL = 64  # places of a map, up to which its windows are worth their copies; measured

_HALVES = {"kernel_size": (4, 4), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
_WHOLE = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}


def speed_up_strided(network: nn.Module) -> None:
    """Let the convolutions of a network take the faster way, where one is known. Its weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            module.__class__ = _Conv
        elif type(module) is nn.ConvTranspose2d and not any(module.output_padding):
            module.__class__ = _ConvTranspose


class _Conv(nn.Conv2d):
    """`nn.Conv2d`, by a product where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        if _in_bfloat16(x) and _has(self, _HALVES) and _even(x):
            x, weight, bias = _narrow(x, self.weight, self.bias)
            return _shifted(_Small.apply(_by_place(x), weight), bias)
        if _in_bfloat16(x) and _has(self, _WHOLE) and x.shape[2:] == self.kernel_size:
            x, weight, bias = _narrow(x, self.weight, self.bias)
            return functional.linear(_flat(x), _flat(weight), bias)[:, :, None, None]
        return super().forward(x)


class _ConvTranspose(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, by a product where that is faster."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is None and _in_bfloat16(x) and _has(self, _HALVES):
            x, weight, bias = _narrow(x, self.weight, self.bias)
            return _shifted(_Large.apply(x, weight), bias)
        if output_size is None and _in_bfloat16(x) and _has(self, _WHOLE) and x.shape[2:] == (1, 1):
            x, weight, bias = _narrow(x, self.weight, self.bias)
            drawn = _flat(x) @ _flat(weight)
            drawn = drawn.view(len(x), *weight.shape[2:], weight.shape[1]).permute(0, 3, 1, 2)
            return _shifted(drawn, bias)
        return super().forward(x, output_size)


class _Small(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return functional.conv2d(x, w, None, 2, 1)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, w), (of_x, of_w) = ctx.saved_tensors, _wanted(ctx)
        return _Large.apply(y, w) if of_x else None, _WeightSlope.apply(y, x) if of_w else None


class _Large(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(y, w)
        if w.shape[1] > _FEW:
            return functional.conv_transpose2d(y, w, None, 2, 1)
        return _large_by_corners(y, w)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (y, w), (of_y, of_w) = ctx.saved_tensors, _wanted(ctx)
        return _Small.apply(_by_place(x), w) if of_y else None, _WeightSlope.apply(y, x) if of_w else None


class _WeightSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(y, x)
        if x.shape[1] > _FEW and y.shape[2] * y.shape[3] <= _SMALL:
            slope = _rows(y).mT @ _windows(x)
            return slope.view(y.shape[1], 4, 4, x.shape[1]).permute(0, 3, 1, 2)
        theirs: Tensor = conv2d_weight(x, (y.shape[1], x.shape[1], 4, 4), y, 2, 1)  # type: ignore[no-untyped-call]
        return theirs

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (y, x), (of_y, of_x) = ctx.saved_tensors, _wanted(ctx)
        return _Small.apply(x, w) if of_y else None, _Large.apply(y, w) if of_x else None


def _wanted(ctx: Any) -> list[bool]:
    """Which of a function's derivatives this backward pass asks for; a penalty's first one wants none of w's.

    `needs_input_grad` does not know (pytorch/pytorch#174017), and the engine does not tell of leaves.
    """
    return [
        node is not None
        and (type(node).__name__ == "AccumulateGrad" or torch._C._will_engine_execute_node(node))
        for node, _ in ctx.next_functions
    ]


def _large_by_corners(y: Tensor, w: Tensor) -> Tensor:
    """Four pixels of the large image meet at each corner of the small one's places, and see the same 2 x 2 of
    them: a convolution to 4*Cx channels, whose blocks of pixels are then laid out."""
    (cy, cx), (n, _, h, width) = w.shape[:2], y.shape
    met = w.view(cy, cx, 2, 2, 2, 2).flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * cx, cy, 2, 2)
    blocks = functional.conv2d(y, met, None, 1, 1).permute(0, 2, 3, 1).reshape(n, h + 1, width + 1, 2, 2 * cx)
    large = blocks.transpose(2, 3).reshape(n, 2 * h + 2, 2 * width + 2, cx)
    return large[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _by_place(x: Tensor) -> Tensor:
    """`x` in channels_last memory, also where one channel leaves that open: results take after it."""
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)


def _windows(x: Tensor) -> Tensor:
    """What the kernel sees at each of its places: (N*H*W, 4*4*C)."""
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    seen = padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3)
    return seen.reshape(-1, 16 * x.shape[1])


def _rows(images: Tensor) -> Tensor:
    """(N,C,H,W) -> (N*H*W, C), without a copy where the memory is channels_last."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _flat(images: Tensor) -> Tensor:
    """(N,C,H,W) -> (N, H*W*C), without a copy where the memory is channels_last."""
    return images.permute(0, 2, 3, 1).flatten(1)


def _shifted(images: Tensor, bias: Tensor | None) -> Tensor:
    return images if bias is None else images + bias[:, None, None]


def _in_bfloat16(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.ndim == 4


def _narrow(*tensors: Tensor | None) -> list[Any]:
    """As autocast would have it."""
    kind = torch.get_autocast_dtype("cpu")
    return [None if tensor is None else tensor.to(kind) for tensor in tensors]


def _has(module: nn.Module, wanted: dict[str, Any]) -> bool:
    return all(getattr(module, name) == value for name, value in wanted.items())


def _even(x: Tensor) -> bool:
    return x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
