"""Your own extractor: texture statistics of a network of timm, its weights from a local file.

Pooled features of a late layer say what is in an image; the mean and the deviation of early layers say how
its surfaces look. Fetch the weights once, to the same path on every machine, then search in them:

    python textures.py
    gansweep run --space smoke --data digits --extractor textures:textures
"""

from pathlib import Path

import timm
import torch
from torch import nn

NETWORK = "mobilenetv3_small_050"
WEIGHTS = Path.home() / "weights" / f"{NETWORK}.pth"  # absolute: the file of this module is not read in place


class Textures(nn.Module):
    """uint8 (N,H,W,C), C = 1 or 3 -> mean and deviation of the maps of three stages: float (N,d)."""

    def __init__(self, side):
        super().__init__()
        self.side = side
        net = timm.create_model(NETWORK, pretrained=False)
        net.load_state_dict(torch.load(WEIGHTS, weights_only=True))
        self.first = nn.Sequential(net.conv_stem, net.bn1)
        self.stages = net.blocks[:3]

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 127.5 - 1
        if x.shape[2] < self.side:
            x = nn.functional.interpolate(x, self.side, mode="bilinear")
        x, found = self.first(x), []
        for stage in self.stages:
            x = stage(x)
            found += [x.mean((2, 3)), x.std((2, 3))]
        return torch.cat(found, 1)


def textures(size, channels):
    """Called by gansweep once on each worker."""
    return Textures(side=max(64, size))


if __name__ == "__main__":
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    torch.save(timm.create_model(NETWORK, pretrained=True).state_dict(), WEIGHTS)
    print(f"wrote {WEIGHTS}")
