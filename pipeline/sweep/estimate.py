"""What a sweep would take: its largest trial is measured where trials run, before any of them does.

Owns: the rows of a dry run, how many trials share a GPU. Refuses: training a trial.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipeline import budgets, fid
from pipeline.calibration import Calibration, calibrate, largest
from pipeline.config import TrialConfig
from pipeline.data import Dataset
from pipeline.resources import Cluster, Share, concurrency, gpu_share, share_of, slots, trials_per_gpu
from pipeline.sweep.request import Request

WAIT_SEC = 90.0
"""How long a measurement may take, the start of its process included."""


def measured(request: Request, lent: Any, share: Share) -> Calibration | None:
    """The space's largest trial on a machine of the cluster that holds a share; None where none is free."""
    import ray

    task = ray.remote(_measure).options(
        num_cpus=share.cpus, num_gpus=share.gpus, resources=dict(share.extra), max_retries=0
    )
    work = task.remote(largest(request.space), lent, max(1, int(share.cpus)), request.code)
    done, _ = ray.wait([work], timeout=WAIT_SEC)
    if not done:
        ray.cancel(work, force=True)
        return None
    try:
        found: Calibration = ray.get(work)
    except ray.exceptions.RayError:
        return None
    return found


def _measure(config: TrialConfig, lent: Any, threads: int, code: Path | None) -> Calibration:
    """Runs in a worker's process, as a trial would."""
    from pipeline import networks, node

    networks.use_code(code)
    dataset, evaluator = node.borrow(lent)
    return calibrate(config, dataset, evaluator, node.device(), threads)


def packed(request: Request, cluster: Cluster, lent: Any) -> Share:
    """What each trial gets; with --gpus-per-trial auto on GPUs, by the memory of the largest trial."""
    plan = request.config
    share = share_of(plan, cluster)
    if plan.gpus_per_trial >= 0 or not share.gpus:
        return share
    found = measured(request, lent, share)
    if found is None or not found.device_bytes:
        request.say("no GPU was free to measure a trial on: one GPU each")
        return share
    node = max(cluster.nodes, key=lambda node: slots(node, share.bundle))
    cores = node.get("CPU", 0.0) / max(node.get("GPU", 1.0), 1.0)
    trials = trials_per_gpu(found.memory_bytes, found.device_bytes, cores, share.cpus)
    request.say(
        f"{trials} trials per GPU: the largest takes {_bytes(found.memory_bytes)} on {_device(found)}"
    )
    share = dataclasses.replace(share, gpus=gpu_share(trials))
    return dataclasses.replace(share, concurrency=concurrency(plan, share, cluster))


def rows(
    request: Request, dataset: Dataset, evaluator: fid.Evaluator, cluster: Cluster
) -> list[tuple[str, str]]:
    """Of a dry run, on a Ray that is connected: resources, the largest trial, hours and cost."""
    from pipeline import node

    lent = node.lend(dataset, evaluator)
    share = packed(request, cluster, lent)
    full = largest(request.space)
    found = measured(request, lent, share)
    told = [("resources", f"trials at a time: {share.concurrency}, each {share}; {cluster}")]
    if found is None:
        return [*told, ("measured", f"nothing: no machine was free for a trial within {WAIT_SEC:g} s")]
    one = found.trial_seconds(full) / 3600
    return [
        *told,
        ("memory", f"{_bytes(found.memory_bytes)} per trial at most, on {_device(found)}"),
        (
            "largest trial",
            f"{_hours(one)}: {found.seconds_per_kimg:.3g} s per kimg, {found.eval_seconds:.2g} s per fid",
        ),
        ("at most", _bound(request, share, one)),
    ]


def _bound(request: Request, share: Share, one: float) -> str:
    """If every trial were the largest and none stopped early; a bound that is met earlier ends it."""
    plan = request.config
    trials = plan.trials * one
    if plan.time_budget_sec:
        trials = min(trials, plan.time_budget_sec / 3600 * share.concurrency)
    wall = trials / min(share.concurrency, plan.trials)
    known = budgets.prices(plan.price)
    money = f", at a cost of {trials * budgets.rate(known, share.cpus, share.gpus):.4g}" if known else ""
    gpus = f", {trials * share.gpus:.3g} GPU hours" if share.gpus else ""
    return f"{_hours(wall)} if no trial stops early{gpus}{money}"


def _hours(hours: float) -> str:
    return f"{hours:.3g} hours" if hours >= 1 else f"{60 * hours:.3g} minutes"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def _device(found: Calibration) -> str:
    return f"{found.device} ({_bytes(found.device_bytes)})" if found.device_bytes else "cores"
