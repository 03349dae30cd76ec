"""Extractors: what a distance between sets of images looks at.

Owns: the extractors (`classifier`, `inception`, `pixels`, the user's own), which of them suits a data set,
their weights on disk and their hash. Refuses: distances and statistics (`pipeline.metrics.frechet`).

Two distances compare only if their extractors agree to the bit, so `hash` covers the architecture's
version and every weight. All arithmetic is float32 without TF32 or autocast, in blocks whose size a CPU
never changes; a GPU takes larger ones, and its features differ from a CPU's by rounding.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import re
import shutil
import urllib.request
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
from pipeline.metrics.precision import exact
from pipeline.storage.files import cache_root, replacing

log = logging.getLogger(__name__)

NAMES = ("classifier", "inception", "pixels")
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
OWN = "module:function"


class Extractor(Protocol):
    """Images to features.

    name: one of `NAMES`, or `module:function`. hash: 16 hex over architecture and weights, or over the bytes
    of the user's file and its weights. dim: length of a feature vector.
    """

    name: str
    hash: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N,H,W,C) on any device to float32 (N,dim) on the extractor's device."""

    def to(self, device: torch.device | str) -> Self:
        """A copy on `device`."""


def resolve_extractor(name: str, dataset: Dataset) -> str:
    """The extractor that `name` means for `dataset`; `auto` looks at the data alone, never at the network.

    Raises:
        EvaluatorError: the name is unknown, or a classifier is asked for unlabelled images.
    """
    if name == "auto":
        small_grey = dataset.channels == 1 and dataset.size <= 32
        return "classifier" if dataset.labelled and small_grey else "inception"
    if is_custom_extractor(name):
        return name
    if name in ("clip", "dinov2"):
        raise EvaluatorError(
            "clip and dinov2 come as a function of yours, with your weights",  # neither loads without pickle
            seen=name,
            fix="write --extractor module:function, which returns that network",
        )
    if name not in NAMES:
        known = ("auto", *NAMES, OWN)
        raise EvaluatorError(f"extractor is one of {', '.join(known)}", seen=name, fix=nearest(name, known))
    if name == "classifier" and not dataset.labelled:
        raise EvaluatorError(
            "the classifier extractor needs labelled images",
            seen=f"{dataset.source} without labels",
            fix="use --extractor pixels, or --extractor inception",
        )
    return name


def is_custom_extractor(name: str) -> bool:
    """Whether an extractor is the user's own."""
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

    The classifier is trained on the training split at the first call (about 10 s on one core) and kept
    below `cache` (None: `files.cache_root()`); the same data gives the same weights on the same kind of
    processor. code: the folder with the file of an extractor `module:function` (see `OwnExtractor`).

    Raises:
        EvaluatorError: as `resolve`; or Inception's weights are missing, unreadable, of another network;
            or the user's own extractor cannot be had.
    """
    chosen = resolve_extractor(name, dataset)
    if weights and chosen != "inception":
        raise EvaluatorError(
            "a weights file belongs to the inception extractor", seen=f"{weights} for {chosen}",
            fix="add --extractor inception, or leave --extractor-weights out",
        )  # fmt: skip
    folder = (cache_root() if cache is None else cache) / "extractors"
    if chosen == "classifier":
        net = classifier.load_classifier(dataset, folder)
        return _NetExtractor("classifier", net, classifier.VERSION, classifier.DIM)
    if chosen == "inception":
        return _NetExtractor("inception", _inception(weights, folder), "inception-tf2015-2048-1", 2048)
    if chosen == "pixels":
        return PixelExtractor(dataset.size, dataset.channels)
    return CustomExtractor(chosen, _own_file(chosen, code), torch.from_numpy(dataset.train[:4]))


class PixelExtractor:
    """Images shrunk by area to at most 8x8, as C*8*8 values in [0, 1]: needs no weights and no labels.

    It sees colour, layout and coarse shape, no more: a fallback, honest but blunt.
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
        return self  # no weights: it works where the images are


class _NetExtractor:
    """A frozen network as an extractor."""

    def __init__(self, name: str, net: nn.Module, version: str, dim: int) -> None:
        self.name, self.dim, self.version = name, dim, version
        self.net = net.eval().requires_grad_(False)
        self.hash = _hash(version, net.state_dict())
        self.block = 50 if name == "inception" else 500  # bounds the memory of one forward pass on a CPU

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        with exact(device):
            return _in_blocks(
                lambda block: self._forward(block.to(device)), images, self._blocks(device, images)
            )

    def _blocks(self, device: torch.device, images: Tensor) -> tuple[int, ...]:
        if device.type != "cuda":
            return (self.block,)
        if self.name == "inception":
            return 250, self.block
        of_memory = 2_000 * 32 * 32 // (images.shape[1] * images.shape[2])  # of the first layer's activations
        return max(self.block, min(2_000, of_memory)), self.block

    def _forward(self, images: Tensor) -> Tensor:
        # Very small batches take other matrix kernels, which round otherwise: fill them up.
        filler = images[:1].expand(max(0, 16 - len(images)), -1, -1, -1)
        return self.net(torch.cat([images, filler]))[: len(images)]  # type: ignore[no-any-return]

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        moved.net = copy.deepcopy(self.net).to(device)
        return moved


