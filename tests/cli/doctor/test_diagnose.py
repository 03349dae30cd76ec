"""The doctor sees what is there, says what is missing, and never dies of it."""

from __future__ import annotations

import http.server
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest

from pipeline.cli.doctor import diagnose, gpus
from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.ports import listening, ray_ports


@pytest.fixture
def server() -> Iterator[str]:
    """A tracking server's door: /health is OK, anything else is not."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            codes = {"/health": 200, "/closed/health": 401}
            self.send_response(codes.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.slow
def test_diagnosis_of_this_machine(tmp_path: Path) -> None:
    found = diagnose.diagnose(tmp_path / "runs")
    by_name = {finding.name: finding for finding in found}
    expected = {"python", "cores", "memory", "disk", "torch", "gpu", "torch pair", "ray", "optuna", "mlflow"}
    assert expected | {"bf16", "mnist5k", "inception", "tracking", "ray auth"} <= set(by_name)
    assert by_name["torch pair"].level == "ok"
    assert by_name["mnist5k"].level == "ok"
    assert not [finding for finding in found if "could not be checked" in finding.text]
    assert not (tmp_path / "runs").exists(), "looking changes nothing"


def test_the_doctor_imports_neither_torch_nor_mlflow_nor_ray() -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline import doctor\n"
        "doctor._versions(), doctor._digits(), doctor._disk(Path('.'))\n"
        "sys.exit(bool({'torch', 'mlflow', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failing_check_is_a_finding() -> None:
    def check() -> list[Finding]:
        raise OSError("no /proc here")

    (found,) = diagnose._guarded("memory", check)
    assert found == Finding("memory", "warn", "could not be checked: OSError: no /proc here")


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([], "ok"), (["ok"], "ok"), (["ok", "warn"], "warn"), (["warn", "bad", "ok"], "bad")],
)
def test_the_worst_level_counts(levels: list[diagnose.Level], expected: str) -> None:
    assert diagnose.worst_level([Finding("x", level, "") for level in levels]) == expected


def test_a_sqlite_store_is_read_without_being_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    found = diagnose.tracking_answers(f"sqlite:///{path}")
    assert (found.level, path.exists()) == ("ok", False)

    with sqlite3.connect(path) as store:
        store.execute("create table runs (run_uuid text)")
        store.execute("insert into runs values ('a')")
    assert diagnose.tracking_answers(f"sqlite:///{path}").text.endswith("1 runs")

    path.write_text("no database at all, but long enough to be looked at as one" * 20)
    found = diagnose.tracking_answers(f"sqlite:///{path}")
    assert found.level == "bad"
    assert "is no MLflow store" in found.text


@pytest.mark.parametrize(("path", "level"), [("", "ok"), ("/", "ok"), ("/closed", "warn"), ("/other", "bad")])
def test_a_server_is_asked_for_its_health(server: str, path: str, level: str) -> None:
    found = diagnose.tracking_answers(server + path)
    assert found.level == level, found.text


def test_a_silent_server_is_bad_and_no_password_is_shown() -> None:
    port = closed_port()
    for uri in (f"http://me:secret@127.0.0.1:{port}", f"postgresql+psycopg://me:secret@127.0.0.1:{port}/x"):
        found = diagnose.tracking_answers(uri, timeout_sec=0.5)
        assert found.level == "bad"
        assert "does not answer" in found.text
        assert "secret" not in found.text


@pytest.mark.parametrize("uri", ["file:///data/mlruns", "/data/mlruns"])
def test_a_file_store_is_refused_with_what_to_use(uri: str) -> None:
    found = diagnose.tracking_answers(uri)
    assert found.level == "bad"
    assert "use sqlite:////data/mlruns/mlflow.db" in found.text


def test_pins_are_read_from_constraints(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("# a pair\ntorch==2.14.1\ntorchvision == 0.29.1 ; sys\nRay[default]==2.60.0\n")
    assert diagnose.read_pins(path) == {"torch": "2.14.1", "torchvision": "0.29.1", "ray": "2.60.0"}
    assert diagnose.read_pins(tmp_path / "none") == {}


def test_versions_are_held_against_their_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "version_of", {"torch": "2.14.1+cu130", "ray": "2.61.0"}.get)
    assert diagnose._version("torch", "2.14.1") == Finding("torch", "ok", "2.14.1+cu130")
    assert diagnose._version("ray", "2.60.0").level == "warn"
    assert diagnose._version("optuna", None).level == "bad"


def test_a_mismatched_pair_is_bad() -> None:
    seen = {"version": "2.13.0+cpu", "vision": "", "why": "operator torchvision::nms does not exist"}
    found = diagnose._pair(seen)
    assert found.level == "bad"
    assert "torch 2.13.0+cpu (operator torchvision::nms does not exist)" in found.text


def test_a_broken_torch_is_bad_and_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "_ASK_TORCH", "import no_such_torch")
    (found,) = diagnose._torch()
    assert found.level == "bad"
    assert found.text == "cannot be used: ModuleNotFoundError: No module named 'no_such_torch'"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_containers_limit_is_found(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert diagnose._cgroup_cores(tmp_path) == cores


def test_a_gpu_that_torch_cannot_see_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    (found,) = gpus.gpu_findings({"cuda": None, "gpus": []})
    assert (found.level, "CPU build" in found.text) == ("warn", True)


@pytest.mark.parametrize(
    ("major", "minor", "level", "said"),
    [
        (8, 9, "ok", "compute 8.9, bfloat16 in hardware"),
        (8, 0, "ok", "compute 8.0, bfloat16 in hardware"),
        (7, 5, "warn", "compute 7.5: bfloat16 is emulated: --set precision=float32"),
    ],
)
def test_each_gpu_tells_its_bfloat16(major: int, minor: int, level: str, said: str) -> None:
    seen = {"cuda": "13.0", "gpus": [["NVIDIA L4", 24 * 2**30, major, minor]] * 2}
    found = gpus.gpu_findings(seen)
    assert found[:2] == [Finding("gpu", level, f"NVIDIA L4, 24 GiB, {said}")] * 2
    assert [finding.name for finding in found] == ["gpu", "gpu", "mps"]


@pytest.mark.parametrize(
    ("state", "level", "said"),
    [("runs", "ok", "runs"), ("found", "ok", "started where"), ("missing", "warn", "is not here: .* turns")],
)
def test_mps_is_a_warning_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, state: str, level: str, said: str
) -> None:
    monkeypatch.setattr("pipeline.cluster.mps.state", lambda: state)
    found = gpus.gpu_findings({"cuda": "13.0", "gpus": [["NVIDIA L4", 24 * 2**30, 8, 9]]})[-1]
    assert found.level == level
    assert re.search(said, found.text)
    assert "a fatal fault of one trial ends all trials of its GPU" in found.text


@pytest.mark.parametrize(
    ("mode", "token", "level"), [("disabled", "", "bad"), ("token", "", "warn"), ("token", "x", "ok")]
)
def test_auth_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, token: str, level: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert diagnose._auth().level == level


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:PORT"])
def test_a_silent_cluster_is_bad_at_once(address: str) -> None:
    (found,) = diagnose._cluster(address.replace("PORT", str(closed_port())))
    assert found.level == "bad"
    assert "nothing answers" in found.text


_CONNECTED = """
import os, ray
from pipeline import doctor

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
(found,) = doctor._cluster("auto")
print(found.level, found.text, ray.is_initialized(), flush=True)
ray.shutdown()
os._exit(0)  # a thread of Ray's may kill a process that takes its time
"""


@pytest.mark.ray
def test_a_clusters_nodes_are_listed() -> None:
    """Where it is already connected, it lists that cluster and leaves it connected."""
    done = subprocess.run([sys.executable, "-c", _CONNECTED], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    said = machines.own_lines(done.stdout)[-1]
    assert said.startswith("ok ")
    assert "1 CPU, 0 GPU" in said
    assert said.endswith(" True")


_LISTEN = """
import socket, sys
sockets = [socket.create_server((host, 0)) for host in ("0.0.0.0", "127.0.0.1")]
print(*(s.getsockname()[1] for s in sockets), flush=True)
sys.stdin.read()
"""


def test_open_ports_of_ray_are_named() -> None:
    """A process that is called as Ray's workers are, with one port for everybody and one for this machine."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LISTEN, "ray::Worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        everybody, loopback = map(int, process.stdout.readline().split())
        found = {port.number: port.open for port in listening()}
        assert found[everybody]
        assert not found[loopback]
        told = ray_ports()
        assert told.level == "warn"
        assert "all interfaces" in told.text
        assert "workers" in told.text
    finally:
        process.communicate()


def test_without_ray_it_is_said_what_a_sweep_opens(tmp_path: Path) -> None:
    told = ray_ports(tmp_path)
    assert told.level == "ok"
    assert "all interfaces" in told.text
