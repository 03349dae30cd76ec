"""Extractors: what a distance between sets of images looks at.

Owns: the three extractors (`classifier`, `inception`, `pixels`), which of them suits a data set, their
weights on disk and their hash. Refuses: distances and statistics (`pipeline.fid`).

Two distances compare only if their extractors agree to the bit, so `hash` covers the architecture's
version and every weight. All arithmetic is float32 without TF32 or autocast, in blocks of a fixed size.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data import Dataset, cache_root
from pipeline.errors import EvaluatorError, nearest

NAMES = ("classifier", "inception", "pixels")
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"

# The classifier's recipe. Change a number, raise the version: old caches and hashes then stand apart.
_CLASSIFIER_VERSION = "classifier-1"
_WIDTHS = (32, 64, 96)
_DIM = 64
_STEPS, _BATCH, _LEARNING_RATE, _DROPOUT = 700, 64, 3e-3, 0.5
_TOTAL_VARIANCE = 100.0


class Extractor(Protocol):
    """Images to features.

    name: one of `NAMES`. hash: 16 hex over architecture and weights. dim: length of a feature vector.
    """

    name: str
    hash: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N,H,W,C) on any device to float32 (N,dim) on the extractor's device."""

    def to(self, device: torch.device | str) -> Self:
        """A copy on `device`."""


def resolve(name: str, dataset: Dataset) -> str:
    """The extractor that `name` means for `dataset`; `auto` looks at the data alone, never at the network.

    Raises:
        EvaluatorError: the name is unknown, or a classifier is asked for unlabelled images.
    """
    if name == "auto":
        small_grey = dataset.channels == 1 and dataset.size <= 32
        return "classifier" if dataset.labelled and small_grey else "inception"
    if name not in NAMES:
        known = ("auto", *NAMES)
        raise EvaluatorError(f"extractor is one of {', '.join(known)}", seen=name, fix=nearest(name, known))
    if name == "classifier" and not dataset.labelled:
        raise EvaluatorError(
            "the classifier extractor needs labelled images",
            seen=f"{dataset.source} without labels",
            fix="use --extractor pixels, or --extractor inception",
        )
    return name


