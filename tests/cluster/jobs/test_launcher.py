"""Ray's cluster launcher file offline: the shipped file passes, each mistake is named in one line."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cluster.jobs.files import check_cluster_file
from pipeline.cluster.jobs.launcher import check_launcher
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """The content of cluster.yaml."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return content


def test_the_shipped_cluster_passes_rays_own_validator() -> None:
    notes = check_cluster_file(ROOT / "cluster.yaml")
    assert "ray: its own validator accepts the file" in notes
    assert "auth: head and workers start with RAY_AUTH_MODE=token" in notes
    assert any("l4_spot 0-4" in note and "at most 4" in note for note in notes)
    assert any(note.startswith("to do: ami-00000000000000000") for note in notes)
    assert not any("fs-0123" in note for note in notes), "the example mount is a comment"


def test_a_key_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text((ROOT / "cluster.yaml").read_text(encoding="utf-8") + "1: 2026-01-02\n")
    with pytest.raises(ConfigError, match="the top level has the key 1, which Ray does not know"):
        check_cluster_file(path)


def test_the_shipped_cluster_guards_its_token(shipped: dict[str, Any]) -> None:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("RAY_AUTH_MODE=token" in line and "ray start" in line for line in shipped[key])
    assert "/home/ray/.ray/auth_token" in shipped["file_mounts"]
    assert ".venv" in shipped["rsync_exclude"]
    head = shipped["available_node_types"][shipped["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"], "a spot head would end the sweep"


def changed(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with one value changed, or removed where `value` is None; `path` is dotted."""
    whole = copy.deepcopy(content)
    *parents, last = path.split(".")
    inner = whole
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("max_wrokers", 3, r"has the key max_wrokers, .* Ray does not know; did you mean 'max_workers'\?"),
        ("provider", None, r"lacks the key provider; add provider:"),
        ("head_node_type", "haed", r"head_node_type haed is unknown .*; did you mean 'head'\?"),
        ("head_node_type", None, r"head_node_type is missing"),
        ("available_node_types.l4_spot.min_workers", 5, r"l4_spot has impossible counts: min_workers 5"),
        (
            "available_node_types.l4_spot.min_workers",
            -1,
            r"min_workers -1, max_workers 4 \(0 <= min_workers <=",
        ),
        (
            "available_node_types.l4_spot.resources",
            {"GPU": 0.5},
            r"GPU = 0\.5 is not a whole number; .*gpus-per-trial",
        ),
        ("available_node_types.l4_spot.resource", {}, r"key resource, .*; did you mean 'resources'\?"),
        ("available_node_types.l4_spot.node_config", None, r"l4_spot lacks the key node_config"),
        ("idle_timeout_minutes", "five", r"idle_timeout_minutes = five is not a number"),
        ("provider.project_id", 5, r"provider.project_id = 5 does not fit Ray's schema"),
        ("docker.imgae", "x", r"docker has the key imgae, .*; did you mean 'image'\?"),
    ],
)
def test_a_mistake_is_named(shipped: dict[str, Any], path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_launcher(changed(shipped, path, value))
    assert "\n" not in str(caught.value)


def test_the_workers_to_begin_with_are_within_the_bound(shipped: dict[str, Any]) -> None:
    config = copy.deepcopy(shipped)
    for name, low in (("l4_spot", 3), ("a10g_spot", 2)):
        config["available_node_types"][name]["min_workers"] = low
    message = r"sum of all min_workers, 5, is above max_workers 4; raise max_workers to 5"
    with pytest.raises(ConfigError, match=message):
        check_launcher(config)


def test_a_cluster_without_tokens_is_warned_about(shipped: dict[str, Any]) -> None:
    notes = check_launcher(
        {**shipped, "worker_start_ray_commands": ["ray start --address=$RAY_HEAD_IP:6379"]}
    )
    assert any(n.startswith("warning: no RAY_AUTH_MODE=token in worker_start_ray_commands") for n in notes)


def test_the_schema_alone_is_used_where_rays_validator_cannot_be_imported(
    shipped: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.autoscaler._private.util", None)  # makes its import fail
    assert any("by its schema only" in note for note in check_launcher(shipped))
