"""The webhook posts new leaders and the end of a sweep, in order and once; its failures do not matter."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import factories
import pytest
from sweep_folders import summary_of

from pipeline.errors import ConfigError
from pipeline.reporting.webhook import WebhookNotifier, check_webhook
from pipeline.search.trial_manager import SweepTrial
from pipeline.storage.summary_file import SweepSummary

TOKEN = "s3cret-token"


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[str]]]:
    """The URL of a real server on loopback, and the bodies that were posted to it."""
    bodies: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(500 if self.path.endswith("broken") else 204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{TOKEN}", bodies
        server.shutdown()


def content(state: str = "finished", *leaders: tuple[int, float]) -> SweepSummary:
    tick = {"balance": 0.5, "kimg": 40, "params": {}}
    return summary_of(
        state=state,
        leaderboard=[{"trial": trial, "state": "complete", "fid": fid, **tick} for trial, fid in leaders],
        best={"trial": 7, "fid": 12.5, **tick},
        registered={"name": "tiny", "version": 1, "alias": None, "uri": "models:/tiny/1"},
    )


def report(notifier: WebhookNotifier, trial: int, kimg: int, fid: float) -> None:
    """Tell the notifier of a new fid of a trial."""
    notifier.on_record(SweepTrial(trial, {}), factories.record(kimg, fid, trial=trial))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pipeline.reporting.webhook"]


def test_a_new_leader_and_the_end_are_posted_in_order(
    webhook: tuple[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    url, bodies = webhook
    with WebhookNotifier(url, "tiny", content) as notifier:
        for trial, kimg, fid in ((0, 5, 40.0), (0, 10, 30.0), (1, 5, 35.0), (1, 10, 20.0)):
            report(notifier, trial, kimg, fid)
    assert all(body.endswith("\n") and body.count("\n") == 1 for body in bodies)
    lines = [json.loads(body) for body in bodies]
    assert [(x["event"], x["trial"], x["fid"]) for x in lines] == [
        ("champion", 0, 40.0), ("champion", 1, 20.0), ("finished", 7, 12.5)
    ], "a better fid of the trial that leads already is not posted"  # fmt: skip
    assert lines[1]["text"] == "tiny: trial 1 leads with fid 20 at 10 kimg"
    assert lines[2]["text"] == "tiny: finished, best fid 12.5 (trial 7), models:/tiny/1"
    assert lines[2]["registered"] == "models:/tiny/1"
    assert warnings(caplog) == []


def test_a_resumed_sweep_does_not_post_its_old_leader(webhook: tuple[str, list[str]]) -> None:
    url, bodies = webhook
    with WebhookNotifier(url, "tiny", lambda: content("failed", (3, 15.0))) as notifier:
        report(notifier, 5, 5, 18.0)
        report(notifier, 3, 5, 14.0)
    assert [json.loads(body)["event"] for body in bodies] == ["failed"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda url: url + "/broken", "HTTP 500"), (lambda url: "http://127.0.0.1:9/" + TOKEN, "URLError")],
)
def test_an_address_that_fails_is_one_warning_without_the_token(
    webhook: tuple[str, list[str]],
    caplog: pytest.LogCaptureFixture,
    make: Callable[[str], str],
    reason: str,
) -> None:
    with WebhookNotifier(make(webhook[0]), "tiny", content) as notifier:
        report(notifier, 0, 5, 40.0)
    (warning,) = warnings(caplog)
    assert "127.0.0.1" in warning
    assert f"({reason})" in warning
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "host:80", "http://", "https://[x/" + TOKEN]
)
def test_other_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--notify cannot be posted to.*http or https") as caught:
        check_webhook(url)
    assert TOKEN not in str(caught.value)


def test_without_an_address_nothing_is_posted() -> None:
    with WebhookNotifier("", "tiny", content) as notifier:
        report(notifier, 0, 5, 40.0)
        assert not notifier._thread.is_alive()
