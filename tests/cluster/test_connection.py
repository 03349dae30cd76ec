"""What a sweep asks of a machine and a cluster before it begins; real clusters stand in test_cluster.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray._private.utils import check_version_info

from pipeline.cluster import connection, elasticity
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError, SweepError
from pipeline.search.resources import TrialResources, trial_resources
from pipeline.search.space.builtin import load_space
from pipeline.search.study import check_storage
from pipeline.sweep.preflight import check_out
from pipeline.sweep.request import Request
from pipeline.sweep.run import run_sweep


def test_another_ray_or_python_is_told_in_a_line() -> None:
    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.59.0", "python_version": "3.12.1"}, "process 7")
    error = connection._refusal("10.0.0.1:6379", [line.strip() for line in str(caught.value).splitlines()])
    assert str(error).startswith("the cluster and this machine have the same ray and python; got cluster and")
    assert "Ray: 2.59.0, Python: 3.12.1, Ray: 2.6" in str(error)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["W x gcs_client.cc: RPC error: InvalidAuthToken: missing"], "takes this machine's token"),
        (["ConnectionError: Could not find any running Ray instance."], r"got auto \(ConnectionError: Could"),
        ([], r"got auto \(silent for 25 s\)"),
    ],
)
def test_what_ray_says_in_many_lines_becomes_one(said: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        raise connection._refusal("auto", said)


ANSWER = {"node": "10.0.0.2", "seen": True, "writes": True, "version": "0.1.0", "clock": 50.0, "began": 49.0}


def judged(**change: Any) -> list[str]:
    said: list[str] = []
    connection._judge(
        {**ANSWER, "version": connection.pipeline.__version__, "ended": 51.0, **change},
        Path("/s"),
        said.append,
    )
    return said


def test_a_good_node_is_silent() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"seen": False, "writes": False},
            r"every node shares; got /s: node 10.0.0.2 does not see it; name a",
        ),
        ({"writes": False}, "node 10.0.0.2 sees it but may not write it"),
        ({"version": "0.0.9"}, r"every node has this gansweep; got 0.0.9 on 10.0.0.2"),
        ({"problem": "ModuleNotFoundError: No module named 'pipeline'"}, "got none on 10.0.0.2"),
    ],
)
def test_a_node_that_cannot_take_part_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        judged(**change)


@pytest.mark.parametrize(("clock", "off"), [(43.0, "-8 s off"), (57.0, "+6 s off")])
def test_a_wrong_clock_is_told(clock: float, off: str) -> None:
    (said,) = judged(clock=clock)
    assert off in said


def test_a_launchers_file_says_what_may_be_added(tmp_path: Path) -> None:
    path = tmp_path / "ray_bootstrap_config.yaml"
    assert connection._launcher_kinds(path) == []
    path.write_text(
        "max_workers: 3\nhead_node_type: head\navailable_node_types:\n"
        "  head: {resources: {CPU: 0}}\n  gpu: {max_workers: 5, resources: {CPU: 8, GPU: 1}}\n"
        "  big: {max_workers: 1, resources: {CPU: 8, GPU: 4}}\n"
    )
    assert connection._launcher_kinds(path) == [({"CPU": 8, "GPU": 1}, 3), ({"CPU": 8, "GPU": 4}, 1)]
    path.write_text("- no\n- mapping\n")
    assert connection._launcher_kinds(path) == []


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (Path(__file__) / "runs", "not a folder"),
        (Path(__file__), "not a folder"),
    ],
)
def test_an_out_that_cannot_be_is_refused(out: Path, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        check_out(out)


def test_a_folder_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    check_out(tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_is_not_asked_of_a_machine_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.shared_objects.gpu_count", lambda: 0)
    plan = SweepConfig(name="x", space="smoke", gpus_per_trial=0.5)
    request = Request(load_space("smoke"), plan, tmp_path / "runs", None, say=lambda text: None)
    with pytest.raises(
        ConfigError, match=r"0.5 GPU\) fits on a node.*--gpus-per-trial \(0 trains on cores\)"
    ):
        run_sweep(request)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", r"--storage is a database URL; got study.db"),
        (
            "postgresql://u:hush@127.0.0.1:1/x",
            r"database answers; got postgresql://\*\*\*@127.0.0.1:1/x \(Op",
        ),
        ("oracle9://h/x", r"database answers; got oracle9://h/x \(NoSuchModule"),
    ],
)
def test_a_database_that_cannot_be_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(SweepError, match=message) as caught:
        check_storage(url, "x", new=True)
    assert "hush" not in str(caught.value)


def trial(node: str, failures: int = 1, error_file: str | None = None) -> Any:
    return SimpleNamespace(
        trial_id="t1", config={"number": 4}, last_result={"node": node}, error_file=error_file,
        run_metadata=SimpleNamespace(num_failures=failures),
    )  # fmt: skip


def test_the_trial_of_a_lost_node_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: set[str] = set()
    said: list[str] = []
    monkeypatch.setattr(elasticity, "lost_nodes", lambda: lost)
    monkeypatch.setattr(elasticity, "_PERIOD_SEC", 0.0)
    pardon, one = elasticity.NodeLossCallback(said.append), trial("n1")
    pardon.on_trial_recover(0, [], one)
    pardon.on_step_begin(1, [])
    assert one.run_metadata.num_failures == 1, "its node is not known to be lost yet"
    lost.add("n1")
    pardon.on_step_begin(2, [])
    pardon.on_step_begin(3, [])
    assert one.run_metadata.num_failures == 0
    assert said == ["trial 4 lost its node and goes on elsewhere"]
    pardon.on_trial_recover(4, [], one)  # elsewhere it fails by itself, before it reports
    pardon.on_step_begin(5, [])
    assert len(said) == 1


def test_a_worker_that_dies_on_a_living_node_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elasticity, "lost_nodes", lambda: {"n2"})
    monkeypatch.setattr(elasticity, "_PERIOD_SEC", 0.0)
    pardon, one = elasticity.NodeLossCallback(print), trial("n1", failures=2)
    pardon.on_trial_recover(0, [], one)
    pardon.on_step_begin(1, [])
    assert one.run_metadata.num_failures == 2


def test_a_trial_that_had_notice_needs_no_pardon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has not counted it: another failure, of before, must not be forgotten for it."""
    monkeypatch.setattr(elasticity, "lost_nodes", lambda: {"n1"})
    monkeypatch.setattr(elasticity, "_PERIOD_SEC", 0.0)
    wrote, said = tmp_path / "error.txt", list[str]()
    wrote.write_text(f"Failure # 1 (now)\nTraceback\nray.exceptions.RayActorError: {elasticity.PREEMPTED}\n")
    pardon, one = elasticity.NodeLossCallback(said.append), trial("n1", failures=1, error_file=str(wrote))
    pardon.on_trial_recover(0, [], one)
    pardon.on_step_begin(1, [])
    assert one.run_metadata.num_failures == 1
    assert said == ["trial 4: its machine is being taken away; it goes on elsewhere from where it was"]


