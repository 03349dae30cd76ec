"""A generator packed into files, which `registered_model` reads; the device that it runs on."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.errors import RegistryError
from pipeline.storage.files import replacing, write_text
from pipeline.tracking._compat import drop_example_inputs
from pipeline.tracking.registry import registered_model
from pipeline.tracking.registry.metadata import ModelMetadata

PACKED_FILES = {
    "generator.pt2": "program: z float32 (N,z_dim) [, labels int64 (N,)] -> float32 (N,C,H,W) in [-1,1]",
    "generator.safetensors": "the weights alone",
    "facts.json": "shapes, and all that is known of the generator: its sweep, configuration, measurement",
    "files.json": "SHA-256 of these three",
    "card": "the model card: README.md, its pictures, metrics.json",
}
"""The meaning of every file of a packed generator."""


class _Program(nn.Module):
    """A generator for `torch.export`: an unconditional one has a single input."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        images: torch.Tensor = self.generator(z, labels)
        return images


def pack_generator(generator: nn.Module, folder: Path, metadata: ModelMetadata) -> Path:
    """Write a generator as files that load without its code and without unpickling; returns `folder`.

    They are those of `PACKED_FILES`, without the card.

    generator: has z_dim and classes (0 = unconditional); a copy on the CPU in eval mode is packed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(generator).cpu().eval().requires_grad_(False)
    z_dim, classes = int(model.z_dim), int(model.classes)  # type: ignore[arg-type]
    inputs = [torch.zeros(2, z_dim)] + ([torch.zeros(2, dtype=torch.int64)] if classes else [])
    with torch.no_grad():
        _, channels, size, _ = _Program(model)(*inputs).shape
    _export(model, inputs, folder / "generator.pt2")
    weights = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / "generator.safetensors") as path:
        save_file(weights, path)
    shape = {"z_dim": z_dim, "classes": classes, "size": size, "channels": channels}
    packed = {"format": registered_model.FORMAT, "generator": shape, "facts": metadata.to_json()}
    _write_json(folder / "facts.json", packed)
    names = ("generator.pt2", "generator.safetensors", "facts.json")
    _write_json(folder / "files.json", {name: registered_model.sha256_of(folder / name) for name in names})
    return folder


def _export(model: nn.Module, inputs: list[torch.Tensor], target: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = tuple({0: batch} for _ in inputs)
    program = torch.export.export(_Program(model), tuple(inputs), dynamic_shapes=shapes)
    drop_example_inputs(program)
    with replacing(target) as path:
        torch.export.save(program, path)
    registered_model.check_archive(target)


def _write_json(target: Path, value: object) -> None:
    write_text(target, json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


def label_shares(dataset: Dataset) -> tuple[float, ...] | None:
    """Frequency of each class in the training images, K shares that sum to 1; None if they have no labels."""
    if dataset.train_labels is None:
        return None
    counts = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
    return tuple(float(share) for share in counts / counts.sum())


def device_name() -> str:
    """The device that trials on this machine train on: the name of its first GPU, or `cpu`."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def pick_device(name: str, *, auto: str = "cpu") -> str:
    """The device, `cpu` or `cuda`, of a name. auto: what `auto` stands for where there is a GPU.

    Raises:
        RegistryError: another name, or `cuda` without a GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise RegistryError(
            "--device {seen} is unknown", rule="it must be auto, cpu or cuda", seen=name, fix="leave it out"
        )
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise RegistryError("--device cuda needs a GPU, and torch sees none", fix="write --device cpu")
    return "cuda" if has_gpu and (auto if name == "auto" else name) == "cuda" else "cpu"
