"""Custom networks: `architecture = "module:function"`, from a Python file beside the space.

Responsible for finding, copying, loading and checking that file. Loading runs the user's code: only files in
the folder given to `use_code` are loaded, and only a sweep that the user starts or resumes calls it.
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
"""function(config, shape) -> (G, D), initialised from torch's global random state.

Unconditional: G(z (N,Z)) -> (N,C,H,W) in [-1, 1], D(images (N,C,H,W)) -> logits (N,).
With config.conditional: G(z, labels (N,) int64) and D(images, labels).
"""

_code_folder: Path | None = None
_modules: dict[str, ModuleType] = {}  # by SHA-256 of the file: each content is loaded once per process


class CustomGenerator(Generator):
    """The interface of `Generator` for a custom G, which bounds its images itself."""

    def __init__(self, body: nn.Module, *, z_dim: int, classes: int) -> None:
        super().__init__(body, z_dim=z_dim, classes=classes, embed=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.body(z, labels) if self.classes else self.body(z)
        return images


class CustomDiscriminator(Discriminator):
    """The interface of `Discriminator` for a custom D, which has its own head."""

    def __init__(self, body: nn.Module, *, classes: int) -> None:
        nn.Module.__init__(self)
        self.body, self.classes = body, classes

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.body(images, labels) if self.classes else self.body(images)
        return logits


def is_custom(architecture: str) -> bool:
    """Whether an architecture is `module:function` rather than a built-in name."""
    return ":" in architecture


def use_code(folder: Path | None) -> None:
    """Allow this process to run the files in `folder` that architectures name; None = no files."""
    global _code_folder
    _code_folder = folder


def code_hashes(architectures: Iterable[str], folder: Path | None) -> dict[str, str]:
    """Module -> SHA-256 of its file in `folder`, for the custom ones of `architectures`.

    Raises:
        ConfigError: a file cannot be read.
    """
    modules = sorted({name.partition(":")[0] for name in architectures if is_custom(name)})
    return {module: _digest(_read(module, folder)) for module in modules}


def copy_code(modules: Mapping[str, str], source: Path, target: Path) -> None:
    """Copy the files of `modules` (from `code_hashes`) from `source` to `target`.

    Raises:
        ConfigError: a file cannot be read, or has changed since it was hashed.
    """
    target.mkdir(exist_ok=True)
    for module, expected in modules.items():
        content = _read(module, source)
        if _digest(content) != expected:
            raise ConfigError(
                "{seen} has changed during the start",
                rule="networks must stay as they were checked",
                seen=f"{module}.py",
                fix="start again",
            )
        write_bytes(target / f"{module}.py", content)


def build_custom(config: TrialConfig, shape: ImageShape, classes: int) -> tuple[Generator, Discriminator]:
    """Call the user's function and wrap the two networks that it returns.

    classes: number of classes; 0 = unconditional.

    Raises:
        ConfigError: with the error and the line in the user's file.
    """
    name = config.architecture
    module, _, function = name.partition(":")
    maker = _function(_load(module), module, function)
    given = replace(shape, classes=classes)
    made = _run_user_code(f"{name} fails", module, lambda: maker(config, given))
    if not isinstance(made, tuple) or len(made) != 2 or not all(isinstance(n, nn.Module) for n in made):
        raise ConfigError(
            f"{name} returned {{seen}}",
            rule="it must return (G, D), two torch modules",
            seen=_describe(made),
            fix="end it with: return generator, discriminator",
        )
    return CustomGenerator(made[0], z_dim=config.z_dim, classes=classes), CustomDiscriminator(
        made[1], classes=classes
    )


@torch.no_grad()
def check_shapes(generator: Generator, discriminator: Discriminator, name: str, shape: ImageShape) -> None:
    """Run custom networks on two images and check the outputs.

    name: `module:function`, for the messages.

    Raises:
        ConfigError: a wrong shape, type or range, values not finite, no weights, or an exception in the
            user's code.
    """
    module = name.partition(":")[0]
    classes = generator.classes
    labels = torch.arange(2) % classes if classes else None
    z = torch.randn(2, generator.z_dim)
    problem = f"{name}: G fails for z of shape (2, {generator.z_dim})"
    images = _run_user_code(problem, module, lambda: generator(z, labels))
    expected = (2, shape.channels, shape.size, shape.size)
    _check_shape(images, expected, f"{name}: G", f"build it for shape.size = {shape.size}")
    low, high = images.aminmax()
    if not (low >= -1 and high <= 1):  # also refuses NaN
        raise ConfigError(
            f"{name}: G's images have values in {{seen}}",
            rule="they must lie in [-1, 1]",
            seen=f"[{low:.3g}, {high:.3g}]",
            fix="end G with nn.Tanh()",
        )
    problem = f"{name}: D fails for images of shape {expected}"
    scores = _run_user_code(problem, module, lambda: discriminator(images.float(), labels))
    _check_shape(scores, (2,), f"{name}: D", "give one logit per image: end D with nn.Flatten(0)")
    if not scores.isfinite().all():
        raise ConfigError(
            f"{name}: D's logits are {{seen}}",
            rule="they must be finite",
            seen=scores.tolist(),
            fix="check its weights",
        )
    for letter, network in (("G", generator), ("D", discriminator)):
        if not any(p.requires_grad for p in network.parameters()):
            raise ConfigError(f"{name}: {letter} has no weights to train", fix="register its layers")


def _check_shape(output: Any, expected: tuple[int, ...], network: str, fix: str) -> None:
    if not isinstance(output, Tensor) or tuple(output.shape) != expected or not output.is_floating_point():
        raise ConfigError(
            f"{network} returned {{seen}}",
            rule=f"two images need a float tensor of shape {expected}",
            seen=_describe(output),
            fix=fix,
        )


def _read(module: str, folder: Path | None) -> bytes:
    if folder is None:
        raise ConfigError(
            "{seen} cannot be loaded by this command",
            rule="custom networks are run by `run` and `resume` only",
            seen=f"{module}.py",
            fix="finish the sweep: its champion needs no code",
        )
    path = folder / f"{module}.py"
    try:
        return path.read_bytes()
    except OSError as error:
        modules = [file.stem for file in sorted(folder.glob("*.py"))]
        raise ConfigError(
            "cannot read {seen}",
            rule="custom networks are in a file beside the space",
            seen=f"{path}: {error.strerror}",
            fix=nearest(module, modules) if modules else f"put {module}.py beside a copy of the space",
        ) from error


def _load(module: str) -> ModuleType:
    content = _read(module, _code_folder)
    key = _digest(content)
    if key not in _modules:
        # Exactly the bytes that were hashed, under a name that shadows no module, with no bytecode on disk.
        private = ModuleType(f"_gansweep_custom_{module}_{key[:16]}")
        private.__file__ = f"{_code_folder}/{module}.py"
        sys.modules[private.__name__] = private  # where dataclasses and pickle search

        def run() -> None:
            exec(compile(content, private.__file__ or "", "exec"), vars(private))

        _run_user_code(f"{module}.py cannot be imported", module, run)
        _modules[key] = private
    return _modules[key]


def _function(loaded: ModuleType, module: str, function: str) -> Maker:
    found = getattr(loaded, function, None)
    if not callable(found):
        functions = [n for n, v in vars(loaded).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(
            f"{module}.py has no function {{seen}}",
            rule="architecture is module:function",
            seen=function,
            fix=nearest(function, functions) if functions else f"add def {function}(config, shape)",
        )
    maker: Maker = found
    return maker


def _run_user_code(problem: str, module: str, call: Callable[[], Any]) -> Any:
    """Run `call`; an exception becomes a ConfigError with the line in the user's file."""
    try:
        return call()
    except ConfigError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename.endswith(f"/{module}.py")]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        text = " ".join(str(error).split())
        raise ConfigError(
            problem, seen=f"{type(error).__name__}: {text}", fix=f"correct {module}.py{where}"
        ) from error


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(item).__name__ for item in value) or 'nothing'}"
    return type(value).__name__


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
