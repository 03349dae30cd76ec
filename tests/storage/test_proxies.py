"""Which proxy an address is asked through; this machine is asked directly."""

from __future__ import annotations

import os
import urllib.request

import pytest

from pipeline.storage.proxies import ask_loopback_directly, proxy_for

NAMES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no", "ftp")]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        for spelled in (name, name.upper()):
            monkeypatch.setenv(spelled, "")  # put back after the test, whatever it set
            monkeypatch.delenv(spelled)


def test_without_a_proxy_nothing_changes() -> None:
    before = dict(os.environ)
    ask_loopback_directly()
    assert dict(os.environ) == before


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_this_machine_is_added_to_no_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://10.255.255.1:3128")
    monkeypatch.setenv("NO_PROXY", "example.org, .corp")
    ask_loopback_directly()
    ask_loopback_directly()  # once more adds nothing
    for name in ("no_proxy", "NO_PROXY"):
        entries = os.environ[name].split(",")
        assert entries[:3] == ["example.org", ".corp", "localhost"]
        assert len(entries) == len(set(entries))
    for host in ("localhost:5000", "127.0.0.1:5000", "[::1]:5000", "mlflow.localhost"):
        assert urllib.request.proxy_bypass(host)


def test_the_mlflow_client_and_the_jobs_client_ask_it_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    from requests.utils import get_environ_proxies

    monkeypatch.setenv("all_proxy", "http://10.255.255.1:3128")
    ask_loopback_directly()
    for host in ("localhost", "127.0.0.1", "127.3.2.1", "[::1]", "0.0.0.0"):
        assert get_environ_proxies(f"http://{host}:5000") == {}
    assert get_environ_proxies("http://example.org")


def test_a_star_stays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://10.255.255.1:3128")
    monkeypatch.setenv("no_proxy", "*")
    ask_loopback_directly()
    assert os.environ["no_proxy"] == "*"
    assert proxy_for("http://example.org") == ""


def test_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("http://mlflow.corp:5000") == ""
    monkeypatch.setenv("ALL_PROXY", "http://10.255.255.1:3128")
    assert proxy_for("http://mlflow.corp:5000") == "ALL_PROXY"
    monkeypatch.setenv("http_proxy", "http://10.255.255.1:3128")
    assert proxy_for("http://mlflow.corp:5000") == "http_proxy"
    assert proxy_for("https://mlflow.corp") == "ALL_PROXY"
    monkeypatch.setenv("no_proxy", ".corp,10.0.0.0/8,other.org:80")
    for direct in ("http://mlflow.corp:5000", "http://10.1.2.3", "http://other.org:80", "http://127.9.9.9"):
        assert proxy_for(direct) == ""
    assert proxy_for("http://other.org:81") == "http_proxy"


@pytest.mark.parametrize("url", ["sqlite:////tmp/ml.db", "databricks", "", "http://[broken"])
def test_an_address_without_a_host_has_no_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://10.255.255.1:3128")
    assert proxy_for(url) == ""
