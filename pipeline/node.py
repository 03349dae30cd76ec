"""What is loaded once per machine and lent to its trials: the images and the evaluator.

Owns: the hand-over through Ray's object store, and the one copy that a worker process unpacks.
Refuses: anything that belongs to one trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import torch

from pipeline.data import Dataset
from pipeline.fid import Evaluator


@dataclass(frozen=True)
class Lent:
    """References into the object store: each node fetches what they name once."""

    dataset: Any
    evaluator: Any


_BORROWED: dict[str, tuple[Dataset, Evaluator]] = {}  # one entry a process: what its trials share


def lend(dataset: Dataset, evaluator: Evaluator) -> Lent:
    """Put the images and the evaluator into the object store."""
    return Lent(ray.put(dataset), ray.put(evaluator))


def borrow(lent: Lent) -> tuple[Dataset, Evaluator]:
    """The images (zero-copy, read-only) and the evaluator on this process's device."""
    key = lent.dataset.hex()
    if key not in _BORROWED:
        dataset, evaluator = ray.get([lent.dataset, lent.evaluator])
        _BORROWED[key] = dataset, evaluator.to(torch.device(device()))
    return _BORROWED[key]


def gpus() -> int:
    """How many GPUs this machine lends."""
    return torch.cuda.device_count()


def device() -> str:
    """Where this worker's trials train: the GPU that Ray gave it, else the CPU."""
    return "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
