"""What the trials of a machine share: images, evaluator and user code, through Ray, and the machine's GPUs.

Each node has the images once, and each worker process keeps one evaluator on its device.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

import ray

from pipeline.cluster import mps
from pipeline.cluster.shared_images import SharedFolder, open_images, share_images
from pipeline.data.dataset import Dataset
from pipeline.errors import GansweepError
from pipeline.metrics.frechet import Evaluator
from pipeline.storage.proxies import ask_loopback_directly
from pipeline.training.process import visible_gpus
from pipeline.user_code import UserCode, use_code

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedRefs:
    """What the images are got by, the evaluators in the object store, and the user's code itself.

    second: the evaluator of the second opinion, which finalists alone fetch; None = there is none.
    """

    dataset: Any
    evaluator: Any
    code: UserCode
    second: Any = None


_LOGGED = set[str]()  # reasons, once a process
_FETCHED: dict[str, tuple[Dataset, Evaluator]] = {}  # of this process, by the id of the evaluator


def put_shared(dataset: Dataset, evaluator: Evaluator, code: UserCode) -> SharedRefs:
    """Share the images and the evaluator with all workers. code: the user's that these may run.

    The evaluator's `second` is shared apart from it: trials load neither its weights nor its packages.
    """
    second = None if evaluator.second is None else ray.put(evaluator.second)
    first = ray.put(replace(evaluator, second=None))
    return SharedRefs(share_images(dataset), first, code, second)


def get_shared(shared_refs: SharedRefs) -> tuple[Dataset, Evaluator]:
    """The images (shared, read-only) and the evaluator on this process's device; allows the user's code.

    Raises:
        ConfigError: the user's extractor cannot be loaded here.
    """
    use_code(shared_refs.code)  # first: an extractor of the user's is unpickled by its module's code
    key, images = shared_refs.evaluator.hex(), shared_refs.dataset
    if key not in _FETCHED:
        dataset = open_images(images) if isinstance(images, SharedFolder) else _get(images)
        _FETCHED[key] = dataset, _get(shared_refs.evaluator).to(worker_device())
    return _FETCHED[key]


def get_measuring(shared_refs: SharedRefs) -> tuple[Dataset, Evaluator]:
    """`get_shared` for a finalist: the evaluator has its `second`, on the CPU, which no other call keeps."""
    dataset, evaluator = get_shared(shared_refs)
    if shared_refs.second is None:
        return dataset, evaluator
    return dataset, replace(evaluator, second=_get(shared_refs.second))


def _get(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RaySystemError as error:  # of whatever fails while Ray unpickles
        raise error.client_exc if isinstance(error.client_exc, GansweepError) else error from None


def enter_worker(mps_trials: int) -> None:
    """Prepare this worker's process; to be called before CUDA starts.

    mps_trials: how many trials share its GPU by MPS, this one included; 0 = no MPS. Why MPS does not work
    here is logged once per process.
    """
    ask_loopback_directly()  # a node's shell may name other proxies than the driver's
    if not mps_trials:
        return
    os.environ.setdefault(mps.PERCENTAGE, str(mps.percentage(mps_trials)))
    reason = mps.start()
    if reason and reason not in _LOGGED:
        _LOGGED.add(reason)
        log.warning(f"trials that share a GPU take turns on it: {reason}")


def worker_device() -> str:
    """Where this worker's trials train: the GPU that Ray gave it, else the CPU."""
    return "cuda" if ray.get_gpu_ids() and visible_gpus() else "cpu"
