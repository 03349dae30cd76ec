"""Feature extractors: the functions from images to feature vectors on which all metrics are based.

There are those of `tables.EXTRACTORS`, and functions of the user's own.

Two distances are comparable only if their extractors are identical, so `hash` covers the architecture's
version and every weight. All arithmetic is float32 without TF32 or autocast, on a CPU in blocks of constant
size; a GPU uses larger blocks, and its features differ from a CPU's by rounding.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError, nearest
from pipeline.metrics.precision import full_float32
from pipeline.metrics.weights import extractor_dir
from pipeline.tables import EXTRACTORS, ExtractorRow, load_target
from pipeline.user_code import load, module_hash, run

_MOST_FEATURES = 2**15
"""Of a custom extractor: their covariance takes 8 GiB."""


class Extractor(Protocol):
    """A function from images to feature vectors.

    name: one of `EXTRACTORS`, or `module:function`. hash: 16 hex digits over architecture and weights, for a
    custom extractor also over the bytes of its file. dim: length of a feature vector.
    """

    name: str
    hash: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N,H,W,C) on any device to float32 (N,dim) on the extractor's device."""

    def to(self, device: torch.device | str) -> Self:
        """A copy on `device`."""


def resolve_extractor(name: str, dataset: Dataset) -> str:
    """The extractor that `name` means for `dataset`; `auto` depends on the data alone.

    `auto` is the classifier for labelled grey images up to 32 px, else EfficientNet-Lite0.

    Raises:
        EvaluatorError: the name is unknown, or names the classifier for unlabelled images.
    """
    if name == "auto":
        small_grey = dataset.channels == 1 and dataset.size <= 32
        return "classifier" if dataset.labelled and small_grey else "efficientnet"
    if EXTRACTORS.is_user_code(name):
        return name
    if name == "clip":  # the published weights do not load without pickle
        rule = "clip must be a custom extractor, with weights of your choice"
        fix = "write --extractor module:function, where the function returns that network"
        raise EvaluatorError("{seen} is not built in", rule=rule, seen=name, fix=fix)
    if name not in EXTRACTORS:
        known = ("auto", *EXTRACTORS.forms)
        rule = f"one of {', '.join(known)}"
        raise EvaluatorError("unknown extractor {seen}", rule=rule, seen=name, fix=nearest(name, known))
    if EXTRACTORS[name].needs_labels and not dataset.labelled:
        rule = f"the {name} extractor needs labelled images"
        fix = "leave --extractor out, or use --extractor efficientnet"
        raise EvaluatorError("{seen} has no labels", rule=rule, seen=dataset.source, fix=fix)
    return name


def build_extractor(
    name: str, dataset: Dataset, *, weights: str = "", cache: Path | None = None
) -> Extractor:
    """The extractor `name` (or `auto`) for `dataset`, on the CPU, ready to use.

    weights: file of the extractor's weights; empty = look on disk, and download Inception's. cache: folder
    below which weights are cached; None = `files.cache_root()`.

    Raises:
        EvaluatorError: as for `resolve_extractor`; or the weights are missing, unreadable or of another
            network; or a custom extractor returns no features.
        ConfigError: a custom extractor cannot be loaded, or fails.
    """
    chosen = resolve_extractor(name, dataset)
    row = EXTRACTORS.get(chosen)
    if weights and not (row and row.takes_weights):
        takers = [name for name, row in EXTRACTORS.items() if row.takes_weights]
        problem = f"the weights file {{seen}} cannot be used with the {chosen} extractor"
        rule = f"only the {' or '.join(takers)} extractor takes one"
        fix = f"add --extractor {takers[0]}, or leave --extractor-weights out"
        raise EvaluatorError(problem, rule=rule, seen=weights, fix=fix)
    if row is None:
        return CustomExtractor(chosen, torch.from_numpy(dataset.train[:4]))
    make: Callable[..., Extractor] = load_target(row.target)
    return make(dataset, weights=weights, folder=extractor_dir(cache), **row.arguments)


def pixel_extractor(dataset: Dataset, *, weights: str, folder: Path) -> PixelExtractor:
    """A `PixelExtractor` for the images of `dataset`."""
    return PixelExtractor(dataset.size, dataset.channels)


class PixelExtractor:
    """Images shrunk by area averaging to at most 8x8, as C*8*8 values in [0, 1]; needs no weights, no labels.

    A fallback that distinguishes colour, layout and coarse shape only.
    """

    name = "pixels"

    def __init__(self, size: int, channels: int) -> None:
        self.side = min(size, 8)
        self.dim = self.side * self.side * channels
        self.hash = _hash(f"{EXTRACTORS['pixels'].version} {self.side} {channels}", {})

    def __call__(self, images: Tensor) -> Tensor:
        def shrink(block: Tensor) -> Tensor:
            floats = block.permute(0, 3, 1, 2).float() / 255
            return F.adaptive_avg_pool2d(floats, self.side).flatten(1)

        return _in_blocks(shrink, images, [1000])

    def to(self, device: torch.device | str) -> Self:
        return self  # no weights: it computes on the device of the images


