"""Connecting to a Ray cluster, and the checks of it before a sweep writes anything.

Does it answer, accept our token, run the same versions; do its nodes see the sweep's folder or object store?
Each check takes half a minute at most.
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
"""Clocks of nodes that differ by more than this from the driver's are warned of."""
_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # where `ray up` leaves the cluster's file on the head

_PROBE = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", configure_logging=False)
print("reached")
"""


def list_nodes(address: str) -> list[dict[str, Any]]:
    """The nodes of the cluster at `address` as Ray lists them; connects for the call if needed."""
    import ray

    connects = not ray.is_initialized()
    try:
        if connects:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        return list(ray.nodes())
    finally:
        if connects and ray.is_initialized():
            ray.shutdown()


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to the cluster at `address`; for `local` nothing: that Ray is started for the search.

    Raises:
        ConfigError: nothing answers there, the token is wrong, or its Ray or Python differs from ours.
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
    """Try to reach the cluster in a child process: Ray retries for minutes, and then ends the process.

    Raises:
        ConfigError: see `connected`.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (port.isdigit() and _connects(host, int(port))):
        raise ConfigError(
            "no Ray cluster answers at --address {seen}",
            seen=address,
            fix="start it (ray up, ray start --head), or correct HOST:PORT (Ray's own is 6379)",
        )
    output = _try(address)
    if "reached" not in output:
        raise _connection_error(address, output)


def _try(address: str) -> list[str]:
    """The lines that Ray prints when it connects, up to the decisive one, within `PROBE_SEC`."""
    command, output = [sys.executable, "-c", _PROBE, address], list[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        timer = threading.Timer(PROBE_SEC, process.kill)
        timer.start()
        for line in process.stdout or ():
            output.append(line.strip())
            if output[-1] == "reached" or "InvalidAuthToken" in line:
                break
        process.kill()
        timer.cancel()
    return output


def _connects(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host or "127.0.0.1", port), timeout=3.0):
        return True
    return False


def _connection_error(address: str, output: list[str]) -> ConfigError:
    """The error, in one line, for Ray's many lines of output."""
    if any("InvalidAuthToken" in line for line in output):
        return ConfigError(
            "the cluster at {seen} does not accept this machine's token, or there is none here",
            seen=address,
            fix="export RAY_AUTH_MODE=token, with the cluster's token in ~/.ray/auth_token or RAY_AUTH_TOKEN",
        )
    lines = [line for line in output if line]
    if any("Version mismatch" in line for line in lines):
        versions = [line for line in lines if line.startswith(("Ray:", "Python:"))]
        return ConfigError(
            "the versions of the cluster and of this machine differ",
            rule="both must have the same ray and python",
            seen="cluster and here: " + ", ".join(versions),
            fix="install what constraints.txt pins on both",
        )
    return ConfigError(
        "no Ray cluster answers at --address {seen}",
        seen=f"{address} ({lines[-1] if lines else f'silent for {PROBE_SEC:g} s'})",
        fix="start it (ray up, ray start --head), or correct --address",
    )


def cluster_nodes() -> Cluster:
    """The nodes of the connected cluster, without those being drained, and what its autoscaler may add."""
    import ray

    leaving = draining()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
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


def check_nodes(out: Path | str) -> None:
    """Ask every node whether it can write to `out`, and which gansweep it has; leaves nothing behind.

    out: a folder that the nodes share, or an object store's URL.

    Raises:
        SweepError: a node cannot, or has another gansweep.
    """
    if isinstance(out, str):
        for answer in _ask_nodes(out):
            _check_answer(answer, out)
    else:
        _check_folder(out)


def _check_folder(folder: Path) -> None:
    mark = folder / f".seen-{secrets.token_hex(8)}"
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for answer in _ask_nodes(str(mark)):
            _check_answer(answer, str(folder))
    except OSError as error:
        raise out_not_writable(folder, error) from error
    finally:
        mark.unlink(missing_ok=True)
        if created:
            with contextlib.suppress(OSError):  # another sweep may have begun in it
                folder.rmdir()


def out_not_writable(folder: Path, error: OSError) -> SweepError:
    """The error for an --out that this machine cannot write."""
    return SweepError(
        "--out cannot be written", seen=f"{folder}: {error.strerror or error}", fix="choose another --out"
    )


def _ask_nodes(mark: str) -> list[dict[str, Any]]:
    """The answers of all nodes, except those that take longer than `PROBE_SEC` (a machine still starting)."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Send the function by value: by its name, each node would import all that a sweep needs, torch included.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    here, task, began = str(Path(pipeline.__file__).resolve().parents[1]), ray.remote(_answer), time.time()
    calls = [
        task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(mark, node["NodeManagerAddress"], here)
        for node in ray.nodes()
        if node["Alive"]
    ]
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    done, _ = ray.wait(calls, num_returns=len(calls), timeout=PROBE_SEC)
    return [{**_result(ray, call), "began": began, "ended": time.time()} for call in done]


def _result(ray: Any, call: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(ray.get(call))
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"node": "a node", "problem": lines[-1][:300]}
    return answer


def _answer(mark: str, node: str, here: str) -> str:
    """Runs on a node. Returns JSON, so that nothing from a node is unpickled into an object here."""
    try:
        version = importlib.metadata.version("gansweep")
    except importlib.metadata.PackageNotFoundError:
        version = pipeline.__version__ if os.path.isdir(os.path.join(here, "pipeline")) else ""
    answer = {"node": node, "version": version, "clock": time.time()}
    if "://" in mark:
        from pipeline.storage.object_store import ObjectStore

        try:
            ObjectStore(mark).check()
        except Exception as error:  # OSError, SweepError: other credentials there, or no network
            answer["store_error"] = str(getattr(error, "seen", error))
        return json.dumps(answer)
    seen = os.path.exists(mark)
    writes = seen and os.access(os.path.dirname(mark), os.W_OK | os.X_OK)
    return json.dumps({**answer, "seen": seen, "writes": writes})


def _check_answer(answer: dict[str, Any], out: str) -> None:
    """Check what a node answered, and warn of a clock that is off.

    Raises:
        SweepError: the node cannot write to `out`, or has another gansweep.
    """
    node = answer["node"]
    if "No module named 'pipeline" in answer.get("problem", ""):
        answer = {**answer, "writes": True, "version": ""}
    elif "problem" in answer:
        log.warning(f"{node} did not answer: {answer['problem']}")
        return
    if "store_error" in answer:
        raise SweepError(
            "a node does not reach --out",
            rule="every node must be able to write there",
            seen=f"node {node}: {answer['store_error']}",
            fix="give all nodes its credentials, in the shell that starts Ray or by their machine's role",
        )
    if not answer.get("writes", True):
        what = "sees it but may not write it" if answer["seen"] else "does not see it"
        raise SweepError(
            f"--out {{seen}}: node {node} {what}",
            rule="it must be a folder that every node shares",
            seen=out,
            fix="name a folder on shared storage (NFS, EFS, a volume claim)",
        )
    if answer["version"] != pipeline.__version__:
        raise SweepError(
            "gansweep differs between the nodes",
            rule="every node must have the same version",
            seen=f"{answer['version'] or 'none'} on {node}, {pipeline.__version__} here",
            fix="install the same one on all nodes",
        )
    if not answer["began"] - SKEW_SEC < answer["clock"] < answer["ended"] + SKEW_SEC:
        log.warning(f"the clock of {node} is {answer['clock'] - answer['ended']:+.0f} s off: run NTP there")
