"""Networks of the user's own: `architecture = "module:function"`, a file beside the space.

Owns: finding, copying, loading and checking that file. Refuses: any folder but the one that `use_code`
named. Loading runs the user's code, so only a sweep that the user starts or resumes calls `use_code`.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import TrialConfig
from pipeline.errors import ConfigError, nearest
from pipeline.storage.files import write_bytes
from pipeline.training.networks.blocks import Discriminator, Generator, ImageShape

Maker = Callable[[TrialConfig, ImageShape], tuple[nn.Module, nn.Module]]
"""function(config, shape) -> (G, D), freshly initialised from torch's global random state.

Unconditional: G(z (N,Z)) -> (N,C,H,W) in [-1, 1], D(images (N,C,H,W)) -> logits (N,).
With config.conditional: G(z, labels (N,) int64) and D(images, labels).
"""

_trusted: Path | None = None
_modules: dict[str, ModuleType] = {}  # by SHA-256 of the file: one load per process and content


class CustomGenerator(Generator):
    """The frame of `Generator` around a user's G, which bounds its images itself."""

    def __init__(self, body: nn.Module, *, z_dim: int, classes: int) -> None:
        super().__init__(body, z_dim=z_dim, classes=classes, embed=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.body(z, labels) if self.classes else self.body(z)
        return images


class CustomDiscriminator(Discriminator):
    """The frame of `Discriminator` around a user's D, which has a head of its own."""

    def __init__(self, body: nn.Module, *, classes: int) -> None:
        nn.Module.__init__(self)
        self.body, self.classes = body, classes

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.body(images, labels) if self.classes else self.body(images)
        return logits


def is_custom(architecture: str) -> bool:
    """Whether an architecture is `module:function` rather than a family's name."""
    return ":" in architecture


def use_code(folder: Path | None) -> None:
    """Let this process run the files of `folder` that architectures name; None = of no folder."""
    global _trusted
    _trusted = folder


def hashes(architectures: Iterable[str], folder: Path | None) -> dict[str, str]:
    """Module -> SHA-256 of its file in `folder`, for those architectures that are the user's own.

    Raises:
        ConfigError: a file is not there.
    """
    modules = sorted({name.partition(":")[0] for name in architectures if is_custom(name)})
    return {module: _digest(_read(module, folder)) for module in modules}


def copy_code(modules: Mapping[str, str], source: Path, target: Path) -> None:
    """Copy the files of `modules` (from `hashes`) into `target`, where they still have these hashes."""
    target.mkdir(exist_ok=True)
    for module, expected in modules.items():
        content = _read(module, source)
        if _digest(content) != expected:
            raise ConfigError("networks stay as they were checked", seen=f"{module}.py", fix="start again")
        write_bytes(target / f"{module}.py", content)


def build_custom(config: TrialConfig, shape: ImageShape, classes: int) -> tuple[Generator, Discriminator]:
    """Call the user's function and frame what it gives.

    Raises:
        ConfigError: in one line, what went wrong and where in the user's file.
    """
    name = config.architecture
    module, _, function = name.partition(":")
    maker = _function(_load(module), module, function)
    told = replace(shape, classes=classes)
    made = _told(f"{name} makes networks", module, lambda: maker(config, told))
    if not isinstance(made, tuple) or len(made) != 2 or not all(isinstance(n, nn.Module) for n in made):
        raise ConfigError(
            f"{name} returns (G, D), two torch modules",
            seen=_kind(made),
            fix="end it with: return generator, discriminator",
        )
    return CustomGenerator(made[0], z_dim=config.z_dim, classes=classes), CustomDiscriminator(
        made[1], classes=classes
    )


@torch.no_grad()
def check_shapes(generator: Generator, discriminator: Discriminator, name: str, shape: ImageShape) -> None:
    """Pass two images through a pair of the user's and look at what comes out.

    Raises:
        ConfigError: another shape or range, not finite, no weights, or an exception of the user's code.
    """
    module = name.partition(":")[0]
    classes = generator.classes
    labels = torch.arange(2) % classes if classes else None
    z = torch.randn(2, generator.z_dim)
    images = _told(f"{name}: G draws from z (2,{generator.z_dim})", module, lambda: generator(z, labels))
    expected = (2, shape.channels, shape.size, shape.size)
    _shaped(images, expected, f"{name}: G draws {expected}", f"build for shape.size = {shape.size}")
    low, high = images.aminmax()
    if not (low >= -1 and high <= 1):  # also refuses NaN
        seen = f"values in [{low:.3g}, {high:.3g}]"
        raise ConfigError(f"{name}: G's images lie in [-1, 1]", seen=seen, fix="end G with nn.Tanh()")
    scores = _told(
        f"{name}: D judges images {expected}", module, lambda: discriminator(images.float(), labels)
    )
    _shaped(scores, (2,), f"{name}: D gives one logit per image, (2,)", "end D with nn.Flatten(0)")
    if not scores.isfinite().all():
        raise ConfigError(f"{name}: D's logits are finite", seen=scores.tolist(), fix="look at its weights")
    for who, network in (("G", generator), ("D", discriminator)):
        if not any(p.requires_grad for p in network.parameters()):
            raise ConfigError(f"{name}: {who} has weights to train", seen="none", fix="register its layers")


def _shaped(value: Any, expected: tuple[int, ...], rule: str, fix: str) -> None:
    if not isinstance(value, Tensor) or tuple(value.shape) != expected or not value.is_floating_point():
        raise ConfigError(rule, seen=_kind(value), fix=fix)


def _read(module: str, folder: Path | None) -> bytes:
    if folder is None:
        raise ConfigError(
            "networks of one's own are run by `run` and `resume` only",
            seen=f"{module}.py",
            fix="finish the sweep: its champion needs no code",
        )
    path = folder / f"{module}.py"
    try:
        return path.read_bytes()
    except OSError as error:
        there = [file.stem for file in sorted(folder.glob("*.py"))]
        raise ConfigError(
            "networks of one's own stand in a file beside the space",
            seen=f"{path}: {error.strerror}",
            fix=nearest(module, there) if there else f"put {module}.py beside a space of your own",
        ) from error


def _load(module: str) -> ModuleType:
    content = _read(module, _trusted)
    key = _digest(content)
    if key not in _modules:
        # exactly the bytes that were hashed, under a name that shadows nothing, with no bytecode on disk
        private = ModuleType(f"_gansweep_own_{module}_{key[:16]}")
        private.__file__ = f"{_trusted}/{module}.py"
        sys.modules[private.__name__] = private  # dataclasses and pickling look there
        rule = f"{module}.py can be imported"
        _told(rule, module, lambda: exec(compile(content, private.__file__ or "", "exec"), vars(private)))
        _modules[key] = private
    return _modules[key]


def _function(loaded: ModuleType, module: str, function: str) -> Maker:
    found = getattr(loaded, function, None)
    if not callable(found):
        there = [n for n, v in vars(loaded).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(
            f"{module}.py has the function that architecture names",
            seen=function,
            fix=nearest(function, there) if there else f"add def {function}(config, shape)",
        )
    made: Maker = found
    return made


def _told(rule: str, module: str, act: Callable[[], Any]) -> Any:
    """Run the user's code; what it raises becomes one line that says where."""
    try:
        return act()
    except ConfigError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename.endswith(f"/{module}.py")]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        text = " ".join(str(error).split())
        raise ConfigError(
            rule, seen=f"{type(error).__name__}: {text}", fix=f"correct {module}.py{where}"
        ) from error


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(item).__name__ for item in value) or 'nothing'}"
    return type(value).__name__


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