class CustomExtractor:
    """What `function(size, channels)` of the user's file makes: images uint8 (N,H,W,C) -> float (N,d).

    A torch module or any callable, on whatever device the images are; an image's features must not depend
    on its neighbours. To another machine it travels as the bytes of its file and its weights.
    """

    def __init__(self, name: str, content: bytes, images: Tensor) -> None:
        self.name, self._content, self._images = name, content, images
        self._act = self._make()
        self.hash = self._identity()
        self.dim = self._try()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        blocks = (500, 250) if images.device.type == "cuda" else (250,)
        with exact(images.device):
            return _in_blocks(lambda block: self._act(block).float(), images, blocks)

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        if isinstance(self._act, nn.Module):
            moved._act = copy.deepcopy(self._act).to(device)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_act": self._weights()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._act = self._make()
        if isinstance(self._act, nn.Module):
            self._act.load_state_dict(state["_act"])
        if self._identity() != self.hash:
            raise EvaluatorError(
                f"{self.name} is the same on every machine", seen="other weights", fix="give it one seed"
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
                raise _own_refused(self.name, f"{type(error).__name__}: {error}") from error
        return made.eval().requires_grad_(False) if isinstance(made, nn.Module) else made

    def _weights(self) -> dict[str, Tensor]:
        return self._act.cpu().state_dict() if isinstance(self._act, nn.Module) else {}

    def _identity(self) -> str:
        digest = hashlib.sha256(self._content).hexdigest()
        return _hash(f"own-1 {self.name} {digest} {tuple(self._images.shape[1:])}", self._weights())

    def _try(self) -> int:
        """The length of its feature vectors, if they are such."""
        try:
            found, one = self(self._images), self(self._images[:1])
        except Exception as error:
            raise _own_refused(self.name, f"{type(error).__name__}: {error}") from error
        if found.ndim != 2 or len(found) != len(self._images):
            raise _own_refused(self.name, f"shape {tuple(found.shape)} for {len(self._images)} images")
        if not (found.isfinite().all() and torch.allclose(found[:1], one, rtol=1e-4, atol=1e-5)):
            raise _own_refused(self.name, "other features for the same image, or ones that are not finite")
        return int(found.shape[1])


def _own_file(name: str, code: Path | None) -> bytes:
    file = f"{name.partition(':')[0]}.py"
    try:
        return ((code or Path.cwd()) / file).read_bytes()
    except OSError as error:
        raise _own_refused(name, f"{error.filename}: {error.strerror}") from error


def _own_refused(name: str, seen: str) -> EvaluatorError:
    return EvaluatorError(
        f"{name} is function(size, channels) -> (uint8 (N,H,W,C) -> float (N,d)), in a file beside the space",
        seen=seen,
        fix=f"correct {name.partition(':')[0]}.py",
    )


class _Inception(nn.Module):
    """torch-fidelity's Inception of 2015-12-05 (the network of published FIDs), layer 2048."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # Its constructor insists on a file and would unpickle it; it gets a clean copy in memory instead.
        clean = io.BytesIO()
        torch.save(state, clean)
        clean.seek(0)
        net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=clean)
        self.net = net.to(memory_format=torch.channels_last)  # 1.6 times as fast on a CPU

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1))[0]
        return features


def _inception(weights: str, folder: Path) -> nn.Module:
    path = Path(weights) if weights else _stored_inception(folder)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        return _Inception(state)
    except Exception as error:
        raise EvaluatorError(
            "Inception's weights are the file that torch-fidelity publishes",
            seen=f"{path} ({type(error).__name__})",
            fix=f"give --extractor-weights the file {INCEPTION_FILE}",
        ) from error


def _stored_inception(folder: Path) -> Path:
    """The weights in our cache or torch's; failing both, one download."""
    for stored in (folder / INCEPTION_FILE, Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE):
        if stored.is_file():
            return stored
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3 as url

    stored = folder / INCEPTION_FILE
    log.info(f"downloading {INCEPTION_FILE} (90 MB, once)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            replacing(stored) as temporary,
            urllib.request.urlopen(url, timeout=20) as answer,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise EvaluatorError(
            "the inception extractor needs its weights", seen=f"no file, and no download ({error})",
            fix=f"give --extractor-weights FILE ({INCEPTION_FILE}), or use --extractor pixels, "
            "or --extractor classifier where the images are labelled",
        ) from error  # fmt: skip
    return stored


def _in_blocks(act: Callable[[Tensor], Tensor], images: Tensor, sizes: Sequence[int]) -> Tensor:
    """`act` on blocks of `images` (N,...), in the first of the sizes that memory is enough for: (N,d)."""
    *larger, last = sizes
    for size in larger:
        with suppress(torch.OutOfMemoryError):
            return torch.cat([act(block) for block in torch.split(images, size)])
    return torch.cat([act(block) for block in torch.split(images, last)])


def _nchw(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float()


def _hash(version: str, state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(version.encode())
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
