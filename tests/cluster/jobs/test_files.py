"""Reading cluster files: their kind, and what is no cluster file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cluster.jobs import files
from pipeline.cluster.jobs.files import check_cluster_file
from pipeline.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster_name: [a", r"not valid YAML: .* line 1, column \d+: .*; correct that line"),
        ("cluster_name: x\nsince: 2026-13-45\n", r"not valid YAML: .*month must be"),
        ("cluster_name: &name [*name]\n", r"not valid YAML: .*Circular reference"),
        ("- a\n- b\n", r"is not a mapping of keys"),
        ("", r"is not a mapping of keys"),
        ("kind: Pod\nspec: {}\n", r"cluster.yaml with keys kind, spec .*; see search_spaces/"),
    ],
)
def test_what_is_no_cluster_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_cluster_file(write(tmp_path, text))


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*none.yaml: No such file"):
        check_cluster_file(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        check_cluster_file(tmp_path / "b.yaml")


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"cluster_name: !!python/object/apply:os.mkdir ['{marker}']\n"
    with pytest.raises(ConfigError, match="not valid YAML"):
        check_cluster_file(write(tmp_path, text))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("cluster_name: x\nprovider: {type: aws}\n", ["launcher of x"]),
        ("apiVersion: ray.io/v1\nkind: RayJob\nname: a\n", ["job a"]),
        ("kind: ConfigMap\n---\nkind: RayJob\nname: a\n---\nkind: RayJob\nname: b\n", ["job a", "job b"]),
    ],
)
def test_the_checks_follow_from_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, notes: list[str]
) -> None:
    monkeypatch.setattr(files, "check_launcher", lambda config: [f"launcher of {config['cluster_name']}"])
    monkeypatch.setattr(files, "check_rayjob", lambda job: [f"job {job['name']}"])
    assert check_cluster_file(write(tmp_path, text)) == notes