def build(
    name: str,
    dataset: Dataset,
    *,
    weights: str = "",
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Extractor:
    """The extractor `name` (or `auto`) for `dataset`, on the CPU, ready to use.

    The classifier is trained on the training split at the first call (about 10 s on one core) and kept
    below `cache` (None: `data.cache_root()`); the same data gives the same weights on the same kind of
    processor.

    Raises:
        EvaluatorError: as `resolve`; or Inception's weights are missing, unreadable, of another network.
    """
    chosen = resolve(name, dataset)
    if weights and chosen != "inception":
        raise EvaluatorError(
            "a weights file belongs to the inception extractor", seen=f"{weights} for {chosen}",
            fix="add --extractor inception, or leave --extractor-weights out",
        )  # fmt: skip
    folder = (cache_root() if cache is None else cache) / "extractors"
    if chosen == "classifier":
        return _NetExtractor("classifier", _classifier(dataset, folder, say), _CLASSIFIER_VERSION, _DIM)
    if chosen == "inception":
        return _NetExtractor("inception", _inception(weights, folder, say), "inception-tf2015-2048-1", 2048)
    return PixelExtractor(dataset.size, dataset.channels)


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
        self.block = 50 if name == "inception" else 500  # bounds the memory of one forward pass

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        with _exact(device):
            return torch.cat([self._forward(block.to(device)) for block in torch.split(images, self.block)])

    def _forward(self, images: Tensor) -> Tensor:
        # Very small batches take other matrix kernels, which round otherwise: fill them up.
        filler = images[:1].expand(max(0, 16 - len(images)), -1, -1, -1)
        return self.net(torch.cat([images, filler]))[: len(images)]  # type: ignore[no-any-return]

    def to(self, device: torch.device | str) -> Self:
        moved = copy.copy(self)
        moved.net = copy.deepcopy(self.net).to(device)
        return moved


class _DigitNet(nn.Module):
    """A small strided CNN; its features are the activations before the class layer.

    No batch normalisation, so an image's features never depend on its neighbours. They are scaled to a
    total variance of 100 over the training reals: 100 is then about the distance of a constant image.
    """

    scale: Tensor

    def __init__(self, size: int, channels: int, classes: int) -> None:
        super().__init__()
        halvings = max(0, (size - 1).bit_length() - 2)  # as many as bring the image to 4x4 or less
        stages = max(len(_WIDTHS), halvings)
        layers: list[nn.Module] = []
        for stage in range(stages):
            width = _WIDTHS[min(stage, len(_WIDTHS) - 1)]
            kernel, stride = (5 if stage == 0 else 3), (2 if stage >= stages - halvings else 1)
            layers += [nn.Conv2d(channels, width, kernel, stride, kernel // 2), nn.LeakyReLU(0.1)]
            channels = width
        self.stages = nn.Sequential(*layers)
        side = -(-size // 2**halvings)
        self.features = nn.Linear(channels * side * side, _DIM)
        self.classes = nn.Linear(_DIM, classes)
        self.register_buffer("scale", torch.ones(()))

    def hidden(self, images: Tensor) -> Tensor:
        """float32 (N,C,H,W) in [-1,1] to the unscaled features (N,64)."""
        return F.leaky_relu(self.features(self.stages(images).flatten(1)), 0.1)

    def forward(self, images: Tensor) -> Tensor:
        return self.hidden(_nchw(images) / 127.5 - 1) * self.scale


class _Inception(nn.Module):
    """torch-fidelity's Inception of 2015-12-05 (the network of published FIDs), layer 2048."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # Its constructor insists on a file and would unpickle it; it gets a clean copy in memory instead.
        clean = io.BytesIO()
        torch.save(state, clean)
        clean.seek(0)
        self.net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=clean)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1))[0]
        return features


def _classifier(dataset: Dataset, folder: Path, say: Callable[[str], None]) -> nn.Module:
    path = folder / f"{_CLASSIFIER_VERSION}-{dataset.fingerprint}.pt"
    with torch.random.fork_rng(devices=[]):
        net = _DigitNet(dataset.size, dataset.channels, len(dataset.classes))
    with suppress(Exception):  # missing, damaged or of another shape: all are mended by training anew
        net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        return net.to(memory_format=torch.channels_last)
    say(f"training the classifier that measures {dataset.source} (once)")
    net = _train_classifier(dataset)
    try:
        with replacing(path) as temporary:
            torch.save(net.state_dict(), temporary)
    except OSError as error:  # a full or read-only disk costs the next start some seconds, nothing else
        say(f"the classifier is not cached: {error}")
    return net


def _train_classifier(dataset: Dataset) -> _DigitNet:
    """Train on the training split: one thread, one seed, on the CPU, whatever the caller has set."""
    assert dataset.train_labels is not None
    images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    rng = torch.Generator().manual_seed(0)
    with _one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        net = _DigitNet(dataset.size, dataset.channels, len(dataset.classes))
        net = net.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), _LEARNING_RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=_STEPS)
        for picked in _batches(len(images), rng):
            hidden = net.hidden(_jitter(_nchw(images[picked]) / 127.5 - 1, rng))
            loss = F.cross_entropy(net.classes(F.dropout(hidden, _DROPOUT)), labels[picked])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            hidden = torch.cat([net(block) for block in torch.split(images[:10_000], 500)]).double()
        net.scale.fill_((_TOTAL_VARIANCE / hidden.var(0).sum().clamp(min=1e-12)).sqrt())
    return net


def _batches(count: int, rng: torch.Generator) -> Iterator[Tensor]:
    """`_STEPS` batches of indices, without replacement within an epoch."""
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(_STEPS):
        while len(queue) < _BATCH:
            queue = torch.cat([queue, torch.randperm(count, generator=rng)])
        picked, queue = queue[:_BATCH], queue[_BATCH:]
        yield picked


def _jitter(images: Tensor, rng: torch.Generator) -> Tensor:
    """Small rotations, scalings and shifts: features that generalise beyond the training images."""
    count = len(images)
    angle, zoom_x, zoom_y, shift_x, shift_y = torch.rand(5, count, generator=rng) * 2 - 1
    angle, zoom_x, zoom_y = 0.2 * angle, 1 + 0.12 * zoom_x, 1 + 0.12 * zoom_y
    row_x = [angle.cos() * zoom_x, -angle.sin(), 0.15 * shift_x]
    row_y = [angle.sin(), angle.cos() * zoom_y, 0.15 * shift_y]
    affine = torch.stack(row_x + row_y, 1).view(count, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _inception(weights: str, folder: Path, say: Callable[[str], None]) -> nn.Module:
    path = Path(weights) if weights else _stored_inception(folder, say)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        return _Inception(state)
    except Exception as error:
        raise EvaluatorError(
            "Inception's weights are the file that torch-fidelity publishes",
            seen=f"{path} ({type(error).__name__})",
            fix=f"give --extractor-weights the file {INCEPTION_FILE}",
        ) from error


def _stored_inception(folder: Path, say: Callable[[str], None]) -> Path:
    """The weights in our cache or torch's; failing both, one download."""
    for stored in (folder / INCEPTION_FILE, Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE):
        if stored.is_file():
            return stored
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3 as url

    say(f"downloading {INCEPTION_FILE} (90 MB, once)")
    try:
        with urllib.request.urlopen(url, timeout=20) as answer, replacing(stored) as temporary:
            shutil.copyfileobj(answer, temporary)
    except OSError as error:
        raise EvaluatorError(
            "the inception extractor needs its weights", seen=f"no file, and no download ({error})",
            fix=f"give --extractor-weights FILE ({INCEPTION_FILE}), or use --extractor pixels, "
            "or --extractor classifier where the images are labelled",
        ) from error  # fmt: skip
    return stored


@contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """An open binary file that takes `path`'s place only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        try:
            yield temporary
            temporary.close()
            os.replace(temporary.name, path)
        finally:
            Path(temporary.name).unlink(missing_ok=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums split over threads differ in their last bits; the weights' hash must not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Full float32, whatever the trainer has switched on around us."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False), torch.backends.cudnn.flags(True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _nchw(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float()


def _hash(version: str, state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(version.encode())
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
