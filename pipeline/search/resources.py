"""What one trial asks of a machine, and how many of them a cluster can hold.

Responsible for the arithmetic: fitting trials into nodes, how many share a GPU and what sharing must gain.
Not for Ray (nodes come as plain mappings resource -> amount) and not for measuring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.config import SweepConfig, TrialConfig
from pipeline.errors import ConfigError
from pipeline.search.budgets import parse_amounts
from pipeline.training.trial_speed import TrialSpeed

Node = Mapping[str, float]
"""All resources of a node by Ray's names: CPU, GPU, memory (bytes), accelerator_type:L4, custom ones."""

ACCELERATOR = "accelerator_type:"
"""Prefix of the resource by which Ray names the kind of a node's GPUs."""

_KIND_AMOUNT = 0.001  # how much of that resource a trial takes: enough to be placed there

USABLE_MEMORY = 0.9
"""Fraction of a GPU's memory that trials may fill; fragmentation and the driver need the rest."""

CONTEXT_BYTES = 600 * 2**20
"""What a CUDA process takes before its first tensor (torch's and cuDNN's kernels), not counted by torch."""

MAX_TRIALS_PER_GPU = 16
"""With more trials on one GPU, they only wait for each other, with MPS or without."""

MAX_WITHOUT_MPS = 2
"""The same without MPS: processes then compute one after the other, and at best fill each other's gaps."""

MIN_TICK_SEC = 2.0
"""Seconds of training that a tick on a GPU should take: a GPU trains for a tenth of a second where a core
needs five, and a report costs the driver the same."""

MIN_REPORTS = 12
"""Reports that a full trial makes in any case."""

MIN_PACKING_GAIN = 1.15
"""Factor in trials per hour for which more trials are put on a GPU: each of them is slower, so that the
search learns of it later, and all of them end where one fails badly."""


@dataclass(frozen=True)
class TrialResources:
    """What one trial asks of a machine, and how many trials run at a time.

    cpus: cores. gpus: GPUs, or a fraction of one. extra: other resources by Ray's names.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    concurrency: int = 1
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def shares_gpu(self) -> bool:
        """Whether several trials may be on one GPU."""
        return 0 < self.gpus < 1

    @property
    def per_gpu(self) -> int:
        """How many trials share a GPU; 0 where they do not share."""
        return int(1 / self.gpus + 1e-9) if self.shares_gpu else 0

    @property
    def bundle(self) -> dict[str, float]:
        """The placement group bundle that Ray reserves for one trial."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.extra}

    @property
    def task_options(self) -> dict[str, object]:
        """The same as the options of a Ray task."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.extra)}

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus))

    def __str__(self) -> str:
        extra = "".join(
            f", {name.removeprefix(ACCELERATOR) if value == _KIND_AMOUNT else f'{value:g} {name}'}"
            for name, value in self.extra.items()
        )
        return f"{self.cpus:g} CPU, {self.gpus:g} GPU{extra}"


def fastest_packing(speeds: Sequence[TrialSpeed], config: TrialConfig) -> TrialSpeed:
    """The speed with the most trials per hour; more trials at a time must gain `MIN_PACKING_GAIN` over fewer.

    speeds: measured, with different numbers of trials on a GPU. config: gives the length of a trial.
    """
    best, *more = sorted(speeds, key=lambda speed: speed.trials)
    for speed in more:
        if speed.per_hour(config) >= MIN_PACKING_GAIN * best.per_hour(config):
            best = speed
    return best


def tick_for_gpu(tick_kimg: int, kimg: int, speed: TrialSpeed | None) -> int:
    """The interval in kimg between two reports of a trial of `kimg` at this speed; None: not measured.

    The space's `tick_kimg`, or a multiple of it that takes `MIN_TICK_SEC` of training, while `MIN_REPORTS`
    reports remain.
    """
    if speed is None:
        return tick_kimg
    times = math.ceil(MIN_TICK_SEC / max(tick_kimg * speed.seconds_per_kimg, 1e-9))
    return tick_kimg * max(1, min(times, kimg // (MIN_REPORTS * tick_kimg)))


def check_gpus_per_trial(gpus: float, fix: str = "") -> None:
    """ConfigError for more than one GPU. fix: what to do instead, where it is not to ask for one GPU."""
    if gpus > 1:
        rule = "a trial trains on one GPU, and a second one would idle"
        fix = fix or "write --gpus-per-trial 1: several GPUs in a machine each get their trials"
        raise ConfigError("--gpus-per-trial {seen} is too many", rule=rule, seen=f"{gpus:g}", fix=fix)


def parse_required(text: str) -> dict[str, float]:
    """Read `accelerator=L4,fast_disk=1` as resources by Ray's names.

    Raises:
        ConfigError: a part is neither accelerator=KIND nor RESOURCE=AMOUNT.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    kinds = [part.partition("=")[2].strip() for part in parts if part.startswith("accelerator=")]
    if not all(kinds):
        fix = "write --require accelerator=L4 (`ray status` lists accelerator_type:L4)"
        raise ConfigError("--require {seen} does not name the kind of GPU", seen=text, fix=fix)
    others = ",".join(part for part in parts if not part.startswith("accelerator="))
    custom = parse_amounts(others, "--require", "accelerator=L4 or fast_disk=1")
    return {**{ACCELERATOR + kind: _KIND_AMOUNT for kind in kinds}, **custom}


