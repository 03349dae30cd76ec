"""DINOv2 (Oquab et al. 2023), the network whose Frechet distance agrees best with people (Stein et al. 2023).

The network is timm's, the weights are the files that torch.hub publishes. They are never downloaded here.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics.extractors import NetExtractor
from pipeline.metrics.timm_networks import create_network
from pipeline.metrics.weights import DINOV2_FILES, find_weights, weights_paths
from pipeline.tables import EXTRACTORS

NAME = "dinov2"
SIDE = 224
"""Side in pixels to which all images are resized: 16 x 16 patches of 14 px."""

_ARCHITECTURES = {384: "small", 768: "base", 1024: "large", 1536: "giant"}
"""timm's `vit_*_patch14_dinov2`, by the length of a token."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PATCHES = SIDE // 14
_RULE = f"the dinov2 extractor reads a file that torch.hub publishes: {', '.join(DINOV2_FILES)}"


def dinov2_extractor(dataset: Dataset, *, weights: str, folder: Path) -> NetExtractor:
    """The network as an extractor, for grey or colour images of any size.

    weights: its file; empty = the one in `folder` or in torch's cache. folder: gansweep's cache of weights.

    Raises:
        EvaluatorError: there is no such file, it holds other weights, timm is missing, or the images have
            neither 1 nor 3 channels.
    """
    if dataset.channels not in (1, 3):
        rule, fix = "it takes grey or RGB images", "use --extractor pixels, or one of your own"
        raise EvaluatorError("dinov2 cannot see {seen} channels", rule=rule, seen=dataset.channels, fix=fix)
    state = load_weights(Path(weights) if weights else _find_weights(folder))
    net = DinoV2(state)
    return NetExtractor(NAME, net, state["norm.weight"].shape[0], EXTRACTORS[NAME], hashed=state)


class DinoV2(nn.Module):
    """uint8 (N,H,W,C), C = 1 or 3 -> class token after the last norm, float32 (N,d), d = 384 to 1536.

    state: the published tensors by their published names, with position embeddings of any square grid.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.net = _load_network(state)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        inputs = images.permute(0, 3, 1, 2).float() / 255
        inputs = functional.interpolate(inputs, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        tokens: Tensor = self.net.forward_features((inputs - self.mean) / self.std)  # type: ignore[operator]
        return tokens[:, 0]


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of the file, by their published names.

    Raises:
        EvaluatorError: it cannot be read without pickle, or holds no network of these sizes.
    """
    fix = f"give --extractor-weights the file {DINOV2_FILES[0]}"
    try:
        state: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        problem, seen = "the weights file {seen} cannot be loaded", f"{path} ({type(error).__name__})"
        raise EvaluatorError(problem, rule=_RULE, seen=seen, fix=fix) from error
    if not _is_published(state):
        raise EvaluatorError("{seen} holds other weights", rule=_RULE, seen=str(path), fix=fix)
    return state


def _is_published(state: object) -> bool:
    """Whether they are tensors, with a token of a known length and positions of a square grid."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        return False
    token, positions = state.get("cls_token"), state.get("pos_embed")
    if token is None or positions is None or token.ndim != 3 or token.shape[2] not in _ARCHITECTURES:
        return False
    square = positions.ndim == 3 and math.isqrt(positions.shape[1] - 1) ** 2 == positions.shape[1] - 1
    return square and positions.shape[2] == token.shape[2] and "register_tokens" not in state


def _find_weights(folder: Path) -> Path:
    found = find_weights(DINOV2_FILES, folder)
    if found is None:
        ours, torchs = weights_paths(DINOV2_FILES[0], folder)
        fix = f"put it at {ours} or {torchs} (with --extractor dinov2, --extractor-weights FILE does as well)"
        problem = "DINOv2's weights are not on this machine: {seen} is missing"
        rule = "gansweep does not download them; those of ViT-B, ViT-S and ViT-g are taken too"
        raise EvaluatorError(problem, rule=rule, seen=DINOV2_FILES[0], fix=fix)
    return found


def _load_network(state: dict[str, Tensor]) -> nn.Module:
    """timm's network with the published weights.

    Raises:
        EvaluatorError: timm is not installed, or a tensor is missing, left over or of another shape.
    """
    name = f"vit_{_ARCHITECTURES[state['cls_token'].shape[-1]]}_patch14_dinov2"
    network = create_network(name, NAME, "pip install timm", img_size=SIDE, num_classes=0)
    renamed = {_timm_name(key): tensor for key, tensor in state.items() if key != "mask_token"}
    renamed["pos_embed"] = resize_positions(state["pos_embed"])
    expected = network.state_dict()
    for key in expected.keys() | renamed.keys():
        shapes = [tuple(side[key].shape) if key in side else None for side in (expected, renamed)]
        if shapes[0] != shapes[1]:
            rule = f"there it has {shapes[0]}, the weights have {shapes[1]}"
            fix = f"give --extractor-weights the file {DINOV2_FILES[0]}"
            raise EvaluatorError(
                f"timm's {name} does not fit its weights at {{seen}}", rule=rule, seen=key, fix=fix
            )
    network.load_state_dict(renamed)
    return network


def _timm_name(key: str) -> str:
    """The giant's feed-forward layers have other names there."""
    return key.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2")


def resize_positions(embedding: Tensor) -> Tensor:
    """Position embeddings (1, 1 + k*k, d) for the grid of 16 x 16 patches, as DINOv2's own code resizes them.

    It adds 0.1 to the target when it scales, which moves the sampling points: the features are of these.
    """
    side, dim = round((embedding.shape[1] - 1) ** 0.5), embedding.shape[2]
    if side == _PATCHES:
        return embedding
    grid = embedding[:, 1:].view(1, side, side, dim).permute(0, 3, 1, 2)
    scale = (_PATCHES + 0.1) / side
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([embedding[:, :1], grid.permute(0, 2, 3, 1).reshape(1, -1, dim)], 1)
