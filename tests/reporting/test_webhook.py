"""News to an address: in order, once, and never in the way of the search."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.cli.submit import package_of
from pipeline.errors import ConfigError
from pipeline.reporting.webhook import WebhookNotifier, check_webhook
from pipeline.search.trial_manager import SweepTrial

TOKEN = "s3cret-token"


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """A real server on loopback, and the bodies it was sent."""
    got: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(500 if self.path.endswith("broken") else 204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{TOKEN}", got
        server.shutdown()


def content(state: str = "finished", *leaders: tuple[int, float]) -> dict[str, Any]:
    return {
        "state": state,
        "leaderboard": [{"trial": trial, "fid": fid} for trial, fid in leaders],
        "best": {"trial": 7, "fid": 12.5, "balance": 0.5, "kimg": 40},
        "registered": {"uri": "models:/tiny@champion"},
    }


@pytest.fixture
def tell(make_record: Any) -> Callable[..., None]:
    """tell(notifier, trial, kimg, fid): that trial has a new fid."""

    def tell_(notifier: WebhookNotifier, trial: int, kimg: int, fid: float) -> None:
        notifier.on_record(SweepTrial(trial, {}), make_record(kimg, fid, trial=trial))

    return tell_


def test_a_new_leader_and_the_end_are_told_in_order(
    hook: tuple[str, list[str]], tell: Callable[..., None]
) -> None:
    url, got = hook
    said: list[str] = []
    with WebhookNotifier(url, "tiny", said.append, content) as notifier:
        for trial, kimg, fid in ((0, 5, 40.0), (0, 10, 30.0), (1, 5, 35.0), (1, 10, 20.0)):
            tell(notifier, trial, kimg, fid)
    assert all(body.endswith("\n") and body.count("\n") == 1 for body in got)
    lines = [json.loads(body) for body in got]
    assert [(x["event"], x["trial"], x["fid"]) for x in lines] == [
        ("champion", 0, 40.0), ("champion", 1, 20.0), ("finished", 7, 12.5)
    ], "one who leads already is no news when he goes on"  # fmt: skip
    assert lines[1]["text"] == "tiny: trial 1 leads with fid 20 at 10 kimg"
    assert lines[2]["text"] == "tiny: finished, best fid 12.5 (trial 7), models:/tiny@champion"
    assert lines[2]["registered"] == "models:/tiny@champion"
    assert said == []


def test_a_resumed_sweep_tells_no_old_news(hook: tuple[str, list[str]], tell: Callable[..., None]) -> None:
    url, got = hook
    with WebhookNotifier(url, "tiny", print, lambda: content("failed", (3, 15.0))) as notifier:
        tell(notifier, 5, 5, 18.0)
        tell(notifier, 3, 5, 14.0)
    assert [json.loads(body)["event"] for body in got] == ["failed"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda url: url + "/broken", "HTTP 500"), (lambda url: "http://127.0.0.1:9/" + TOKEN, "URLError")],
)
def test_an_address_that_fails_is_one_warning_without_the_token(
    hook: tuple[str, list[str]], tell: Callable[..., None], make: Any, reason: str
) -> None:
    said: list[str] = []
    with WebhookNotifier(make(hook[0]), "tiny", said.append, content) as notifier:
        tell(notifier, 0, 5, 40.0)
    assert said == [f"warning: --notify: 127.0.0.1 cannot be told ({reason})"]
    assert TOKEN not in repr(said)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "host:80", "http://", "https://[x/" + TOKEN]
)
def test_other_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigError, match="--notify is an http or https address") as caught:
        check_webhook(url)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("typed", [["--notify", "https://host/" + TOKEN], ["--notify=https://host/" + TOKEN]])
def test_an_address_does_not_travel_with_a_job(typed: list[str]) -> None:
    with pytest.raises(ConfigError, match="no address to notify travels with a job") as caught:
        package_of(typed)
    assert TOKEN not in str(caught.value)


def test_without_an_address_nothing_is_done(tell: Callable[..., None]) -> None:
    with WebhookNotifier("", "tiny", print, content) as notifier:
        tell(notifier, 0, 5, 40.0)
        assert not notifier._thread.is_alive()
