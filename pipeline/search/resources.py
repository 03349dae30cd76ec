"""What one trial asks of a machine, and how many of them a cluster can hold.

Owns: `Share`, the arithmetic of fitting it into nodes, how many trials share a GPU and what that must win.
Refuses: Ray (nodes come as plain mappings resource -> amount), measuring anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config import SweepConfig, TrialConfig
from pipeline.errors import ConfigError
from pipeline.search.budgets import amounts
from pipeline.training.trial_speed import TrialSpeed

Node = Mapping[str, float]
"""What a node has in all, in Ray's names: CPU, GPU, memory (bytes), accelerator_type:L4, custom ones."""

ACCELERATOR = "accelerator_type:"
"""How Ray names the kind of a node's GPUs: a resource that a trial takes a crumb of."""

_CRUMB = 0.001

RESERVE = 0.9
"""Share of a GPU's memory that trials may fill: fragments and the driver need the rest."""

CONTEXT_BYTES = 600 * 2**20
"""What a CUDA process takes before its first tensor (torch's and cuDNN's kernels), beside torch's count."""

MOST_PER_GPU = 16
"""More trials than this on one GPU only take turns, MPS or not."""

MOST_IN_TURNS = 2
"""The same without MPS: processes then compute one after the other, and fill each other's gaps at best."""

TICK_SEC, LOOKS = 2.0, 12
"""Seconds of training between two reports of a trial on a GPU, and how many reports it makes all the same: a
GPU trains a tenth of a second where a core needs five, and every report costs the driver as much as ever."""

WORTH = 1.15
"""More trials on a GPU are taken for so many times the trials per hour of fewer: each of them is slower, so
that the search learns of it later, and all end where one of them fails badly."""


@dataclass(frozen=True)
class TrialResources:
    """CPU cores and GPUs of one trial, what else its machine must have, and how many run at a time."""

    cpus: float = 1.0
    gpus: float = 0.0
    concurrency: int = 1
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def shares_gpu(self) -> bool:
        """Whether more than one trial may be on a GPU."""
        return 0 < self.gpus < 1

    @property
    def per_gpu(self) -> int:
        """How many trials share a GPU; 0 where none does."""
        return int(1 / self.gpus + 1e-9) if self.shares_gpu else 0

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray is asked for, per trial."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.extra}

    @property
    def task_options(self) -> dict[str, Any]:
        """The same as options of a Ray task."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.extra)}

    @property
    def threads(self) -> int:
        """Of one trial."""
        return max(1, int(self.cpus))

    def __str__(self) -> str:
        extra = "".join(
            f", {name.removeprefix(ACCELERATOR) if value == _CRUMB else f'{value:g} {name}'}"
            for name, value in self.extra.items()
        )
        return f"{self.cpus:g} CPU, {self.gpus:g} GPU{extra}"


def fastest_packing(paces: Sequence[TrialSpeed], config: TrialConfig) -> TrialSpeed:
    """The pace with the most trials per hour; more trials at a time have to win by `WORTH` over fewer."""
    best, *more = sorted(paces, key=lambda pace: pace.trials)
    for pace in more:
        if pace.per_hour(config) >= WORTH * best.per_hour(config):
            best = pace
    return best


def tick_for_gpu(tick: int, kimg: int, pace: TrialSpeed | None) -> int:
    """After how many kimg trials of `kimg` at this pace report: as the space says, or less often.

    A multiple of the space's `tick` that takes `TICK_SEC` of training, while `LOOKS` reports remain.
    """
    if pace is None:
        return tick
    times = math.ceil(TICK_SEC / max(tick * pace.seconds_per_kimg, 1e-9))
    return tick * max(1, min(times, kimg // (LOOKS * tick)))


def check_gpus(gpus: float, fix: str = "") -> None:
    """Refuse more than one GPU for a trial, the second of which would idle.

    gpus: as asked for, -1 = auto. fix: what to do instead, where it is not to ask for one.

    Raises:
        ConfigError: it is above 1.
    """
    if gpus > 1:
        raise ConfigError(
            "a trial trains on one GPU, and a second one would idle",
            seen=f"--gpus-per-trial {gpus:g}",
            fix=fix or "write --gpus-per-trial 1: several GPUs in a machine each get their trials",
        )


def required(text: str) -> dict[str, float]:
    """`accelerator=L4,fast_disk=1` as resources of Ray.

    Raises:
        ConfigError: a part is neither accelerator=KIND nor RESOURCE=AMOUNT.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    kinds = [part.partition("=")[2].strip() for part in parts if part.startswith("accelerator=")]
    if not all(kinds):
        raise ConfigError(
            "--require accelerator names a kind of GPU",
            seen=text,
            fix="write --require accelerator=L4 (`ray status` lists accelerator_type:L4)",
        )
    others = ",".join(part for part in parts if not part.startswith("accelerator="))
    custom = amounts(others, "--require", "accelerator=L4 or fast_disk=1")
    return {**{ACCELERATOR + kind: _CRUMB for kind in kinds}, **custom}


