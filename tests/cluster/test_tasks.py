"""How functions become Ray tasks; no Ray runs."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from pipeline.cluster import tasks
from pipeline.cluster.tasks import gpu_task, result_of, run_on_nodes


def work() -> None: ...


@pytest.mark.parametrize(("gpus", "calls"), [(1.0, 1), (0.25, 1), (0.0, None)])
def test_a_process_with_a_gpu_is_used_once(gpus: float, calls: int | None) -> None:
    """On cores it is used again: starting one costs seconds."""
    assert gpu_task(work, gpus)._default_options.get("max_calls") == calls


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("first line\n  the last says it \n", "the last says it"),
        ("", "WorkerCrashedError"),
        ("x" * 999, "x" * 300),
    ],
)
def test_the_failure_of_a_task_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    class WorkerCrashedError(ray.exceptions.RayError):
        def __str__(self) -> str:
            return text

    def get(call: object) -> object:
        raise WorkerCrashedError

    monkeypatch.setattr(ray, "get", get)
    assert result_of("call", str) == reason


class Call:
    """A remote function that remembers where it was sent."""

    def __init__(self) -> None:
        self.nodes: list[str] = []

    def options(self, *, num_cpus: int, max_retries: int, scheduling_strategy: Any) -> Call:
        assert (num_cpus, max_retries, scheduling_strategy.soft) == (0, 0, False)
        self.nodes.append(scheduling_strategy.node_id)
        return self

    def remote(self, number: int) -> str:
        return f"{number} on {self.nodes[-1]}"


def test_a_task_runs_on_each_node_and_a_silent_one_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = "aa" * 28, "bb" * 28
    nodes = [{"NodeID": identity, "NodeManagerAddress": "10.0.0.2"} for identity in (first, second)]
    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (calls[:1], calls[1:]))
    monkeypatch.setattr(ray, "get", lambda call: call)
    answers = run_on_nodes(Call(), nodes, (7,), 2.5, lambda reason: f"failed: {reason}")
    assert answers == [("10.0.0.2", f"7 on {first}"), ("10.0.0.2", "failed: no answer within 2.5 s")]
    assert run_on_nodes(Call(), [], (7,), 2.5, str) == []


def test_dead_nodes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeID": "aa", "Alive": True}, {"NodeID": "bb", "Alive": False}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert tasks.alive_nodes() == nodes[:1]
