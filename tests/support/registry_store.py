"""A small generator to pack, and a real MLflow registry with two versions of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.data.preparing.prepared import fingerprint
from pipeline.metrics import extractors
from pipeline.metrics.frechet import Evaluator, build_evaluator
from pipeline.tracking.registry.load import LoadedGenerator, fetched_model
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.promote import register_version


class TinyGenerator(nn.Module):
    """8x8 images of 2 channels, from batch norm and a transposed convolution, like a real one."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.z_dim, self.classes = 6, classes
        self.embed = nn.Embedding(classes, 6) if classes else None
        self.body = nn.Sequential(
            nn.Linear(12 if classes else 6, 8 * 4 * 4),
            nn.Unflatten(1, (8, 4, 4)),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 2, 4, 2, 1),
        )

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if self.embed is not None and labels is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return torch.tanh(3 * self.body(z))


FACTS: dict[str, Any] = {
    "fid": 40.0,
    "fid_n": 2000,
    "evaluator": "e1",
    "fingerprint": "f1",
    "trial": 7,
    "params": {"loss": "hinge", "lr_g": 1e-4},
    "note": "x" * 9000,
    "balance": math.nan,
    "withhold": [],
}


@dataclasses.dataclass(frozen=True)
class Store:
    """A real MLflow server (sqlite) with two versions of the model 'gan': 1 verified by its fid, 2 better."""

    folder: Path
    uri: str
    packing: Callable[..., Path]
    first: Any = None
    second: Any = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, seed: int, fid: float | None = None, name: str = "gan", **options: Any) -> Any:
        options.setdefault("verify", False)
        facts = {**FACTS, **self.facts, "fid": fid, **options.pop("facts", {})}
        metadata = ModelMetadata.from_json(facts)
        return register_version(self.packing(3, seed), metadata, tracking_uri=self.uri, name=name, **options)

    def load(self, model: str) -> Any:
        with fetched_model(model, tracking_uri=self.uri) as folder:
            return LoadedGenerator(folder)

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def version(self, number: int, name: str = "gan") -> Any:
        return self.client().get_model_version(name, str(number))

    def aliases(self, name: str) -> dict[str, int]:
        return {key: int(value) for key, value in self.client().get_registered_model(name).aliases.items()}


def pixel_evaluator() -> Evaluator:
    """Pixel features, 100 samples, against noise of the shape of TinyGenerator's images."""
    rng = np.random.default_rng(0)
    train, held = (rng.integers(0, 255, (count, 8, 8, 2), np.uint8) for count in (120, 64))
    noise = Dataset("noise", train, held, None, None, (), fingerprint(train, held, None, None))
    return build_evaluator(noise, extractors.build_extractor("pixels", noise), 100)


def measured(packed: Path) -> dict[str, Any]:
    """The fid of this generator and an interval around it, by the keys of `ModelMetadata`."""
    evaluator = pixel_evaluator()
    images, _ = LoadedGenerator(packed).sample(evaluator.samples, seed=1)
    fid = evaluator.score(lambda count: torch.from_numpy(images))  # one batch
    assert fid is not None
    return {"fid": fid, "fid_low": 0.8 * fid, "fid_high": 1.2 * fid, "evaluator": evaluator.hash}