def trials_that_fit(node: Node, bundle: Mapping[str, float]) -> int:
    """How many trials fit on one node; a share of a GPU never spans two."""
    return min((_fit(name, node.get(name, 0.0), amount) for name, amount in bundle.items()), default=0)


def _fit(name: str, has: float, asks: float) -> int:
    if asks <= 0:
        return 2**31
    if name == "GPU" and asks < 1:
        return int(has) * int(1 / asks + 1e-9)
    return int(has / asks + 1e-9)


@dataclass(frozen=True)
class Cluster:
    """The nodes that are there, and what an autoscaler may add.

    kinds: machines that may be added, each with its highest count. grows: some may be added of which nothing
    is known (Kubernetes does not tell the driver).
    """

    nodes: Sequence[Node]
    kinds: Sequence[tuple[Node, int]] = ()
    grows: bool = False

    def now(self, bundle: Mapping[str, float]) -> int:
        """How many trials fit at a time on what is there."""
        return sum(trials_that_fit(node, bundle) for node in self.nodes)

    def holds(self, bundle: Mapping[str, float]) -> int:
        """How many trials fit at a time, on what is there or on what may be added."""
        return max(self.now(bundle), sum(trials_that_fit(node, bundle) * count for node, count in self.kinds))

    def __str__(self) -> str:
        """`2 nodes: 1 CPU, 0 GPU; 8 CPU, 1 GPU L4`, and what may be added."""
        here = "; ".join(_describe(node) for node in self.nodes if node.get("CPU") or node.get("GPU"))
        text = f"{len(self.nodes)} node{'s' * (len(self.nodes) != 1)}: {here or 'no CPU'}"
        more = "; ".join(f"{count} times {_describe(node)}" for node, count in self.kinds if count > 0)
        return f"{text}; to add: {more}" if more else text


def trial_resources(plan: SweepConfig, cluster: Cluster) -> TrialResources:
    """What each trial gets. As many run at a time as fit: where an autoscaler may add machines, on all that
    it may add, for it is waiting trials that make it start them.

    Raises:
        ConfigError: neither a node that is there nor one that could be added ever holds one trial, or more
            than one GPU is asked for.
    """
    check_gpus(plan.gpus_per_trial)
    all_nodes = [*cluster.nodes, *(node for node, count in cluster.kinds if count > 0)]
    gpus = plan.gpus_per_trial
    if gpus < 0:
        gpus = 1.0 if any(node.get("GPU", 0) for node in all_nodes) else 0.0
    share = TrialResources(plan.cpus_per_trial, gpus, 1, required(plan.require))
    if not cluster.holds(share.bundle) and not cluster.grows:
        raise ConfigError(
            f"one trial ({share}) fits on a node of the cluster", seen=str(cluster), fix=_fix(share)
        )
    return replace(share, concurrency=concurrency(plan, share, cluster))


def concurrency(plan: SweepConfig, share: TrialResources, cluster: Cluster) -> int:
    """Trials at a time, at least one: what fits, and not more than was asked for."""
    fits = cluster.holds(share.bundle)
    if cluster.grows:
        return max(1, plan.concurrency or fits)
    return max(1, min(plan.concurrency or fits, fits))


def _fix(share: TrialResources) -> str:
    if share.extra:
        return "correct --require, or start a node that has it"
    if share.gpus:
        return "lower --cpus-per-trial or --gpus-per-trial (0 trains on cores), or start a node that has them"
    return "lower --cpus-per-trial"


def _describe(node: Node) -> str:
    known = {"CPU", "GPU", "memory", "object_store_memory"}
    kinds = [name.removeprefix(ACCELERATOR) for name in node if name.startswith(ACCELERATOR)]
    custom = [
        f"{value:g} {name}"
        for name, value in node.items()
        if name not in known and not name.startswith((ACCELERATOR, "node:"))
    ]
    text = f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU"
    return ", ".join([" ".join([text, *kinds]), *custom])


def trials_per_gpu(peak_bytes: int, gpu_bytes: int, cores_per_gpu: float, cpus: float) -> int:
    """How many trials one GPU holds, by what the largest configuration of the space was measured to take.

    peak_bytes: torch's highest count in one trial, images and evaluator included. gpu_bytes: the GPU's.
    cores_per_gpu: of its node; cpus: of one trial: one without a core of its own only waits. At least 1.
    """
    by_memory = int(gpu_bytes * RESERVE // max(peak_bytes + CONTEXT_BYTES, 1))
    by_cores = int(cores_per_gpu / max(cpus, 1e-9) + 1e-9)
    return max(1, min(by_memory, by_cores, MOST_PER_GPU))


def wanted_per_gpu(plan: SweepConfig, cluster: Cluster) -> int:
    """How many trials of a sweep there are at most for each GPU of the cluster."""
    gpus = max(1, cluster.holds({"GPU": 1.0}))
    trials = min(plan.trials, plan.concurrency or plan.trials)
    return max(1, -(-trials // gpus))


def gpu_share(trials: int) -> float:
    """1/trials, rounded down to Ray's four decimals, so that all of them fit."""
    return math.floor(10_000 / trials) / 10_000
