"""Reading cluster files: their kind, and what is no cluster file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cluster.jobs.launcher import check_launcher
from pipeline.cluster.jobs.yaml_file import cluster_file_kind
from pipeline.errors import ConfigError


def write(tmp_path: Path, text: str, name: str = "cluster.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster_name: [a", r"not valid YAML: .* line 1, column \d+: .*; correct that line"),
        ("- a\n- b\n", r"is not a mapping of keys"),
        ("", r"is not a mapping of keys"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_launcher(write(tmp_path, text))


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*none.yaml: No such file"):
        check_launcher(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        check_launcher(tmp_path / "b.yaml")


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"cluster_name: !!python/object/apply:os.mkdir ['{marker}']\n"
    with pytest.raises(ConfigError, match="not valid YAML"):
        check_launcher(write(tmp_path, text))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.toml", "[search]\nlr_g = { float = [0.1, 1.0] }\n", "space"),
        ("a.txt", "[search]\nlr_g = { float = [0.1, 1.0] }\n", "space"),
        ("a.yaml", "cluster_name: x\nprovider: {type: aws}\n", "cluster"),
        ("a.yaml", "apiVersion: ray.io/v1\nkind: RayJob\n", "kuberay"),
        ("a.yml", "kind: ConfigMap\n---\nkind: RayJob\n", "kuberay"),
    ],
)
def test_the_kind_follows_from_the_content(tmp_path: Path, name: str, text: str, kind: str) -> None:
    assert cluster_file_kind(write(tmp_path, text, name)) == kind


def test_any_other_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a.yaml with keys kind, spec .*; see search_spaces/"):
        cluster_file_kind(write(tmp_path, "kind: Pod\nspec: {}\n", "a.yaml"))