class NetExtractor:
    """A frozen network, images uint8 (N,H,W,C) -> features float (N,dim), as an extractor.

    name: in `EXTRACTORS`. row: its version in the hash, and the sizes of its blocks. hashed: the weights as
    they were published, where those of `net` were computed from them; None = those of `net`.
    """

    def __init__(
        self, name: str, net: nn.Module, dim: int, row: ExtractorRow, hashed: dict[str, Tensor] | None = None
    ) -> None:
        self.name, self.dim, self.row = name, dim, row
        self.net = net.eval().requires_grad_(False)
        self.hash = _hash(row.version, net.state_dict() if hashed is None else hashed)
        self.block = row.block  # bounds the memory of one forward pass on a CPU

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        with full_float32(device):
            sizes = self._blocks(device, images)
            return _in_blocks(lambda block: self._forward(block.to(device)), images, sizes)

    def _blocks(self, device: torch.device, images: Tensor) -> tuple[int, ...]:
        if device.type != "cuda":
            return (self.block,)
        # Bounded by the memory of the first layer's activations.
        fitting = self.row.gpu_pixels // (images.shape[1] * images.shape[2])
        return int(max(self.block, min(self.row.gpu_block, fitting))), self.block

    def _forward(self, images: Tensor) -> Tensor:
        # Very small batches use other matrix kernels, with other rounding: pad them.
        padding = images[:1].expand(max(0, 16 - len(images)), -1, -1, -1)
        return self.net(torch.cat([images, padding]))[: len(images)]  # type: ignore[no-any-return]

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        moved.net = copy.deepcopy(self.net).to(device)
        return moved


class CustomExtractor:
    """An extractor made by a user's `function(size, channels)`: images uint8 (N,H,W,C) -> float (N,d).

    The function returns a torch module or another callable. It must work on any device, and the features of
    an image must not depend on the rest of its batch. It is pickled as its name and its weights: whoever
    unpickles it needs the same code in `user_code.use_code`.

    images: uint8 (n,H,W,C), a few training images to try it on.

    Raises:
        ConfigError: it cannot be loaded, or fails.
        EvaluatorError: it returns no features.
    """

    def __init__(self, name: str, images: Tensor) -> None:
        self.name, self._images, self.dim = name, images, -1
        self._problem = f"the extractor {name} does not work"
        self._extract = self._make()
        self.hash = run(self._problem, name, self._compute_hash)
        self.dim = self._check()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        sizes = (500, 250) if images.device.type == "cuda" else (250,)
        with full_float32(images.device), redirect_stdout(sys.stderr):
            return _in_blocks(self._features, images, sizes)

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        if isinstance(self._extract, nn.Module):
            moved._extract = copy.deepcopy(self._extract).to(device)
        return moved

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_extract": self._weights()}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        weights, self._extract = self._extract, self._make()
        if isinstance(self._extract, nn.Module):
            self._extract.load_state_dict(weights)
        if self._compute_hash() != self.hash:
            problem, rule = (
                "the extractor {seen} has other weights here",
                "it must be the same on every machine",
            )
            raise EvaluatorError(problem, rule=rule, seen=self.name, fix="give it a fixed seed")

    def _make(self) -> Any:
        size, channels = self._images.shape[2:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for weights that are drawn when the file is loaded
            function = load(self.name, EXTRACTORS.form)
            torch.manual_seed(0)
            made = run(self._problem, self.name, lambda: function(size, channels))
        return made.eval().requires_grad_(False) if isinstance(made, nn.Module) else made

    def _features(self, block: Tensor) -> Tensor:
        """Of one block; it gets a copy, so that it cannot change the training images."""
        found = self._extract(block.clone())
        if not isinstance(found, Tensor):
            raise self._refused(f"returned a {type(found).__name__}, no tensor")
        if found.ndim != 2 or len(found) != len(block):
            raise self._refused(f"returned shape {tuple(found.shape)} for {len(block)} images")
        if not (found.shape[1] == self.dim or self.dim < 0 < found.shape[1] <= _MOST_FEATURES):
            raise self._refused(f"returned {found.shape[1]} features of an image")
        return found.float()

    def _refused(self, seen: str) -> EvaluatorError:
        rule, fix = f"it must be {EXTRACTORS.form}", f"correct {self.name.partition(':')[0]}.py"
        return EvaluatorError(self._problem, rule=rule, seen=seen, fix=fix)

    def _weights(self) -> dict[str, Tensor]:
        state = self._extract.state_dict() if isinstance(self._extract, nn.Module) else {}
        return {name: weights.cpu() for name, weights in state.items()}

    def _compute_hash(self) -> str:
        version = f"own-1 {self.name} {module_hash(self.name)} {tuple(self._images.shape[1:])}"
        return _hash(version, self._weights())

    def _check(self) -> int:
        """Try it on the images; returns the length of its feature vectors."""
        images = self._images
        found, one = run(self._problem, self.name, lambda: (self(images).cpu(), self(images[:1]).cpu()))
        if not (found.isfinite().all() and torch.allclose(found[:1], one, rtol=1e-4, atol=1e-5)):
            raise self._refused("returned other features for the same image, or values not finite")
        return int(found.shape[1])


def _in_blocks(extract: Callable[[Tensor], Tensor], images: Tensor, sizes: Sequence[int]) -> Tensor:
    """`extract` on blocks of `images` (N,...), of the first size for which the memory suffices: (N,d)."""
    *larger, last = sizes
    for size in larger:
        with suppress(torch.OutOfMemoryError):
            return torch.cat([extract(block) for block in torch.split(images, size)])
    return torch.cat([extract(block) for block in torch.split(images, last)])


def _hash(version: str, state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(version.encode())
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        weights = state[name].detach().cpu().contiguous()
        digest.update(weights.flatten().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return digest.hexdigest()[:16]
