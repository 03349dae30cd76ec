"""From measurement to registry: a generator that copies or has collapsed gets a version, but no alias."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import load_dataset
from pipeline.metrics import evaluation, extractors, frechet
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator
from pipeline.tracking.registry.promote import RegisteredVersion, register_version

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]
N = 400


class NoisyCopies(nn.Module):
    """Gives one of its images plus noise, both determined by z."""

    pool: torch.Tensor

    def __init__(self, pool: np.ndarray, noise: float) -> None:
        super().__init__()
        self.z_dim, self.classes, self.noise = 65, 0, noise
        self.register_buffer("pool", torch.from_numpy(pool).permute(0, 3, 1, 2).float() / 127.5 - 1)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        uniform = (1 + torch.erf(z[:, 0] / 2**0.5)) / 2
        picked = self.pool[(uniform * len(self.pool)).long().clamp(0, len(self.pool) - 1)]
        return (picked + self.noise / 127.5 * z[:, 1:].view(-1, 1, 8, 8)).clamp(-1, 1)


@pytest.mark.parametrize(
    ("kind", "noise", "reason"),
    [
        ("memoriser", 6.0, "copies: "),
        ("one class", 40.0, "collapsed: "),
        ("new images", 40.0, ""),
    ],
)
def test_a_generator_that_copies_or_collapsed_gets_no_alias(
    tmp_path: Path, kind: str, noise: float, reason: str
) -> None:
    digits = load_dataset("digits")
    assert digits.train_labels is not None
    labels = digits.train_labels[:900]
    data = dataclasses.replace(digits, train=digits.train[:900], train_labels=labels, fingerprint="first 900")
    pools = {"memoriser": data.train, "one class": data.train[labels == 3], "new images": digits.train[900:]}
    evaluator = frechet.build_evaluator(data, extractors.build_extractor("pixels", data), N)
    packed = pack_generator(NoisyCopies(pools[kind], noise), tmp_path / "packed", ModelMetadata())
    sample = evaluation.from_arrays(LoadedGenerator(packed).sample)
    found = evaluation.measure_generator(sample, data, evaluator, n=N, seed=0)
    facts = {**found.to_dict(), "withhold": list(found.verdicts), "fingerprint": data.fingerprint}
    done: RegisteredVersion = register_version(
        packed,
        ModelMetadata.from_json(facts),
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        name="digits",
        evaluator=dataclasses.replace(evaluator, samples=N),
    )
    assert done.version == 1
    assert done.alias == (None if reason else "champion")
    assert reason in done.reason
    assert ("withheld" in done.reason) == bool(reason)
    if kind == "memoriser":
        assert found.fid < 1.0  # although its fid is the best of all
