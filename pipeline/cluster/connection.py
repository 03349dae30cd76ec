"""Connecting to a Ray cluster, and the checks of it before a sweep writes anything.

Each check takes half a minute at most.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

import pipeline
from pipeline.cluster._compat import draining_nodes
from pipeline.cluster.local_machine import available_memory, shared_memory_usable, usable_cores
from pipeline.cluster.socket_folder import ray_folder
from pipeline.cluster.tasks import alive_nodes, run_on_nodes
from pipeline.cluster.versions import versions_differ
from pipeline.cluster.worker_imports import worker_options
from pipeline.errors import ConfigError, SweepError
from pipeline.search.resources import Cluster, Node
from pipeline.storage.folders import free_bytes, not_writable

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


@contextlib.contextmanager
def running_ray(address: str, **options: Any) -> Iterator[None]:
    """A connection to the Ray at `address`, or with `LOCAL` a Ray of its own, until the end of the block.

    Raises:
        ConfigError: this process has a connection already.
    """
    if ray.is_initialized():
        raise ConfigError(
            "this process uses Ray already",
            rule="a sweep connects by itself, and to one Ray at a time",
            fix="call ray.shutdown() before it, or start it in another process",
        )
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **worker_options(), **options)
    try:
        yield
    finally:
        ray.shutdown()


def local_ray() -> contextlib.AbstractContextManager[None]:
    """A Ray of its own on this machine until the end of the block, with the cores that may be used here.

    Raises:
        ConfigError: this process has a connection already, or no folder can hold Ray's sockets.
    """
    folder = ray_folder().path
    options = {} if shared_memory_usable() else _objects_on_disk(folder)
    return running_ray(
        LOCAL, include_dashboard=False, num_cpus=usable_cores().usable, _temp_dir=str(folder), **options
    )


def _objects_on_disk(folder: Path) -> dict[str, Any]:
    """Options for a Ray that keeps shared objects in files below `folder`; by itself it asks for /dev/shm."""
    size = min(0.3 * available_memory()[0], 0.5 * free_bytes(folder))
    return {"_plasma_directory": str(folder), "object_store_memory": int(size)}


def list_nodes(address: str) -> list[dict[str, Any]]:
    """The nodes of the cluster at `address` as Ray lists them; connects for the call if needed."""
    with contextlib.nullcontext() if ray.is_initialized() else connected(address):
        return list(ray.nodes())


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
    with running_ray(address):
        yield


def probe_address(address: str) -> None:
    """Try to reach the cluster in a child process: Ray retries for minutes, and then ends the process.

    Raises:
        ConfigError: see `connected`.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not _connects(host, port):
        raise _no_cluster(address, "HOST:PORT (Ray's own is 6379)")
    output = _try(address)
    if "reached" not in output:
        raise _connection_error(address, output)


def _try(address: str) -> list[str]:
    """The lines that Ray prints when it connects, up to the decisive one, within `PROBE_SEC`."""
    command, output = [sys.executable, "-c", _PROBE, address], list[str]()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        timer = threading.Timer(PROBE_SEC, process.kill)
        timer.start()
        for line in process.stdout or ():
            output.append(line.strip())
            if output[-1] == "reached" or "InvalidAuthToken" in line:
                break
        process.kill()
        timer.cancel()
    return output


