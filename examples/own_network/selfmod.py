"""Your own network: a G with self-modulation (Chen et al. 2019), and a strided D.

The gain and bias of every batch norm follow z, so that one latent vector steers all resolutions. Run it here:

    gansweep validate space.toml
    gansweep run --space space.toml --data mnist5k --time-budget 5m
"""

import torch
from torch import nn
from torch.nn.functional import interpolate, leaky_relu


class SelfModulated(nn.Module):
    """conv(act(norm(x))) with a gain and a bias per channel from z: (N,before,S,S) -> (N,after,S,S)."""

    def __init__(self, before, after, z_dim):
        super().__init__()
        self.norm = nn.BatchNorm2d(before, affine=False)
        self.modulate = nn.Sequential(nn.Linear(z_dim, 32), nn.ReLU(), nn.Linear(32, 2 * before))
        self.conv = nn.Conv2d(before, after, 3, padding=1)

    def forward(self, x, z):
        gain, bias = self.modulate(z)[:, :, None, None].chunk(2, dim=1)
        return self.conv(leaky_relu(self.norm(x) * (1 + gain) + bias, 0.2))


class G(nn.Module):
    """z (N,Z) -> images (N,C,S,S); S is a multiple of 4."""

    def __init__(self, config, shape):
        super().__init__()
        width, self.side = 2 * config.width_g, shape.size // 4
        self.first = nn.Linear(config.z_dim, width * self.side**2)
        self.low = SelfModulated(width, width, config.z_dim)
        self.middle = SelfModulated(width, config.width_g, config.z_dim)
        self.high = SelfModulated(config.width_g, shape.channels, config.z_dim)

    def forward(self, z):
        x = self.first(z).unflatten(1, (-1, self.side, self.side))
        x = interpolate(self.low(x, z), scale_factor=2.0)
        x = interpolate(self.middle(x, z), scale_factor=2.0)
        return torch.tanh(self.high(x, z))


def selfmod(config, shape):
    """Called by gansweep for each trial; returns G and D."""
    width = config.width_d
    d = nn.Sequential(
        nn.Conv2d(shape.channels, width, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(2 * width * (shape.size // 4) ** 2, 1), nn.Flatten(0),
    )  # fmt: skip
    return G(config, shape), d
