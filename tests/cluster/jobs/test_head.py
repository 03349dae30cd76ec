"""The dashboard of a cluster: its address, and what it answers (a real dashboard: integration/ray)."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from email.message import Message
from typing import Any

import pytest

from pipeline.cluster.jobs.head import ask_head, dashboard_address
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.1:8265", "http://10.0.0.1:8265"), ("https://ray.example.com/", "https://ray.example.com")],
)
def test_an_address_gets_its_scheme(text: str, address: str) -> None:
    assert dashboard_address(text) == address


@pytest.mark.parametrize("text", ["ray://h:10001", "http://", "http://u:pw@h:1", "http://[::1"])
def test_what_is_no_http_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an http address") as caught:
        dashboard_address(text)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "token", "message"),
    [
        (401, "t", "the cluster at http://h:1 refuses this machine's token; put"),
        (403, "", "asks for a token, and this machine has none; put"),
        (500, "", r"no Ray dashboard answers at --address http://h:1 \(Broken\); start"),
    ],
)
def test_a_refusal_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, code: int, token: str, message: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/none")

    def answer(request: urllib.request.Request, timeout: float) -> Any:
        assert request.get_header("Authorization") == (f"Bearer {token}" if token else None)
        raise urllib.error.HTTPError(request.full_url, code, "Broken", Message(), io.BytesIO())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(ConfigError, match=message):
        ask_head("http://h:1", "/api/version")
