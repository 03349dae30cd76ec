"""Factories for many tests: a record, a small generator."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from pipeline.config import TrialConfig
from pipeline.records import TrialRecord
from pipeline.search.space.rules import ImageFacts
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks

CLASSES = 3


def record(kimg: int = 1, fid: float | None = 10.0, **changes: Any) -> TrialRecord:
    """A healthy tick; every number that is not given is 0.5."""
    numbers: dict[str, Any] = {field.name: 0.5 for field in dataclasses.fields(TrialRecord)}
    numbers.update(trial=0, kimg=kimg, verdict="healthy", fid=fid, best_fid=fid, best_kimg=kimg)
    return TrialRecord(**{**numbers, **changes})


def image_facts(size: int = 64, **changes: Any) -> ImageFacts:
    """2,000 unlabelled colour images for trials on a CPU; classes are of one size where none is given."""
    known = {"channels": 3, "images": 2_000, "classes": 0, "device": "cpu", **changes}
    smallest = known["images"] // known["classes"] if known["classes"] else 0
    return ImageFacts(size=size, **{"smallest_class": smallest, **known})


def generator_of(classes: int = CLASSES, **changes: Any) -> torch.nn.Module:
    """A small real generator of 8x8 grey images, in eval mode."""
    torch.manual_seed(0)
    small = {"architecture": "dcgan", "width_g": 4, "width_d": 4, "z_dim": 8}
    config = TrialConfig(**{**small, "conditional": bool(classes), **changes})
    generator, _ = build_networks(config, ImageShape(8, 1, classes))
    with torch.no_grad():  # initial values include zeros
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return generator.eval()
