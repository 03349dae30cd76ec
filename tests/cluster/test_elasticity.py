"""The callbacks for nodes that come and go, called as Ray Tune calls them; no Ray runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import ConcurrencyLimiter, Searcher

from pipeline.cluster import elasticity
from pipeline.cluster.elasticity import ConcurrencyCallback, NodeLossCallback
from pipeline.config import SweepConfig
from pipeline.search.resources import Cluster, TrialResources, trial_resources


@pytest.fixture(autouse=True)
def _check_at_every_step(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(elasticity, "_PERIOD_SEC", 0.0)
    caplog.set_level("INFO", "pipeline")


def trial_on(node: str, failures: int = 1, error_file: str | None = None) -> Any:
    return SimpleNamespace(
        trial_id="t1", config={"number": 4}, last_result={"node": node}, error_file=error_file,
        run_metadata=SimpleNamespace(num_failures=failures),
    )  # fmt: skip


def test_the_loss_of_its_node_is_no_failure_of_a_trial(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost: set[str] = set()
    monkeypatch.setattr(elasticity, "lost_nodes", lambda: lost)
    callback, trial = NodeLossCallback(), trial_on("n1")
    callback.on_trial_recover(0, [], trial)
    callback.on_step_begin(1, [])
    assert trial.run_metadata.num_failures == 1, "its node is not known to be lost yet"
    lost.add("n1")
    callback.on_step_begin(2, [])
    callback.on_step_begin(3, [])
    assert trial.run_metadata.num_failures == 0
    assert caplog.messages == ["trial 4 lost its node and goes on elsewhere"]
    callback.on_trial_recover(4, [], trial)  # it fails by itself on another node, before its first report
    callback.on_step_begin(5, [])
    assert len(caplog.messages) == 1


def test_a_worker_that_dies_on_a_living_node_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elasticity, "lost_nodes", lambda: {"n2"})
    callback, trial = NodeLossCallback(), trial_on("n1", failures=2)
    callback.on_trial_recover(0, [], trial)
    callback.on_step_begin(1, [])
    assert trial.run_metadata.num_failures == 2


def test_no_failure_is_taken_back_for_a_preempted_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray has not counted its end: an earlier failure must stay counted."""
    monkeypatch.setattr(elasticity, "lost_nodes", lambda: {"n1"})
    file = tmp_path / "error.txt"
    file.write_text(f"Failure # 1 (now)\nTraceback\nray.exceptions.RayActorError: {elasticity.PREEMPTED}\n")
    callback, trial = NodeLossCallback(), trial_on("n1", failures=1, error_file=str(file))
    callback.on_trial_recover(0, [], trial)
    callback.on_step_begin(1, [])
    assert trial.run_metadata.num_failures == 1
    assert caplog.messages == [
        "trial 4: its machine is being taken away; it goes on elsewhere from where it was"
    ]


def test_the_number_of_trials_at_a_time_follows_the_nodes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [{"CPU": 2.0}]
    monkeypatch.setattr(elasticity, "cluster_nodes", lambda: Cluster(nodes))
    config = SweepConfig(address="auto", concurrency=5)
    searcher = ConcurrencyLimiter(Searcher(), max_concurrent=2)
    callback = ConcurrencyCallback(searcher, config, trial_resources(config, Cluster(nodes)))
    callback.on_step_begin(0, [])
    assert caplog.messages == []
    for count, limit in ((2, 4), (4, 5), (1, 2), (0, 1)):
        nodes[:] = [{"CPU": 2.0}] * count
        callback.on_step_begin(1, [])
        assert searcher.max_concurrent == limit
    assert caplog.messages[0] == "trials at a time: 4 instead of 2 (2 nodes: 2 CPU, 0 GPU; 2 CPU, 0 GPU)"
    callback.on_step_begin(2, [])
    waiting = [line for line in caplog.messages if line.startswith("no machine holds a trial (1 CPU, 0 GPU)")]
    assert waiting == caplog.messages[-1:], "logged at once, and then once a minute"


def test_a_local_ray_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elasticity, "cluster_nodes", lambda: pytest.fail("checked"))
    searcher = ConcurrencyLimiter(Searcher(), max_concurrent=2)
    ConcurrencyCallback(searcher, SweepConfig(), TrialResources()).on_step_begin(0, [])
    assert searcher.max_concurrent == 2
