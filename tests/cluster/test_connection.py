"""The checks of a cluster before a sweep begins, without a cluster (with real ones: integration/ray)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray._private.utils import check_version_info

from pipeline.cluster import connection
from pipeline.cluster.connection import NodeAnswer, running_ray
from pipeline.errors import ConfigError, SweepError


def test_other_versions_are_told_in_a_line() -> None:
    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.59.0", "python_version": "3.12.1"}, "process 7")
    lines = [line.strip() for line in str(caught.value).splitlines()]
    error = str(connection._connection_error("10.0.0.1:6379", lines))
    assert "versions of the cluster and of this machine differ" in error
    assert "Ray: 2.59.0, Python: 3.12.1, Ray: 2.6" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (["W x gcs_client.cc: RPC error: InvalidAuthToken: missing"], "at auto does not accept .* token"),
        (
            ["ConnectionError: Could not find any running Ray instance."],
            r"no Ray cluster answers at --address auto \(ConnectionError: Could",
        ),
        ([], r"answers at --address auto \(silent for 25 s\)"),
    ],
)
def test_rays_many_lines_become_one(output: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        raise connection._connection_error("auto", output)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:", "127.0.0.1:²", "a..b:1", "127.0.0.1:1"])
def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at --address .*or correct HOST:PORT"):
        connection.probe_address(address)


GOOD = NodeAnswer(version=connection.pipeline.__version__, clock=50.0)


def check_answer(**change: Any) -> None:
    connection._check_answer("10.0.0.2", replace(GOOD, **change), "/s", (49.0, 51.0))


def test_a_good_node_passes_silently(caplog: pytest.LogCaptureFixture) -> None:
    check_answer()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder_error": "does not see it"}, r"--out /s: node 10.0.0.2 does not see it .*; name a folder"),
        ({"folder_error": "sees it but may not write it"}, "node 10.0.0.2 sees it but may not write it"),
        ({"store_error": "no credentials"}, "does not reach --out: node 10.0.0.2: no credentials"),
        ({"version": "0.0.9"}, "gansweep differs between the nodes: 0.0.9 on 10.0.0.2"),
        (
            {"version": "", "problem": "ModuleNotFoundError: No module named 'pipeline'"},
            "differs .*: none on 10.0.0.2",
        ),
    ],
)
def test_a_node_that_cannot_take_part_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        check_answer(**change)


def test_a_node_looks_for_the_mark_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    assert connection._answer(str(mark))["folder_error"] == "does not see it"
    mark.touch()
    assert set(connection._answer(str(mark))) == {"version", "clock"}
    monkeypatch.setattr("os.access", lambda *_: False)
    assert connection._answer(str(mark))["folder_error"] == "sees it but may not write it"


def test_a_node_that_does_not_answer_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_answer(problem="it is still starting")
    assert caplog.messages == ["10.0.0.2 did not answer: it is still starting"]


@pytest.mark.parametrize(("clock", "off"), [(43.0, "-8 s off"), (57.0, "+6 s off")])
def test_a_clock_that_is_off_is_warned_of(caplog: pytest.LogCaptureFixture, clock: float, off: str) -> None:
    check_answer(clock=clock)
    (warning,) = caplog.messages
    assert off in warning


def test_a_launcher_file_tells_what_may_be_added(tmp_path: Path) -> None:
    path = tmp_path / "ray_bootstrap_config.yaml"
    assert connection._launcher_kinds(path) == []
    path.write_text(
        "max_workers: 3\nhead_node_type: head\navailable_node_types:\n"
        "  head: {resources: {CPU: 0}}\n  gpu: {max_workers: 5, resources: {CPU: 8, GPU: 1}}\n"
        "  big: {max_workers: 1, resources: {CPU: 8, GPU: 4}}\n"
    )
    assert connection._launcher_kinds(path) == [({"CPU": 8, "GPU": 1}, 3), ({"CPU": 8, "GPU": 4}, 1)]
    path.write_text("- no\n- mapping\n")
    assert connection._launcher_kinds(path) == []


def test_a_process_that_uses_ray_already_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(connection.ray, "shutdown", lambda: pytest.fail("it is not the sweep's to end"))
    with pytest.raises(ConfigError, match=r"uses Ray already .*call ray.shutdown"), running_ray("local"):
        pass
