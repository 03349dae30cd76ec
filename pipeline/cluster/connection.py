"""The way to a Ray cluster: does it answer, let us in, have what a trial asks for, see the sweep's folder.

Owns: what is asked before anything is written, each answer within half a minute. Refuses: running trials.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import pipeline
from pipeline.cluster.preemption import draining
from pipeline.errors import ConfigError, SweepError
from pipeline.search.resources import Cluster, Node

log = logging.getLogger(__name__)

LOCAL = "local"
PROBE_SEC = 25.0
SKEW_SEC = 5.0
_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # where `ray up` leaves the cluster's file on the head

_ASK_RAY = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", configure_logging=False)
print("reached")
"""


def list_nodes(address: str) -> list[dict[str, Any]]:
    """The nodes of the cluster at `address` as Ray lists them; connects for that long if nobody is connected."""
    import ray

    mine = not ray.is_initialized()
    try:
        if mine:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        return list(ray.nodes())
    finally:
        if mine and ray.is_initialized():
            ray.shutdown()


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to the cluster at `address`; for `local` nothing: that Ray is started for the search.

    Raises:
        ConfigError: nothing answers there, the token is wrong, or its Ray or Python is another.
    """
    if address == LOCAL:
        yield
        return
    probe_address(address)
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def probe_address(address: str) -> None:
    """Try to reach the cluster in a process of its own: Ray retries for minutes, and then ends the caller's.

    Raises:
        ConfigError: see `connected`.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (port.isdigit() and _connects(host, int(port))):
        raise ConfigError(
            "a Ray cluster answers at --address",
            seen=address,
            fix="start it (ray up, ray start --head), or correct HOST:PORT (Ray's own is 6379)",
        )
    said = _try(address)
    if "reached" not in said:
        raise _refusal(address, said)


def _try(address: str) -> list[str]:
    """What Ray says when it connects, up to the line that decides, for at most `PROBE_SEC`."""
    command, said = [sys.executable, "-c", _ASK_RAY, address], list[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        clock = threading.Timer(PROBE_SEC, process.kill)
        clock.start()
        for line in process.stdout or ():
            said.append(line.strip())
            if said[-1] == "reached" or "InvalidAuthToken" in line:
                break
        process.kill()
        clock.cancel()
    return said


def _connects(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host or "127.0.0.1", port), timeout=3.0):
        return True
    return False


def _refusal(address: str, said: list[str]) -> ConfigError:
    """One line for what Ray wrote in many."""
    if any("InvalidAuthToken" in line for line in said):
        return ConfigError(
            "the cluster takes this machine's token",
            seen=f"another one, or none, for {address}",
            fix="export RAY_AUTH_MODE=token, with the cluster's token in ~/.ray/auth_token or RAY_AUTH_TOKEN",
        )
    lines = [line for line in said if line]
    if any("Version mismatch" in line for line in lines):
        versions = [line for line in lines if line.startswith(("Ray:", "Python:"))]
        return ConfigError(
            "the cluster and this machine have the same ray and python",
            seen="cluster and here: " + ", ".join(versions),
            fix="install what constraints.txt pins on both",
        )
    return ConfigError(
        "a Ray cluster answers at --address",
        seen=f"{address} ({lines[-1] if lines else f'silent for {PROBE_SEC:g} s'})",
        fix="start it (ray up, ray start --head), or correct --address",
    )


def cluster_nodes() -> Cluster:
    """What the cluster that this process is connected to has, without nodes that are to go, and may add."""
    import ray

    going = draining()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going]
    nodes: list[Node] = [node["Resources"] for node in alive]
    kinds = _launcher_kinds(_BOOTSTRAP.expanduser())
    return Cluster(nodes, kinds, grows=not kinds and "KUBERNETES_SERVICE_HOST" in os.environ)


