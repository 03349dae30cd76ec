"""Real services for a sweep on this machine: PostgreSQL, an MLflow server, a Ray cluster of three nodes.

Each listens on a free loopback port and is ended by its process id.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port above Ray's range for workers (10002 to 19999) that nobody listens on."""
    for port in range(21_000 + secrets.randbelow(8_000), 30_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)


def answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=5) as answer,
    ):
        return bool(answer.status == 200)
    return False


def script_lines(output: str) -> list[str]:
    """The lines that a script on a cluster printed, without those of Ray's raylet and autoscaler."""
    return [line for line in output.splitlines() if "(raylet)" not in line and "(autoscaler" not in line]


@contextlib.contextmanager
def process(*command: str, log: Path, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block; its output goes to `log`."""
    with log.open("wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **more)  # type: ignore[call-overload]
        try:
            yield child
        finally:
            end(child)


def end(*children: subprocess.Popen[bytes]) -> None:
    """End processes, all at the same time; a process that takes longer than 10 s is killed."""
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@dataclass(frozen=True)
class Postgres:
    """A server with the databases `study` and `mlflow`; its password is for the environment only."""

    port: int
    password: str

    def url(self, database: str) -> str:
        return f"postgresql://gansweep@127.0.0.1:{self.port}/{database}"


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """PostgreSQL from Debian, as a user that is not root; skips where it is not installed."""
    programs = _postgres_programs()
    user = _plain_user()
    folder.mkdir(parents=True)
    server = Postgres(free_port(), secrets.token_hex(12))
    (folder / "password").write_text(server.password)
    for part in (folder, folder / "password"):
        if user is not None:
            shutil.chown(part, user)
    for parent in folder.parents[:4]:  # pytest's folders are closed to other users, xdist adds one
        with contextlib.suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o011)
    plain = {"user": user} if user else {}
    initdb = (str(programs / "initdb"), "-D", str(folder / "data"), "-U", "gansweep", "-A", "scram-sha-256")
    subprocess.run(
        [*initdb, "--pwfile", str(folder / "password"), "--no-sync", "-E", "UTF8"],
        check=True, capture_output=True, cwd="/", **plain,
    )  # fmt: skip
    command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(server.port)]
    command += [
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"unix_socket_directories={folder}",
        "-c",
        "fsync=off",
    ]
    with process(*command, log=folder.parent / "postgres.log", cwd="/", **plain):
        import psycopg

        def connects() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(server.url("postgres"), password=server.password).close()
                return True
            return False

        wait_for(connects, 30, "PostgreSQL")
        with psycopg.connect(server.url("postgres"), password=server.password, autocommit=True) as session:
            for database in ("study", "mlflow"):
                session.execute(f"create database {database}")  # type: ignore[arg-type]
        yield server


def _postgres_programs() -> Path:
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found += [Path(which).parent for which in [shutil.which("initdb")] if which]
    if not found or not (found[0] / "initdb").exists():
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    return found[0]


def _plain_user() -> str | None:
    """The user for PostgreSQL, which refuses to run as root; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextlib.contextmanager
def mlflow_server(folder: Path, store: Postgres) -> Iterator[str]:
    """Start an MLflow server on PostgreSQL; gives its address, before it answers."""
    port = free_port()
    folder.mkdir(parents=True)
    command = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        store.url("mlflow"),
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    environment = {**os.environ, "PGPASSWORD": store.password, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with process(*command, log=folder / "server.log", env=environment, cwd=folder):
        yield f"http://127.0.0.1:{port}"


_START = (str(BIN / "ray"), "start", "--block", "--object-store-memory=100000000")


@dataclass
class RayCluster:
    """A head without cores and two workers with one each; token authentication is on."""

    port: int
    dashboard: int
    token: str
    environment: dict[str, str] = field(default_factory=dict)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    @property
    def client(self) -> dict[str, str]:
        """What a client of this cluster has in its environment."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "GANSWEEP_STO"))}
        return {**plain, "RAY_AUTH_TOKEN": self.token, "RAY_API_SERVER_ADDRESS": self.address}


@contextlib.contextmanager
def ray_cluster(folder: Path, extra: Mapping[str, str]) -> Iterator[RayCluster]:
    """`ray start --head` and twice `ray start --address`, each with a temporary folder of its own.

    extra: of the environment in which they are started, as an operator would export it.
    """
    cluster = RayCluster(free_port(), free_port(), secrets.token_hex(32))
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "GANSWEEP_STO"))}
    environment = {
        **plain, **extra, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token,
        "RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{BIN}:{os.environ['PATH']}",
    }  # fmt: skip
    cluster.environment = environment
    head = [
        *_START,
        "--head",
        f"--port={cluster.port}",
        f"--dashboard-port={cluster.dashboard}",
        "--num-cpus=0",
    ]
    head += ["--dashboard-host=127.0.0.1", f"--dashboard-agent-listen-port={free_port()}"]
    with contextlib.ExitStack() as nodes:
        folder.mkdir(parents=True)
        command = [*head, f"--temp-dir={folder / 'h'}"]
        more = {"env": environment, "start_new_session": True}
        head_node = nodes.enter_context(process(*command, log=folder / "h.log", **more))
        token = {"Authorization": f"Bearer {cluster.token}"}
        wait_for(lambda: answers(f"{cluster.address}/api/version", token), 60, "the head's dashboard")
        for name in ("w1", "w2"):
            worker = nodes.enter_context(ray_node(cluster, folder / name, "--num-cpus=1"))
            cluster.workers.append(worker)
        yield cluster
        end(head_node, *cluster.workers)


@contextlib.contextmanager
def ray_node(cluster: RayCluster, folder: Path, *resources: str) -> Iterator[subprocess.Popen[bytes]]:
    """One more node of a cluster; `resources`: options of `ray start`, such as --num-gpus=1."""
    command = [*_START, f"--address=127.0.0.1:{cluster.port}", f"--temp-dir={folder}", *resources]
    log = folder.with_suffix(".log")
    with process(*command, log=log, env=cluster.environment, start_new_session=True) as node:
        yield node