def trials_that_fit(node: Node, bundle: Mapping[str, float]) -> int:
    """How many trials with this bundle fit on one node; a fraction of a GPU never spans two GPUs."""
    return min((_fit(name, node.get(name, 0.0), amount) for name, amount in bundle.items()), default=0)


def _fit(name: str, available: float, amount: float) -> int:
    if amount <= 0:
        return 2**31
    if name == "GPU" and amount < 1:
        return int(available) * int(1 / amount + 1e-9)
    return int(available / amount + 1e-9)


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster, and what an autoscaler may add.

    kinds: kinds of nodes that may be added, each with its highest count. grows: nodes of unknown kinds may be
    added (Kubernetes does not tell the driver).
    """

    nodes: Sequence[Node]
    kinds: Sequence[tuple[Node, int]] = ()
    grows: bool = False

    def fits_now(self, bundle: Mapping[str, float]) -> int:
        """How many trials fit at a time on the present nodes."""
        return sum(trials_that_fit(node, bundle) for node in self.nodes)

    def fits(self, bundle: Mapping[str, float]) -> int:
        """How many trials fit at a time, on the present nodes or on those that may be added."""
        to_add = sum(trials_that_fit(node, bundle) * count for node, count in self.kinds)
        return max(self.fits_now(bundle), to_add)

    def __str__(self) -> str:
        """`2 nodes: 1 CPU, 0 GPU; 8 CPU, 1 GPU L4`, and what may be added."""
        here = "; ".join(_describe(node) for node in self.nodes if node.get("CPU") or node.get("GPU"))
        text = f"{len(self.nodes)} node{'s' * (len(self.nodes) != 1)}: {here or 'no CPU'}"
        more = "; ".join(f"{count} times {_describe(node)}" for node, count in self.kinds if count > 0)
        return f"{text}; to add: {more}" if more else text


def trial_resources(config: SweepConfig, cluster: Cluster, fix: str = "") -> TrialResources:
    """The resources of each trial, and how many run at a time.

    As many run as fit; where an autoscaler may add machines, as many as fit on all that it may add: trials
    that wait are what makes it start them.

    fix: what to do where none fits, if it is not to change the options.

    Raises:
        ConfigError: no node, present or to be added, can hold one trial, or more than one GPU is asked for.
    """
    check_gpus_per_trial(config.gpus_per_trial)
    gpus, extra = gpus_of_trial(config, cluster), parse_required(config.require)
    resources = TrialResources(config.cpus_per_trial, gpus, 1, extra)
    if not cluster.fits(resources.bundle) and not cluster.grows:
        problem = f"one trial ({resources}) fits on no node of the cluster"
        raise ConfigError(problem, seen=str(cluster), fix=fix or _fix(resources))
    return replace(resources, concurrency=concurrency(config, resources, cluster))


def gpus_of_trial(config: SweepConfig, cluster: Cluster) -> float:
    """GPUs of a trial before it is measured how many share one; one where a node has any, if none is said."""
    if config.gpus_per_trial >= 0:
        return config.gpus_per_trial
    all_nodes = [*cluster.nodes, *(node for node, count in cluster.kinds if count > 0)]
    return 1.0 if any(node.get("GPU", 0) for node in all_nodes) else 0.0


def concurrency(config: SweepConfig, resources: TrialResources, cluster: Cluster) -> int:
    """Trials at a time, at least one: what fits, and not more than was asked for."""
    fits = cluster.fits(resources.bundle)
    wanted = config.concurrency or fits
    return max(1, wanted if cluster.grows else min(wanted, fits))


def _fix(resources: TrialResources) -> str:
    if resources.extra:
        return "correct --require, or start a node that has it"
    if resources.gpus:
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
    cores = f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU"
    return ", ".join([" ".join([cores, *kinds]), *custom])


def trials_per_gpu(peak_bytes: int, gpu_bytes: int, cores_per_gpu: float, cpus: float) -> int:
    """How many trials fit on one GPU, at least 1.

    peak_bytes: torch's peak in one trial of the space's largest configuration, images and evaluator included.
    gpu_bytes: the GPU's memory. cores_per_gpu: of its node. cpus: of one trial, which only waits without a
    core of its own.
    """
    by_memory = int(gpu_bytes * USABLE_MEMORY // max(peak_bytes + CONTEXT_BYTES, 1))
    by_cores = int(cores_per_gpu / max(cpus, 1e-9) + 1e-9)
    return max(1, min(by_memory, by_cores, MAX_TRIALS_PER_GPU))


def wanted_trials_per_gpu(config: SweepConfig, cluster: Cluster) -> int:
    """How many trials of the sweep there are at most for each GPU of the cluster."""
    gpus = max(1, cluster.fits({"GPU": 1.0}))
    trials = min(config.trials, config.concurrency or config.trials)
    return max(1, math.ceil(trials / gpus))


def gpu_fraction(trials: int) -> float:
    """1/trials, rounded down to Ray's four decimals, so that all of them fit on the GPU."""
    return math.floor(10_000 / trials) / 10_000
