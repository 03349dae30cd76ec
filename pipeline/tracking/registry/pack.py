"""A generator as files that load without its code and without unpickling.

Owns: the writing of a packed folder (its reading: `pipeline.tracking.registry.registered_model`). Refuses: knowing MLflow.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.errors import RegistryError
from pipeline.storage.files import replacing, write_text
from pipeline.tracking.registry import registered_model


class _Exported(nn.Module):
    """The generator with as many inputs as it needs."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        images: torch.Tensor = self.generator(z, labels)
        return images


def pack_generator(generator: nn.Module, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write a generator as files that load without its code and without unpickling; returns `folder`.

    generator.pt2: exported program, z float32 (N,z_dim) [, labels int64 (N,)] -> float32 (N,C,H,W) in [-1,1].
    generator.safetensors: the weights alone. facts.json: `facts` and the shapes. files.json: a SHA-256 each.

    Args:
        generator: has z_dim and classes (0 = unconditional); is copied to the CPU, in eval mode.
        facts: what is known of it, values ready for JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(generator).cpu().eval().requires_grad_(False)
    z_dim, classes = int(model.z_dim), int(model.classes)  # type: ignore[arg-type]
    inputs = [torch.zeros(2, z_dim)] + ([torch.zeros(2, dtype=torch.int64)] if classes else [])
    with torch.no_grad():
        _, channels, size, _ = _Exported(model)(*inputs).shape
    _export(model, inputs, folder / "generator.pt2")
    weights = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / "generator.safetensors") as path:
        save_file(weights, path)
    shape = {"z_dim": z_dim, "classes": classes, "size": size, "channels": channels}
    packed = {"format": registered_model.FORMAT, "generator": shape, "facts": finite(facts)}
    _write_json(folder / "facts.json", packed)
    names = ("generator.pt2", "generator.safetensors", "facts.json")
    _write_json(folder / "files.json", {name: registered_model.digest(folder / name) for name in names})
    return folder


def _export(model: nn.Module, inputs: list[torch.Tensor], target: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = tuple({0: batch} for _ in inputs)
    program = torch.export.export(_Exported(model), tuple(inputs), dynamic_shapes=shapes)
    program._example_inputs = None  # they would be the only pickle in the archive
    with replacing(target) as path:
        torch.export.save(program, path)
    registered_model.vet(target)


def _write_json(target: Path, value: object) -> None:
    write_text(target, json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


def finite(value: Any) -> Any:
    """`value`, mapping or list, with None for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def label_shares(dataset: Dataset) -> list[float] | None:
    """How frequent each class is in the training images, K shares that sum to 1; None where unlabelled.

    A fact of this name is what a conditional generator draws its labels by where none is asked for.
    """
    if dataset.train_labels is None:
        return None
    counts = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
    return [float(share) for share in counts / counts.sum()]


def device_name() -> str:
    """What a trial of this machine trains on: the name of its GPU, or `cpu`."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def pick_device(wanted: str, *, auto: str = "cpu") -> str:
    """`cpu` or `cuda`; for wanted = "auto" it is `auto`, where this machine has that.

    Raises:
        RegistryError: another word, or there is no GPU.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise RegistryError("--device is auto, cpu or cuda", seen=wanted, fix="leave it out")
    gpu = torch.cuda.is_available()
    if wanted == "cuda" and not gpu:
        raise RegistryError(
            "--device cuda needs a GPU that torch sees", seen="none", fix="write --device cpu"
        )
    return "cuda" if gpu and "cuda" in (wanted, auto if wanted == "auto" else "") else "cpu"
