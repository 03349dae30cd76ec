"""What all architectures share: `Generator`, `Discriminator`, class-conditional batch norm, EMA weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.training._compat import foreach_lerp_
from pipeline.training.tensor_chunks import in_chunks

EMBEDDING_DIM = 32


@dataclass(frozen=True)
class ImageShape:
    """Size (height = width, in pixels), channels and number of classes (0 = unlabelled) of the images."""

    size: int
    channels: int
    classes: int = 0


class OwnInitialisation(nn.Module):
    """A module that changes the initial weights that `initialise_weights` has drawn for its layers."""

    def initialise(self, identity: bool) -> None:
        """identity: whether residual blocks start as the identity, by weights of 0."""
        raise NotImplementedError


class ClassNorm(nn.Module):
    """Batch norm with a gain and a bias for each class (de Vries et al. 2017; Miyato & Koyama 2018).

    Args:
        norm: BatchNorm1d or BatchNorm2d with affine=False.
        classes: number of classes.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, classes: int) -> None:
        super().__init__()
        self.norm = norm
        self.gain = nn.Embedding(classes, norm.num_features)
        self.bias = nn.Embedding(classes, norm.num_features)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        flat: Tensor = self.norm(x)
        shape = (-1, flat.shape[1], *[1] * (flat.ndim - 2))
        # In the precision of x: under autocast a float32 product would make all later layers float32.
        gain, bias = self.gain(labels).to(flat.dtype), self.bias(labels).to(flat.dtype)
        return torch.addcmul(bias.view(shape), flat, gain.view(shape))


class Stack(nn.Sequential):
    """`nn.Sequential` that passes the labels to its `ClassNorm` layers."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        for module in self:
            x = module(x, labels) if isinstance(module, ClassNorm) else module(x)
        return x


class Generator(nn.Module):
    """z (N,Z) float32 [and labels (N,) int64] -> images (N,C,H,W) in [-1, 1].

    Args:
        body: z (N, Z [+ EMBEDDING_DIM where embed]) -> (N,C,H,W), unbounded.
        z_dim: Z. classes: K, 0 = unconditional.
        embed: concatenate an embedding of the class to z; otherwise `body` is a Stack with ClassNorms.
    """

    def __init__(self, body: nn.Module, *, z_dim: int, classes: int, embed: bool = True) -> None:
        super().__init__()
        self.z_dim, self.classes = z_dim, classes
        self.embed = nn.Embedding(classes, EMBEDDING_DIM) if classes and embed else None
        self.body = body

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None and labels is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return torch.tanh(self.body(z, labels) if isinstance(self.body, Stack) else self.body(z))


class Discriminator(nn.Module):
    """images (N,C,H,W) in [-1, 1] [and labels (N,) int64] -> logits (N,).

    Conditional by projection (Miyato & Koyama 2018).

    Args:
        body: images -> features (N, features). classes: K, 0 = unconditional.
    """

    reconstructs = False
    """Whether it is a `pipeline.training.networks.self_supervision.SelfSupervisedDiscriminator`."""

    def __init__(self, body: nn.Module, *, features: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, 1)
        self.project = nn.Embedding(classes, features) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.judge(self.body(images), labels)

    def judge(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Features (N, features) -> logits (N,)."""
        logits: Tensor = self.head(features).squeeze(1)
        if self.project is not None and labels is not None:
            # Scaled like the head, which an embedding drawn from N(0, 1) would dominate.
            scale = features.shape[1] ** -0.5
            logits = logits + (self.project(labels) * features).sum(dim=1) * scale
        return logits


class Ema:
    """Exponential moving average (EMA) of a generator's weights, with a half-life in kimg.

    The half-life is at most 5 % of the images seen so far, so that the random start is forgotten early
    (StyleGAN2-ADA). Buffers (batch statistics) are averaged as well: those of the live network belong to
    other weights. With a half-life of 0 the weights are copied.
    """

    _RAMP = 0.05

    def __init__(self, live: Generator, halflife_kimg: float) -> None:
        self.halflife_nimg = halflife_kimg * 1000
        self.generator = copy.deepcopy(live).eval().requires_grad_(False)
        self._average, self._live = _floats(self.generator), _floats(live)
        self._chunks: tuple[list[Tensor], ...] | None = None

    @torch.no_grad()
    def update(self, images: int, shown: int) -> None:
        """Blend in the live weights after `images` more reals have been seen, `shown` in total."""
        halflife = min(self.halflife_nimg, shown * self._RAMP)
        decay = 0.5 ** (images / halflife) if halflife > 0 else 0.0
        if self._chunks is None:  # once: the tensors stay at the same addresses
            self._chunks = in_chunks(self._average, self._live)
        average, live = self._chunks
        foreach_lerp_(average, live, 1.0 - decay)


def _floats(module: nn.Module) -> list[Tensor]:
    tensors = [p.data for p in module.parameters()]
    return tensors + [b for b in module.buffers() if b.is_floating_point()]
