"""A sweep with real services: a Ray cluster of three nodes, PostgreSQL, and an MLflow server on it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import machines
import optuna
import pytest
import torch

from pipeline.cluster import connection
from pipeline.cluster.jobs import head
from pipeline.cluster.jobs.client import describe_job
from pipeline.cluster.jobs.head import check_head
from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import ConfigError, SweepError
from pipeline.search.study_database import check_storage
from pipeline.training.checkpoint import read_records

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(400)]


V2 = {"RAY_enable_autoscaler_v2": "1"}
"""The autoscaler of Kubernetes, which reports what it can never add. Here it has nothing to add."""


@dataclass(frozen=True)
class Site:
    """What a cluster's operator has set up; `out` is the folder that the nodes share."""

    cluster: machines.RayCluster
    store: machines.Postgres
    tracking: str
    out: Path

    def gansweep(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline", *arguments]
        environment = {**self.cluster.client, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=folder or self.out, env=environment, capture_output=True, text=True, timeout=350
        )


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # A path of a Ray socket has at most 107 characters: pytest's folders are too deep.
    with tempfile.TemporaryDirectory(prefix="gs", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "out").mkdir()
        with (
            machines.postgres(folder / "pg") as store,
            machines.mlflow_server(folder / "ml", store) as uri,
            machines.ray_cluster(folder / "r", {"PGPASSWORD": store.password, **V2}) as cluster,
        ):
            yield Site(cluster, store, uri, folder / "out")


@pytest.fixture
def client(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """This process as a client of the cluster."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", site.cluster.token)
    return site


@pytest.fixture(scope="module")
def submitted(site: Site, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The smoke sweep with a custom space, its study in PostgreSQL, its runs in the MLflow server."""
    folder = tmp_path_factory.mktemp("project")
    machines.wait_for(lambda: machines.answers(f"{site.tracking}/health"), 60, "the MLflow server")
    machines.wait_for(lambda: _workers(site) == 2, 60, "both workers")
    return _submit(site, folder, "--trials", "2", "--kimg", "5")


def _submit(site: Site, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.toml").write_text((ROOT / "search_spaces/smoke.toml").read_text())
    return site.gansweep(
        *("submit", "--space", "mine.toml", "--data", "digits"),
        *("--out", str(site.out), "--storage", site.store.url("study"), "--tracking-uri", site.tracking),
        *("--extractor", "pixels", "--fid-samples", "500", "--final-samples", "500", *more),
        *("--second-extractor", "none"),
        folder=folder,
    )


def _workers(site: Site) -> int:
    with mock.patch.dict(os.environ, RAY_AUTH_TOKEN=site.cluster.token, RAY_AUTH_MODE="token"):
        return sum(node.get("CPU", 0) > 0 for node in head.head_nodes(site.cluster.address).nodes)


def _summary(site: Site, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((site.out / name / "summary.json").read_text())
    return content


def _mlflow(site: Site) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(site.tracking, site.tracking)


def _runs(site: Site, name: str) -> list[Any]:
    """All MLflow runs of a sweep."""
    mlflow = _mlflow(site)
    experiment = mlflow.get_experiment_by_name(f"gansweep/{name}")
    assert experiment is not None
    return [*mlflow.search_runs([experiment.experiment_id])]


def test_a_submitted_sweep_ends_with_a_registered_version(
    site: Site, submitted: subprocess.CompletedProcess[str]
) -> None:
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert submitted.stdout.startswith("mine-")
    assert "trials at a time: 2" in submitted.stderr
    summary = _summary(site, "mine")
    assert summary["state"] == "finished"
    assert summary["trials"] == {"complete": summary["trials"]["complete"], "failed": 0, "running": 0} | {
        "pruned": 2 - summary["trials"]["complete"]
    }
    assert _mlflow(site).get_model_version("mine", summary["registered"]["version"]).status == "READY"
    assert len(_runs(site, "mine")) == 3


def test_the_study_lives_in_the_database(
    site: Site, submitted: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", site.store.password)
    study = optuna.load_study(study_name="mine", storage=site.store.url("study"))
    assert len(study.trials) == 2
    assert all(trial.state.is_finished() for trial in study.trials)
    assert not (site.out / "mine/study.journal").exists()
    check_storage(site.store.url("study"), "mine", new=False)
    with pytest.raises(SweepError, match="study mine exists already in postgresql://"):
        check_storage(site.store.url("study"), "mine", new=True)


def test_trials_ran_on_both_workers(site: Site, submitted: subprocess.CompletedProcess[str]) -> None:
    """By the logs of each node's processes: Ray's dashboard may forget the actors of a job."""
    for name in ("w1", "w2"):
        logs = (site.out.parent / "r" / name).glob("session_*/logs/worker-*.out")
        assert any(":actor_name:train_trial\n" in log.read_text() for log in logs), name


COUNT = """
import json, sys, time
import numpy as np, ray
from ray._private.internal_api import node_stats
from pipeline.cluster.shared_objects import get_shared, put_shared
from pipeline.data.dataset import Dataset
from pipeline.metrics.extractors import build_extractor
from pipeline.metrics.frechet import build_evaluator
from pipeline.user_code import UserCode

def created(worker):
    stats = node_stats(worker["NodeManagerAddress"], worker["NodeManagerPort"], include_memory_info=False)
    return stats.store_stats.cumulative_created_bytes

@ray.remote(num_cpus=1, max_retries=0)
def trial(shared_refs):
    dataset, evaluator = get_shared(shared_refs)
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id(), len(dataset.train)

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
images = np.random.default_rng(0).integers(0, 256, (4000, 32, 32, 3), np.uint8)
dataset = Dataset("noise", images[:3600], images[3600:], None, None, (), "f")
evaluator = build_evaluator(dataset, build_extractor("pixels", dataset), 100)
workers = [worker for worker in ray.nodes() if worker["Resources"].get("CPU")]
before = [created(worker) for worker in workers]
shared_refs = put_shared(dataset, evaluator, UserCode())
answers = ray.get([trial.remote(shared_refs) for _ in range(16)])
trials = [sum(answer == (worker["NodeID"], 3600) for answer in answers) for worker in workers]
sent = [created(worker) - bytes_before for worker, bytes_before in zip(workers, before)]
print(json.dumps({"trials": trials, "sent": sent, "size": images.nbytes}))
"""


def test_images_go_to_each_node_once(site: Site, submitted: subprocess.CompletedProcess[str]) -> None:
    """Counted in the nodes' object stores: as many bytes as the images have, however many trials."""
    command = [sys.executable, "-c", COUNT, f"127.0.0.1:{site.cluster.port}"]
    environment = {**site.cluster.client, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    counted = json.loads(machines.script_lines(done.stdout)[-1])
    assert sum(counted["trials"]) == 16
    assert min(counted["trials"]) >= 2
    for sent in counted["sent"]:
        assert counted["size"] <= sent < 1.2 * counted["size"]


def test_no_password_is_written_down(client: Site, submitted: subprocess.CompletedProcess[str]) -> None:
    secret = client.store.password.encode()
    leaks = [path for path in client.out.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert leaks == []
    assert client.store.password not in submitted.stdout + submitted.stderr
    described = describe_job(client.cluster.address, submitted.stdout.split()[0])
    assert described["state"] == "SUCCEEDED"
    assert described["command"].endswith("--address auto")
    assert client.store.password not in json.dumps(described)


def test_what_the_cluster_cannot_give_is_refused_at_once(client: Site) -> None:
    started, address = time.monotonic(), client.cluster.address
    with pytest.raises(
        ConfigError, match=r"\(1 CPU, 1 GPU\) fits on no node .* 3 nodes: 1 CPU, 0 GPU; 1 CPU, 0 GPU"
    ):
        check_head(address, SweepConfig(gpus_per_trial=1))
    with pytest.raises(ConfigError, match=r"1 CPU, 0 GPU, L4\) fits on no node .*; correct --require"):
        check_head(address, SweepConfig(require="accelerator=L4"))
    with pytest.raises(ConfigError, match="the cluster has no job none-such"):
        describe_job(address, "none-such")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("token", "message"),
    [("0" * 64, "refuses this machine's token; put the cluster's token"), ("", "this machine has none")],
)
def test_a_wrong_token(client: Site, monkeypatch: pytest.MonkeyPatch, token: str, message: str) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/none")
    with pytest.raises(ConfigError, match=message):
        check_head(client.cluster.address, SweepConfig())


def test_a_wrong_token_of_a_driver(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    started = time.monotonic()
    with pytest.raises(ConfigError, match="does not accept this machine's token"):
        connection.probe_address(f"127.0.0.1:{site.cluster.port}")
    assert time.monotonic() - started < 30


def test_a_dead_head() -> None:
    port = machines.free_port()
    with pytest.raises(ConfigError, match=r"no Ray dashboard answers at --address .*refused"):
        check_head(f"http://127.0.0.1:{port}", SweepConfig())
    with pytest.raises(ConfigError, match="no Ray cluster answers at --address 127"):
        connection.probe_address(f"127.0.0.1:{port}")


def test_rays_own_port_is_not_the_dashboards(client: Site) -> None:
    with pytest.raises(ConfigError, match=r"speaks no HTTP.*the dashboard's port is 8265"):
        check_head(f"http://127.0.0.1:{client.cluster.port}", SweepConfig())


def test_other_versions(client: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for function, name, value in (
        ("version_of", "ray", "2.59.0"),
        ("platform.python_version", "", "3.12.1"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"pipeline.cluster.jobs.head.{function}", lambda *_, value=value: value)
            with pytest.raises(ConfigError, match=rf"machine differ: ray 2.*{name} {value}"):
                head.check_head_answers(client.cluster.address)


WAIT = """
import logging, sys, ray
from pipeline.cluster import autoscaler
from pipeline.errors import ConfigError
from pipeline.search.resources import TrialResources

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
log = logging.getLogger("pipeline")
log.addHandler(logging.StreamHandler(sys.stdout))
log.setLevel("INFO")
autoscaler._LOG_EVERY_SEC = 1.5
for bound, autoscaler._INFEASIBLE_SEC in ((2, 1000), (60, 2), (60, 1000)):
    try:
        autoscaler.wait_for_machine(TrialResources(1.0, 0.5), bound)
    except ConfigError as error:
        log.info(error)
"""


def test_the_wait_for_a_machine_has_an_end(site: Site, tmp_path: Path) -> None:
    """No machine comes in time; the autoscaler reports that it has none; one comes."""
    machines.wait_for(lambda: _workers(site) == 2, 60, "both workers")
    log = tmp_path / "wait.log"
    command = [sys.executable, "-c", WAIT, f"127.0.0.1:{site.cluster.port}"]
    environment = {**site.cluster.client, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
    with machines.process(*command, log=log, env=environment) as waiting:
        machines.wait_for(lambda: "has no such machine" in log.read_text(), 40, "the autoscaler's report")
        with machines.ray_node(site.cluster, site.out.parent / "g", "--num-gpus=1", "--num-cpus=1"):
            assert waiting.wait(40) == 0, log.read_text()
    lines = machines.script_lines(log.read_text())
    assert (
        lines[0]
        == "no machine holds a trial (1 CPU, 0.5 GPU): waiting for the autoscaler to add one, at most 2 s"
    )
    refusal = (
        r"no machine of the cluster holds one trial \(1 CPU, 0.5 GPU\): {}; now there is \d nodes: 1 CPU"
    )
    assert any(re.match(refusal.format(r"none came in \d s"), line) for line in lines), lines
    assert any(re.match(refusal.format("its autoscaler has no such machine to add"), line) for line in lines)
    assert any(line.startswith("still waiting for a machine with 1 CPU, 0.5 GPU: ") for line in lines)
    assert re.match(r"a machine is there after \d+ s: .*1 CPU, 1 GPU", lines[-1])


def test_the_same_submit_goes_on_after_the_loss_of_a_machine_and_of_the_job(
    client: Site, tmp_path: Path
) -> None:
    """Both by SIGKILL, in the middle of trials."""
    sweep = client.out / "again"
    size = ("--name", "again", "--trials", "3", "--kimg", "120", "--set", "tick_kimg=10", "--pruner", "none")
    with machines.ray_node(client.cluster, client.out.parent / "w3", "--num-cpus=1") as doomed:
        machines.wait_for(lambda: _workers(client) == 3, 60, "the third machine")
        sent = _submit(client, tmp_path, *size, "--no-wait")
        assert sent.returncode == 0, sent.stderr
        machines.wait_for(
            lambda: len({path.parent for path in sweep.glob("trials/*/state-*.pt")}) == 3, 90, "their ticks"
        )
        os.killpg(doomed.pid, signal.SIGKILL)
        machines.wait_for(lambda: any(sweep.glob("trials/*/failures.jsonl")), 60, "the loss of the machine")
    os.kill(int(re.findall(r"process (\d+)", SweepPaths(sweep).lock.read_text())[0]), signal.SIGKILL)
    job = sent.stdout.split()[0]
    machines.wait_for(lambda: describe_job(client.cluster.address, job)["state"] == "FAILED", 60, "its end")
    assert _summary(client, "again")["trials"]["complete"] < 3

    again = _submit(client, tmp_path, *size)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"resuming: \d of 3 trials over, \d in progress", again.stderr)
    ended = {"complete": 3, "pruned": 0, "failed": 0, "running": 0}
    assert _summary(client, "again")["trials"] == ended
    for number in range(3):
        assert [r.kimg for r in read_records(sweep / "trials" / str(number))] == [*range(10, 121, 10)]
    assert [run.info.status for run in _runs(client, "again")] == ["FINISHED"] * 4


def test_preempted_trials_keep_their_steps(site: Site) -> None:
    """The last test: it takes a worker away, as Kubernetes takes a pod."""
    run = ("run", "--address", f"127.0.0.1:{site.cluster.port}", "--space", "smoke", "--data", "digits")
    size = ("--trials", "2", "--kimg", "120", "--set", "tick_kimg=20", "--no-register", "--name", "spot")
    measure = ("--extractor", "pixels", "--fid-samples", "500", "--final-samples", "500", "--pruner", "none")
    measure += ("--second-extractor", "none")
    command = [sys.executable, "-m", "pipeline", *run, *size, *measure, "--out", str(site.out)]
    environment = {**site.cluster.client, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
    log, trials = site.out.parent / "spot.log", site.out / "spot" / "trials"
    with machines.process(*command, log=log, env=environment, cwd=site.out) as driver:
        machines.wait_for(lambda: len({p.parent for p in trials.glob("*/state-*.pt")}) == 2, 60, "a tick")
        node, asked = site.cluster.workers[1], time.monotonic()
        node.terminate()
        node.wait(20)
        assert time.monotonic() - asked < 10, "a trial that has stopped lets its machine go"
        states = {path.parent.name: torch.load(path) for path in sorted(trials.glob("*/state-*.pt"))}
        assert driver.wait(60) == 0, log.read_text()
    preempted = re.findall(
        r"trial (\d): its machine is being taken away; it goes on elsewhere", log.read_text()
    )
    assert len(preempted) == 1
    kept = states[preempted[0]]
    assert "tally" in kept["trainer"] or kept["trainer"]["nimg"] < 1000 * kept["record"]["kimg"] + 64
    assert _summary(site, "spot")["trials"]["complete"] == 2
    assert [[r.kimg for r in read_records(folder)] for folder in trials.iterdir()] == [
        [*range(20, 121, 20)]
    ] * 2
    assert [*trials.glob("*/failures.jsonl")] == []
