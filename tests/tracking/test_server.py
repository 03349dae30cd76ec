"""An MLflow server is asked, without writing, whether it is one, is new enough, and is ours to write."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from http_servers import Respond, http_server, mlflow_api
from mlflow_server import Server, free_port

from pipeline.errors import RegistryError
from pipeline.tracking import server
from pipeline.tracking.server import check_http, is_prompt_on_server
from pipeline.tracking.store_schema import StoreAwayError

pytestmark = pytest.mark.mlflow


def refusing(status: int) -> Respond:
    return lambda method, path: mlflow_api(method, path) if method == "GET" else (status, "no")


def test_a_server_that_may_be_written() -> None:
    with http_server(mlflow_api) as uri:
        check_http(uri, write=True)


@pytest.mark.parametrize("status", [401, 403, 405])
def test_a_server_that_may_only_be_read(status: int) -> None:
    with http_server(refusing(status)) as uri:
        check_http(uri, write=False)
        with pytest.raises(
            RegistryError, match=f"may be read, but not written.*{status}: no.*MLFLOW_TRACKING_TO"
        ):
            check_http(uri, write=True)


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_asks_for_a_login(status: int) -> None:
    with (
        http_server(lambda *_: (status, "who are you")) as uri,
        pytest.raises(RegistryError, match=f"does not let this user in .it answers {status}: who are you"),
    ):
        check_http(uri, write=False)


@pytest.mark.parametrize(
    "answer", [(200, "<html>hello"), (200, '{"ok": 1}'), (404, '{"detail": "Not Found"}'), (200, "[]")]
)
def test_a_server_of_something_else(answer: tuple[int, str]) -> None:
    with (
        http_server(lambda *_: answer) as uri,
        pytest.raises(RegistryError, match="is no MLflow server .it answers") as caught,
    ):
        check_http(uri, write=True)
    assert not isinstance(caught.value, StoreAwayError)


def test_a_server_without_logged_models_is_too_old() -> None:
    def old(method: str, path: str) -> tuple[int, str]:
        return (404, "<html>") if "logged-models" in path else mlflow_api(method, path)

    with http_server(old) as uri, pytest.raises(RegistryError, match="too old .*upgrade it to MLflow 3"):
        check_http(uri, write=True)


def test_a_server_that_does_not_answer_is_named_in_one_line_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "PROBE_SEC", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, http_server(lambda *_: (503, "down")) as down:
        for uri in (
            f"http://user:hunter2@127.0.0.1:{free_port()}",
            f"http://user:hunter2@127.0.0.1:{silent.getsockname()[1]}",
            down,
        ):
            with pytest.raises(StoreAwayError, match="tracking server does not answer") as caught:
                check_http(uri, write=True)
            assert "hunter2" not in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_is_named_with_its_way_out(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    wanted = f"through the proxy in {variable}.*export NO_PROXY=mlflow.example.org"
    with pytest.raises(StoreAwayError, match=wanted):
        check_http("http://mlflow.example.org:5000", write=True)
    with http_server(lambda *_: (404, "<html>squid")) as proxy:
        monkeypatch.setenv(variable, proxy)
        with pytest.raises(RegistryError, match=f"is no MLflow server.*{wanted}"):
            check_http("http://mlflow.example.org:5000", write=True)


@pytest.mark.slow
def test_a_real_server_is_asked_and_keeps_nothing(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    real = Server(tmp_path)
    real.start()
    try:
        check_http(real.uri, write=True)
        client = MlflowClient(real.uri, real.uri)
        assert [one.name for one in client.search_experiments()] == ["Default"]
        assert client.search_registered_models() == []
        client.register_prompt("greeting", template="hello")
        client.create_registered_model("gan", tags={"a": "b"})
        assert [is_prompt_on_server(real.uri, name) for name in ("greeting", "gan", "none")] == [
            True,
            False,
            False,
        ]
    finally:
        real.kill()