def _connects(host: str, port: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name or a number that cannot be one
        socket.create_connection((host or "127.0.0.1", int(port)), timeout=3.0).close()
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
        return versions_differ("cluster and here: " + ", ".join(versions))
    return _no_cluster(f"{address} ({lines[-1] if lines else f'silent for {PROBE_SEC:g} s'})", "--address")


def _no_cluster(seen: str, wrong: str) -> ConfigError:
    return ConfigError(
        "no Ray cluster answers at --address {seen}",
        seen=seen,
        fix=f"start it (ray up, ray start --head), or correct {wrong}",
    )


def cluster_nodes() -> Cluster:
    """The nodes of the connected cluster, without those being drained, and what its autoscaler may add."""
    leaving = draining_nodes()
    nodes: list[Node] = [node["Resources"] for node in alive_nodes() if node["NodeID"] not in leaving]
    kinds = _launcher_kinds(_BOOTSTRAP.expanduser())
    return Cluster(nodes, kinds, grows=not kinds and "KUBERNETES_SERVICE_HOST" in os.environ)


def _launcher_kinds(path: Path) -> list[tuple[Node, int]]:
    """The machines that `ray up`'s autoscaler may add; none where this is not the head of such a cluster."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        head, most = config.get("head_node_type"), int(config.get("max_workers", 2))
        return [
            (dict(kind.get("resources", {})), min(most, int(kind.get("max_workers", most))))
            for name, kind in config["available_node_types"].items()
            if name != head
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return []


@dataclass(frozen=True)
class NodeAnswer:
    """What a node says before a sweep begins.

    version: of its gansweep, empty = none. clock: its time, seconds since 1970. folder_error, store_error:
    why it cannot write to the sweep's folder or object store. problem: why there is no answer.
    """

    version: str = ""
    clock: float = 0.0
    folder_error: str = ""
    store_error: str = ""
    problem: str = ""


def check_nodes(out: Path | str) -> None:
    """Ask every node whether it can write to `out`, and which gansweep it has; leaves nothing behind.

    out: a folder that the nodes share, or an object store's URL.

    Raises:
        SweepError: a node cannot, or has another gansweep.
    """
    if isinstance(out, str):
        _ask_nodes(out, out)
        return
    mark = out / f".seen-{secrets.token_hex(8)}"
    created = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
        _ask_nodes(str(mark), str(out))
    except OSError as error:
        raise not_writable("--out", out, error, "choose another --out") from error
    finally:
        mark.unlink(missing_ok=True)
        if created:
            with contextlib.suppress(OSError):  # another sweep may have begun in it
                out.rmdir()


def _ask_nodes(mark: str, out: str) -> None:
    """Check the answers of all nodes; one that takes longer than `PROBE_SEC` may be starting still."""
    from ray import cloudpickle

    # Send the function by value: by its name, each node would import all that a sweep needs, torch included.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    began = time.time()
    try:
        answers = run_on_nodes(
            ray.remote(_answer), alive_nodes(), (mark,), PROBE_SEC, lambda reason: {"problem": reason}
        )
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ended = time.time()
    for node, answer in answers:
        _check_answer(node, NodeAnswer(**answer), out, (began, ended))


def _answer(mark: str) -> dict[str, object]:
    """Runs on a node. Returns the fields of its `NodeAnswer`: the class itself is another one there."""
    answer = {"version": pipeline.__version__, "clock": time.time()}
    if "://" in mark:
        from pipeline.storage.object_store import ObjectStore

        try:
            ObjectStore(mark).check()
        except Exception as error:  # OSError, SweepError: other credentials there, or no network
            answer["store_error"] = str(getattr(error, "seen", error))
    elif not os.path.exists(mark):
        answer["folder_error"] = "does not see it"
    elif not os.access(os.path.dirname(mark), os.W_OK | os.X_OK):
        answer["folder_error"] = "sees it but may not write it"
    return answer


def _check_answer(node: str, answer: NodeAnswer, out: str, asked: tuple[float, float]) -> None:
    """Check what a node answered, and warn of a clock that is off.

    asked: seconds since 1970 before and after all nodes were asked.
    """
    if answer.problem and "No module named 'pipeline" not in answer.problem:
        log.warning(f"{node} did not answer: {answer.problem}")
        return
    if answer.store_error:
        raise SweepError(
            "a node does not reach --out",
            rule="every node must be able to write there",
            seen=f"node {node}: {answer.store_error}",
            fix="give all nodes its credentials, in the shell that starts Ray or by their machine's role",
        )
    if answer.folder_error:
        raise SweepError(
            f"--out {{seen}}: node {node} {answer.folder_error}",
            rule="it must be a folder that every node shares",
            seen=out,
            fix="name a folder on shared storage (NFS, EFS, a volume claim)",
        )
    if answer.version != pipeline.__version__:
        raise SweepError(
            "gansweep differs between the nodes",
            rule="every node must have the same version",
            seen=f"{answer.version or 'none'} on {node}, {pipeline.__version__} here",
            fix="install the same one on all nodes",
        )
    if not asked[0] - SKEW_SEC < answer.clock < asked[1] + SKEW_SEC:
        log.warning(f"the clock of {node} is {answer.clock - asked[1]:+.0f} s off: run NTP there")