def _launcher_kinds(path: Path) -> list[tuple[Node, int]]:
    """The machines that `ray up`'s autoscaler may add; none where this is not the head of such a cluster."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        head, most = config.get("head_node_type"), int(config.get("max_workers", 2))
        types: dict[str, Any] = config["available_node_types"]
        return [
            (dict(kind.get("resources", {})), min(most, int(kind.get("max_workers", most))))
            for name, kind in types.items()
            if name != head
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return []


def check_nodes(place: Path | str) -> None:
    """Ask every node whether it sees and may write a folder or a store's address, and which gansweep it has.

    Raises:
        SweepError: one does not; nothing is left behind.
    """
    if isinstance(place, str):
        for answer in _ask_nodes(place):
            _judge(answer, place)
    else:
        _check_folder(place)


def _check_folder(folder: Path) -> None:
    mark = folder / f".seen-{secrets.token_hex(8)}"
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for answer in _ask_nodes(str(mark)):
            _judge(answer, str(folder))
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        mark.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):  # another sweep may have begun in it
                folder.rmdir()


def unwritable(folder: Path, error: OSError) -> SweepError:
    """The refusal of an --out that this machine cannot write."""
    return SweepError(
        "--out can be written", seen=f"{folder}: {error.strerror or error}", fix="choose another --out"
    )


def _ask_nodes(mark: str) -> list[dict[str, Any]]:
    """The answers of all nodes but those that take longer than `PROBE_SEC` (a machine still starting)."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # The function itself is sent: by its name, each node would import all that a sweep needs, torch first.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    here, task, began = str(Path(pipeline.__file__).resolve().parents[1]), ray.remote(_answer), time.time()
    asked = [
        task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(mark, node["NodeManagerAddress"], here)
        for node in ray.nodes()
        if node["Alive"]
    ]
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=PROBE_SEC)
    return [{**_got(ray, work), "began": began, "ended": time.time()} for work in done]


def _got(ray: Any, work: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(ray.get(work))
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"node": "a node", "problem": lines[-1][:300]}
    return answer


def _answer(mark: str, node: str, here: str) -> str:
    """Runs on a node. JSON: nothing that a node says is unpickled into an object of ours."""
    try:
        version = importlib.metadata.version("gansweep")
    except importlib.metadata.PackageNotFoundError:
        version = pipeline.__version__ if os.path.isdir(os.path.join(here, "pipeline")) else ""
    answer = {"node": node, "version": version, "clock": time.time()}
    if "://" in mark:
        from pipeline.storage.object_store import ObjectStore

        try:
            ObjectStore(mark).check()
        except Exception as error:  # OSError, SweepError: the node has other credentials, or no way there
            answer["lacks"] = str(getattr(error, "seen", error))
        return json.dumps(answer)
    seen = os.path.exists(mark)
    writes = seen and os.access(os.path.dirname(mark), os.W_OK | os.X_OK)
    return json.dumps({**answer, "seen": seen, "writes": writes})


def _judge(answer: dict[str, Any], folder: str) -> None:
    node = answer["node"]
    if "No module named 'pipeline" in answer.get("problem", ""):
        answer = {**answer, "writes": True, "version": ""}
    elif "problem" in answer:
        log.warning(f"{node} did not answer: {answer['problem']}")
        return
    if "lacks" in answer:
        raise SweepError(
            "every node reaches --out",
            seen=f"node {node}: {answer['lacks']}",
            fix="give all nodes its credentials, in the shell that starts Ray or by their machine's role",
        )
    if not answer.get("writes", True):
        what = "sees it but may not write it" if answer["seen"] else "does not see it"
        raise SweepError(
            "--out is a folder that every node shares",
            seen=f"{folder}: node {node} {what}",
            fix="name a folder on shared storage (NFS, EFS, a volume claim)",
        )
    if answer["version"] != pipeline.__version__:
        raise SweepError(
            "every node has this gansweep",
            seen=f"{answer['version'] or 'none'} on {node}, {pipeline.__version__} here",
            fix="install the same one on all nodes",
        )
    if not answer["began"] - SKEW_SEC < answer["clock"] < answer["ended"] + SKEW_SEC:
        log.warning(f"the clock of {node} is {answer['clock'] - answer['ended']:+.0f} s off: run NTP there")
