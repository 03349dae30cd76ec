"""Feature extractors: the functions from images to feature vectors on which all metrics are based.

There are `classifier`, `inception`, `pixels` and custom ones (`module:function`).

Two distances are comparable only if their extractors are identical, so `hash` covers the architecture's
version and every weight. All arithmetic is float32 without TF32 or autocast, on a CPU in blocks of constant
size; a GPU uses larger blocks, and its features differ from a CPU's by rounding.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError, nearest
from pipeline.metrics import classifier
from pipeline.metrics.inception import load_inception
from pipeline.metrics.precision import full_float32
from pipeline.metrics.weights import extractor_dir

NAMES = ("classifier", "inception", "pixels")
CUSTOM_FORM = "module:function"


class Extractor(Protocol):
    """A function from images to feature vectors.

    name: one of `NAMES`, or `module:function`. hash: 16 hex digits over architecture and weights, for a
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

    `auto` is the classifier for labelled grey images up to 32 px, else Inception.

    Raises:
        EvaluatorError: the name is unknown, or names the classifier for unlabelled images.
    """
    if name == "auto":
        small_grey = dataset.channels == 1 and dataset.size <= 32
        return "classifier" if dataset.labelled and small_grey else "inception"
    if is_custom_extractor(name):
        return name
    if name in ("clip", "dinov2"):
        raise EvaluatorError(
            "{seen} is not built in",  # the published weights do not load without pickle
            rule="clip and dinov2 must be custom extractors, with weights of your choice",
            seen=name,
            fix="write --extractor module:function, where the function returns that network",
        )
    if name not in NAMES:
        known = ("auto", *NAMES, CUSTOM_FORM)
        raise EvaluatorError(
            "unknown extractor {seen}", rule=f"one of {', '.join(known)}", seen=name, fix=nearest(name, known)
        )
    if name == "classifier" and not dataset.labelled:
        raise EvaluatorError(
            "{seen} has no labels",
            rule="the classifier extractor needs labelled images",
            seen=dataset.source,
            fix="use --extractor pixels, or --extractor inception",
        )
    return name


def is_custom_extractor(name: str) -> bool:
    """Whether an extractor is custom: `module:function`."""
    return re.fullmatch(r"[A-Za-z_]\w*:[A-Za-z_]\w*", name, re.ASCII) is not None


def build_extractor(
    name: str,
    dataset: Dataset,
    *,
    weights: str = "",
    code: Path | None = None,
    cache: Path | None = None,
) -> Extractor:
    """The extractor `name` (or `auto`) for `dataset`, on the CPU, ready to use.

    The classifier is trained on the training split at the first call (about 10 s on one core); the same data
    gives the same weights on the same kind of processor.

    Args:
        weights: file of Inception's weights; empty = use the cache, or download it.
        code: folder with the file of a custom extractor (see `CustomExtractor`); None = the current one.
        cache: folder below which weights are cached; None = `files.cache_root()`.

    Raises:
        EvaluatorError: as for `resolve_extractor`; or Inception's weights are missing, unreadable or of
            another network; or the custom extractor does not work.
    """
    chosen = resolve_extractor(name, dataset)
    if weights and chosen != "inception":
        raise EvaluatorError(
            f"the weights file {{seen}} cannot be used with the {chosen} extractor",
            rule="only the inception extractor takes one",
            seen=weights,
            fix="add --extractor inception, or leave --extractor-weights out",
        )
    folder = extractor_dir(cache)
    if chosen == "classifier":
        net = classifier.load_classifier(dataset, folder)
        return _NetExtractor("classifier", net, classifier.VERSION, classifier.DIM)
    if chosen == "inception":
        return _NetExtractor("inception", load_inception(weights, folder), "inception-tf2015-2048-1", 2048)
    if chosen == "pixels":
        return PixelExtractor(dataset.size, dataset.channels)
    return CustomExtractor(chosen, _read_custom_file(chosen, code), torch.from_numpy(dataset.train[:4]))


class PixelExtractor:
    """Images shrunk by area averaging to at most 8x8, as C*8*8 values in [0, 1]; needs no weights, no labels.

    A fallback that distinguishes colour, layout and coarse shape only.
    """

    name = "pixels"

    def __init__(self, size: int, channels: int) -> None:
        self.side = min(size, 8)
        self.dim = self.side * self.side * channels
        self.hash = hashlib.sha256(f"pixels-1 {self.side} {channels}".encode()).hexdigest()[:16]

    def __call__(self, images: Tensor) -> Tensor:
        def shrink(block: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(_nchw(block) / 255, self.side).flatten(1)

        return torch.cat([shrink(block) for block in torch.split(images, 1000)])

    def to(self, device: torch.device | str) -> Self:
        return self  # no weights: it computes on the device of the images


class _NetExtractor:
    """A frozen network as an extractor; `version` identifies its architecture in the hash."""

    def __init__(self, name: str, net: nn.Module, version: str, dim: int) -> None:
        self.name, self.dim, self.version = name, dim, version
        self.net = net.eval().requires_grad_(False)
        self.hash = _hash(version, net.state_dict())
        self.block = 50 if name == "inception" else 500  # bounds the memory of one forward pass on a CPU

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        with full_float32(device):
            return _in_blocks(
                lambda block: self._forward(block.to(device)), images, self._blocks(device, images)
            )

    def _blocks(self, device: torch.device, images: Tensor) -> tuple[int, ...]:
        if device.type != "cuda":
            return (self.block,)
        if self.name == "inception":
            return 250, self.block
        # Bounded by the memory of the first layer's activations.
        fitting = 2_000 * 32 * 32 // (images.shape[1] * images.shape[2])
        return max(self.block, min(2_000, fitting)), self.block

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
    an image must not depend on the rest of its batch. It is pickled as the bytes of its file and its weights.

    Args:
        name: `module:function`. content: bytes of the file `module.py`.
        images: uint8 (n,H,W,C), a few training images to try it on.
    """

    def __init__(self, name: str, content: bytes, images: Tensor) -> None:
        self.name, self._content, self._images = name, content, images
        self._extract = self._make()
        self.hash = self._compute_hash()
        self.dim = self._check()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        blocks = (500, 250) if images.device.type == "cuda" else (250,)
        with full_float32(images.device):
            return _in_blocks(lambda block: self._extract(block).float(), images, blocks)

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        if isinstance(self._extract, nn.Module):
            moved._extract = copy.deepcopy(self._extract).to(device)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_extract": self._weights()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._extract = self._make()
        if isinstance(self._extract, nn.Module):
            self._extract.load_state_dict(state["_extract"])
        if self._compute_hash() != self.hash:
            raise EvaluatorError(
                "the extractor {seen} has other weights here",
                rule="it must be the same on every machine",
                seen=self.name,
                fix="give it a fixed seed",
            )

    def _make(self) -> Any:
        module, _, function = self.name.partition(":")
        loaded = ModuleType(f"_gansweep_extractor_{module}")
        size, channels = self._images.shape[2:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                exec(compile(self._content, f"{module}.py", "exec"), vars(loaded))
                made = getattr(loaded, function)(size, channels)
            except Exception as error:
                raise _custom_error(self.name, f"{type(error).__name__}: {error}") from error
        return made.eval().requires_grad_(False) if isinstance(made, nn.Module) else made

    def _weights(self) -> dict[str, Tensor]:
        return self._extract.cpu().state_dict() if isinstance(self._extract, nn.Module) else {}

    def _compute_hash(self) -> str:
        digest = hashlib.sha256(self._content).hexdigest()
        return _hash(f"own-1 {self.name} {digest} {tuple(self._images.shape[1:])}", self._weights())

    def _check(self) -> int:
        """Try it on the images; returns the length of its feature vectors."""
        try:
            found, one = self(self._images), self(self._images[:1])
        except Exception as error:
            raise _custom_error(self.name, f"{type(error).__name__}: {error}") from error
        if found.ndim != 2 or len(found) != len(self._images):
            raise _custom_error(
                self.name, f"returned shape {tuple(found.shape)} for {len(self._images)} images"
            )
        if not (found.isfinite().all() and torch.allclose(found[:1], one, rtol=1e-4, atol=1e-5)):
            raise _custom_error(self.name, "returned other features for the same image, or values not finite")
        return int(found.shape[1])


def _read_custom_file(name: str, code: Path | None) -> bytes:
    file = f"{name.partition(':')[0]}.py"
    try:
        return ((code or Path.cwd()) / file).read_bytes()
    except OSError as error:
        raise _custom_error(name, f"{error.filename}: {error.strerror}") from error


def _custom_error(name: str, problem: str) -> EvaluatorError:
    return EvaluatorError(
        f"the extractor {name} does not work",
        rule="it must be function(size, channels) -> (uint8 (N,H,W,C) -> float (N,d)), beside the space",
        seen=problem,
        fix=f"correct {name.partition(':')[0]}.py",
    )


def _in_blocks(extract: Callable[[Tensor], Tensor], images: Tensor, sizes: Sequence[int]) -> Tensor:
    """`extract` on blocks of `images` (N,...), of the first size for which the memory suffices: (N,d)."""
    *larger, last = sizes
    for size in larger:
        with suppress(torch.OutOfMemoryError):
            return torch.cat([extract(block) for block in torch.split(images, size)])
    return torch.cat([extract(block) for block in torch.split(images, last)])


def _nchw(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float()


def _hash(version: str, state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(version.encode())
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
