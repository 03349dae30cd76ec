"""Trainers in tests: configurations with every kind of step, and comparisons of states bit for bit."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.records import TrialRecord
from pipeline.training.trainer import Trainer

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lazy r1, two critics": {"n_critic": 2, "penalty": "r1", "penalty_interval": 3, "batch_size": 40},
    "relativistic, conditional": {"loss": "relativistic", "penalty": "r1r2", "conditional": True},
    "batch norm, conditional": {"norm_d": "batch", "conditional": True, "norm_g": "batch"},
    "spectral norm": {"norm_d": "spectral", "loss": "hinge"},
    "gp, warm-up": {"loss": "wasserstein", "penalty": "gp", "n_critic": 3, "d_warmup_kimg": 1.2},
    "resnet, dragan": {"architecture": "resnet", "penalty": "dragan"},
    "self-supervised": {
        "architecture": "fastgan",
        "penalty": "r1",
        "augment": "diffaugment",
        "augment_p": 0.4,
    },
    "bottlenecks": {"architecture": "r3gan", "penalty": "r1r2", "loss": "relativistic"},
    "bfloat16": {"precision": "bfloat16", "penalty": "r1"},
    "augmented": {"augment": "diffaugment", "augment_p": 0.4, "penalty": "r1"},
    "mirrored": {"mirror": True, "penalty": "r1"},
    "skipped updates": {"controller": "skip", "penalty": "r1", "penalty_interval": 2, "batch_size": 40},
}
"""What each configuration changes in a tiny one. Captured steps must train them like eager ones."""


def leaves(tree: Any) -> list[Any]:
    """The leaves of nested dictionaries, lists and tuples, in an order that equal trees share."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in leaves(tree[key])]
    return [leaf for item in tree for leaf in leaves(item)] if isinstance(tree, list | tuple) else [tree]


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    left, right = leaves(a), leaves(b)
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(left, right, strict=True)
    )


def state_of(trainer: Trainer) -> list[Any]:
    """Everything that training changes, asked from the parts themselves."""
    parts = (trainer.G, trainer.D, trainer.ema.generator, trainer.opt_g, trainer.opt_d)
    return [trainer.nimg, trainer.d_steps, *(part.state_dict() for part in parts)]


def weights(network: nn.Module) -> Tensor:
    """A copy of all parameters, flat."""
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def without_times(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The records with 0 for all that a clock has measured."""
    times = {"images_per_sec": 0.0, "train_seconds": 0.0, "eval_seconds": 0.0}
    return [dataclasses.replace(record, **times) for record in records]


def snapshot(trainer: Trainer) -> dict[str, Any]:
    """The state of a trainer as it comes back from a file."""
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Any] = torch.load(buffer, weights_only=True)
    return state


def optimizer_steps(optimizer: torch.optim.Optimizer) -> int:
    """How many updates an optimizer has made."""
    return int(next(iter(optimizer.state.values()))["step"]) if optimizer.state else 0