def test_trials_at_a_time_follow_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.search.resources import Cluster

    nodes, said = [{"CPU": 2.0}], list[str]()
    monkeypatch.setattr(elasticity, "cluster_nodes", lambda: Cluster(nodes))
    monkeypatch.setattr(elasticity, "_PERIOD_SEC", 0.0)
    plan = SweepConfig(address="auto", concurrency=5)
    searcher = SimpleNamespace(max_concurrent=2)
    follow = elasticity.ConcurrencyCallback(
        searcher, plan, trial_resources(plan, Cluster(nodes)), said.append
    )  # type: ignore[arg-type]
    follow.on_step_begin(0, [])
    assert said == []
    for count, limit in ((2, 4), (4, 5), (1, 2), (0, 1)):
        nodes[:] = [{"CPU": 2.0}] * count
        follow.on_step_begin(1, [])
        assert searcher.max_concurrent == limit
    assert said[0] == "trials at a time: 4 instead of 2 (2 nodes: 2 CPU, 0 GPU; 2 CPU, 0 GPU)"
    follow.on_step_begin(2, [])
    waits = [line for line in said if line.startswith("no machine holds a trial (1 CPU, 0 GPU): waiting")]
    assert waits == said[-1:], "told at once, and then once a minute"


def test_a_machine_alone_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elasticity, "cluster_nodes", lambda: pytest.fail("looked"))
    monkeypatch.setattr(elasticity, "_PERIOD_SEC", 0.0)
    follow = elasticity.ConcurrencyCallback(
        SimpleNamespace(max_concurrent=2), SweepConfig(), TrialResources(), print
    )  # type: ignore[arg-type]
    follow.on_step_begin(0, [])
