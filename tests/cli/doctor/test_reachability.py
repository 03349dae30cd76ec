"""Whether a tracking store can be reached is found without opening or creating it."""

from __future__ import annotations

import http.server
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.doctor.reachability import check_tracking


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers /health with 200, /closed/health with 401, anything else with 404."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            codes = {"/health": 200, "/closed/health": 401}
            self.send_response(codes.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_sqlite_store_is_read_without_being_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    found = check_tracking(f"sqlite:///{path}")
    assert (found.level, path.exists()) == ("ok", False)

    with sqlite3.connect(path) as store:
        store.execute("create table runs (run_uuid text)")
        store.execute("insert into runs values ('a')")
    assert check_tracking(f"sqlite:///{path}").text.endswith("1 runs")

    path.write_text("no database at all, but long enough to be looked at as one" * 20)
    found = check_tracking(f"sqlite:///{path}")
    assert found.level == "bad"
    assert "is not an MLflow store" in found.text


@pytest.mark.parametrize(("path", "level"), [("", "ok"), ("/", "ok"), ("/closed", "warn"), ("/other", "bad")])
def test_a_server_is_asked_for_its_health(server: str, path: str, level: str) -> None:
    found = check_tracking(server + path)
    assert found.level == level, found.text


def test_a_silent_server_is_bad_and_no_password_is_shown() -> None:
    port = closed_port()
    for uri in (f"http://me:secret@127.0.0.1:{port}", f"postgresql+psycopg://me:secret@127.0.0.1:{port}/x"):
        found = check_tracking(uri, timeout_sec=0.5)
        assert found.level == "bad"
        assert "does not answer" in found.text
        assert "secret" not in found.text


def test_a_sweep_in_an_object_store_needs_an_address() -> None:
    assert check_tracking("").level == "bad"


@pytest.mark.parametrize("uri", ["file:///data/mlruns", "/data/mlruns"])
def test_a_file_store_is_refused_with_what_to_use(uri: str) -> None:
    found = check_tracking(uri)
    assert found.level == "bad"
    assert "use sqlite:////data/mlruns/mlflow.db" in found.text
