"""Ray tasks: on a GPU, on each of several nodes; what came of a call; resources set aside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def gpu_task(function: Callable[..., Any], gpus: float = 1.0) -> Any:
    """The function as a Ray task; where it uses a GPU, its process ends with it.

    Ray reuses a process, unless a GPU is asked for where the function is decorated; `.options` come too late
    for that (ray issue 47767). An idle process would keep its CUDA context and all the memory it had.
    """
    return ray.remote(max_calls=1)(function) if gpus else ray.remote(function)


def result_of(call: Any, on_failure: Callable[[str], object]) -> Any:
    """What a task returned; where it failed or its process died, `on_failure` of the reason in one line."""
    try:
        return ray.get(call)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return on_failure(lines[-1].strip()[:300])


@contextlib.contextmanager
def placement(bundle: Mapping[str, float]) -> Iterator[Any]:
    """A placement group of one bundle, asked for but perhaps not placed yet; what runs in it ends with it."""
    group = placement_group([dict(bundle)])
    try:
        yield group
    finally:
        remove_placement_group(group)


def alive_nodes() -> list[Any]:
    """The nodes of the connected cluster that are alive, as Ray lists them."""
    return [node for node in ray.nodes() if node["Alive"]]


def run_on_nodes(
    task: Any,
    nodes: Sequence[Any],
    arguments: Sequence[object],
    timeout_sec: float,
    on_failure: Callable[[str], object],
) -> list[tuple[str, Any]]:
    """Run a remote function on each node, all at the same time; it takes no core.

    nodes: from `alive_nodes`. timeout_sec: for all of them. on_failure: makes a result of the reason, where a
    node has none. Returns the address of each node, and what the function returned there.
    """
    calls = []
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        calls.append(task.options(num_cpus=0, max_retries=0, scheduling_strategy=here).remote(*arguments))
    done = ray.wait(calls, num_returns=len(calls), timeout=timeout_sec)[0] if calls else []
    silent = f"no answer within {timeout_sec:g} s"
    return [
        (node["NodeManagerAddress"], result_of(call, on_failure) if call in done else on_failure(silent))
        for node, call in zip(nodes, calls, strict=True)
    ]
