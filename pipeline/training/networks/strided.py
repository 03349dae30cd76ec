"""Strided convolutions as matrix products, on CPUs with bfloat16 units.

Only the convolutions with which GANs halve and double images, in bfloat16 on a CPU, are computed in this way;
all others, float32 and GPUs are left to torch, bit for bit.

A CPU with bfloat16 units reaches its peak speed in matrix products. oneDNN's strided convolution comes close
to it, but not its weight gradient on small maps, nor images of one or three channels, nor a kernel that
covers its whole input (`benchmarks/throughput.py` has a row without this module).

A convolution is linear in its input x and in its weight w. With an output image y,
T(x, w, y) = <conv(x, w), y> is linear in each argument, so derivatives of any order are composed of its three
partial derivatives:

    conv(x, w)            = dT/dy    the convolution, large to small
    transposed_conv(y, w) = dT/dx    the transposed convolution, small to large
    weight_grad(y, x)     = dT/dw    the gradient of the weights of both

Shapes: x (N,Cx,2H,2W), y (N,Cy,H,W), w (Cy,Cx,4,4): kernel 4, stride 2, padding 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

_FEW = 4  # channels at most: those of images
_SMALL = 64  # pixels of a map up to which copying its windows pays off; measured

_HALVES = {"kernel_size": (4, 4), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
_WHOLE = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}


def speed_up_strided(network: nn.Module) -> None:
    """Make the convolutions of a network use matrix products where these are faster."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            module.__class__ = _Conv
        elif type(module) is nn.ConvTranspose2d and not any(module.output_padding):
            module.__class__ = _ConvTranspose


class _Conv(nn.Conv2d):
    """`nn.Conv2d`, by a matrix product where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        if _in_bfloat16(x) and _has(self, _HALVES) and _even(x):
            x, weight, bias = _to_autocast_dtype(x, self.weight, self.bias)
            return _add_bias(_StridedConv.apply(_channels_last(x), weight), bias)
        if _in_bfloat16(x) and _has(self, _WHOLE) and x.shape[2:] == self.kernel_size:
            x, weight, bias = _to_autocast_dtype(x, self.weight, self.bias)
            return functional.linear(_flat(x), _flat(weight), bias)[:, :, None, None]
        return super().forward(x)


class _ConvTranspose(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, by a matrix product where that is faster."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is None and _in_bfloat16(x) and _has(self, _HALVES):
            x, weight, bias = _to_autocast_dtype(x, self.weight, self.bias)
            return _add_bias(_StridedConvTranspose.apply(x, weight), bias)
        if output_size is None and _in_bfloat16(x) and _has(self, _WHOLE) and x.shape[2:] == (1, 1):
            x, weight, bias = _to_autocast_dtype(x, self.weight, self.bias)
            images = _flat(x) @ _flat(weight)
            images = images.view(len(x), *weight.shape[2:], weight.shape[1]).permute(0, 3, 1, 2)
            return _add_bias(images, bias)
        return super().forward(x, output_size)


class _StridedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return functional.conv2d(x, w, None, 2, 1)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, w), (for_x, for_w) = ctx.saved_tensors, _needed_gradients(ctx)
        grad_x = _StridedConvTranspose.apply(y, w) if for_x else None
        return grad_x, _WeightGrad.apply(y, x) if for_w else None


class _StridedConvTranspose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(y, w)
        if w.shape[1] > _FEW:
            return functional.conv_transpose2d(y, w, None, 2, 1)
        return _transpose_by_corners(y, w)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (y, w), (for_y, for_w) = ctx.saved_tensors, _needed_gradients(ctx)
        grad_y = _StridedConv.apply(_channels_last(x), w) if for_y else None
        return grad_y, _WeightGrad.apply(y, x) if for_w else None


class _WeightGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(y, x)
        if x.shape[1] > _FEW and y.shape[2] * y.shape[3] <= _SMALL:
            gradient = _rows(y).mT @ _windows(x)
            return gradient.view(y.shape[1], 4, 4, x.shape[1]).permute(0, 3, 1, 2)
        by_torch: Tensor = conv2d_weight(x, (y.shape[1], x.shape[1], 4, 4), y, 2, 1)  # type: ignore[no-untyped-call]
        return by_torch

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (y, x), (for_y, for_x) = ctx.saved_tensors, _needed_gradients(ctx)
        grad_y = _StridedConv.apply(x, w) if for_y else None
        return grad_y, _StridedConvTranspose.apply(y, w) if for_x else None


def _needed_gradients(ctx: Any) -> list[bool]:
    """Which input gradients this backward pass needs: the first one of a gradient penalty needs none of w.

    `needs_input_grad` is not exact (pytorch/pytorch#174017), and the engine does not answer for leaves.
    """
    return [
        node is not None
        and (type(node).__name__ == "AccumulateGrad" or torch._C._will_engine_execute_node(node))
        for node, _ in ctx.next_functions
    ]


def _transpose_by_corners(y: Tensor, w: Tensor) -> Tensor:
    """The transposed convolution as a 2x2 convolution to 4*Cx channels, whose values are then interleaved.

    The four pixels of the large image around each corner of a pixel of the small one depend on the same 2x2
    pixels of that.
    """
    (cy, cx), (n, _, h, width) = w.shape[:2], y.shape
    kernel = w.view(cy, cx, 2, 2, 2, 2).flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * cx, cy, 2, 2)
    blocks = functional.conv2d(y, kernel, None, 1, 1).permute(0, 2, 3, 1)
    blocks = blocks.reshape(n, h + 1, width + 1, 2, 2 * cx)
    large = blocks.transpose(2, 3).reshape(n, 2 * h + 2, 2 * width + 2, cx)
    return large[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    """`x` with channels_last strides, also for one channel, where torch leaves them open: outputs follow."""
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)


def _windows(x: Tensor) -> Tensor:
    """The input windows at all positions of the kernel: (N*H*W, 4*4*C)."""
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3)
    return windows.reshape(-1, 16 * x.shape[1])


def _rows(images: Tensor) -> Tensor:
    """(N,C,H,W) -> (N*H*W, C), without a copy in channels_last memory."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _flat(images: Tensor) -> Tensor:
    """(N,C,H,W) -> (N, H*W*C), without a copy in channels_last memory."""
    return images.permute(0, 2, 3, 1).flatten(1)


def _add_bias(images: Tensor, bias: Tensor | None) -> Tensor:
    return images if bias is None else images + bias[:, None, None]


def _in_bfloat16(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.ndim == 4


def _to_autocast_dtype(*tensors: Tensor | None) -> list[Any]:
    """The tensors in autocast's dtype."""
    dtype = torch.get_autocast_dtype("cpu")
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _has(module: nn.Module, settings: dict[str, Any]) -> bool:
    return all(getattr(module, name) == value for name, value in settings.items())


def _even(x: Tensor) -> bool:
    return x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
