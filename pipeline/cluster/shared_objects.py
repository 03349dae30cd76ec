"""What is loaded once per machine and lent to its trials: the images, the evaluator, the GPU.

Owns: the hand-over through Ray's object store, the one copy that a worker process unpacks, how a process
comes to its GPU and leaves it. Refuses: anything that belongs to one trial.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.cluster import mps
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.training.process import visible_gpus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedRefs:
    """References into the object store: each node fetches what they name once."""

    dataset: Any
    evaluator: Any


_TOLD = set[str]()
_BORROWED: dict[str, tuple[Dataset, Evaluator]] = {}  # one entry a process: what its trials share


def put_shared(dataset: Dataset, evaluator: Evaluator) -> SharedRefs:
    """Put the images and the evaluator into the object store."""
    return SharedRefs(ray.put(dataset), ray.put(evaluator))


def get_shared(lent: SharedRefs) -> tuple[Dataset, Evaluator]:
    """The images (zero-copy, read-only) and the evaluator on this process's device."""
    key = lent.dataset.hex()
    if key not in _BORROWED:
        dataset, evaluator = ray.get([lent.dataset, lent.evaluator])
        _BORROWED[key] = dataset, evaluator.to(worker_device())
    return _BORROWED[key]


def gpu_task(function: Callable[..., Any], gpus: float = 1.0) -> Any:
    """The function as a Ray task; where it has a share of a GPU, its process ends with it.

    Ray uses a process again, unless its GPU is asked for where the function is decorated; `.options` come too
    late for that (ray issue 47767). An idle process would keep its CUDA context and all memory it had.
    """
    return ray.remote(max_calls=1)(function) if gpus else ray.remote(function)


def join_mps(trials: int) -> None:
    """Let this process compute at the same time as those that it shares its GPU with; before CUDA starts.

    trials: on that GPU, this one counted. Why it cannot is logged once in a process.
    """
    os.environ.setdefault(mps.PERCENTAGE, str(mps.percentage(trials)))
    why = mps.start()
    if why and why not in _TOLD:
        _TOLD.add(why)
        log.warning(f"trials that share a GPU take turns on it: {why}")


def gpu_count() -> int:
    """How many GPUs this machine lends."""
    return visible_gpus()


def worker_device() -> str:
    """Where this worker's trials train: the GPU that Ray gave it, else the CPU."""
    return "cuda" if ray.get_gpu_ids() and visible_gpus() else "cpu"
