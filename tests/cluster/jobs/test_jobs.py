"""The offline checks of cluster files: what is shipped passes, each mistake is named in one line."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipeline.cluster.jobs.client import Log, exit_code
from pipeline.cluster.jobs.head import address_of
from pipeline.cluster.jobs.launcher import check_launcher
from pipeline.cluster.jobs.yaml_file import cluster_file_kind
from pipeline.errors import ConfigError, UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def write(tmp_path: Path, config: object, name: str = "cluster.yaml") -> Path:
    path = tmp_path / name
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config), encoding="utf-8")
    return path


def test_the_shipped_cluster_passes_rays_own_validator() -> None:
    notes = check_launcher(ROOT / "cluster.yaml")
    assert "ray: its own validator accepts the file" in notes
    assert "auth: head and workers start with RAY_AUTH_MODE=token" in notes
    assert any("l4_spot 0-4" in note and "at most 4" in note for note in notes)
    assert any(note.startswith("to do: ami-00000000000000000") for note in notes)
    assert not any("fs-0123" in note for note in notes), "the example mount is a comment"


def test_the_shipped_cluster_guards_its_token(shipped: dict[str, Any]) -> None:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("RAY_AUTH_MODE=token" in line and "ray start" in line for line in shipped[key])
    assert "/home/ray/.ray/auth_token" in shipped["file_mounts"]
    assert ".venv" in shipped["rsync_exclude"]
    head = shipped["available_node_types"][shipped["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"], "a spot head would end the sweep"


def set_in(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """A change of one value; `path` is dotted. None takes the key away."""
    *parents, last = path.split(".")

    def change(config: dict[str, Any]) -> None:
        for key in parents:
            config = config[key]
        if value is None:
            del config[last]
        else:
            config[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("max_wrokers", 3, r"only keys that Ray knows; got max_wrokers; did you mean 'max_workers'\?"),
        ("provider", None, r"has the key provider; got none; add provider:"),
        ("head_node_type", "haed", r"one of available_node_types; got haed; did you mean 'head'\?"),
        ("head_node_type", None, r"head_node_type says which .* got none"),
        ("available_node_types.l4_spot.min_workers", 5, r"l4_spot: 0 <= min_workers <= max_workers; got min"),
        ("available_node_types.l4_spot.min_workers", -1, r"got min_workers -1, max_workers 4; use 0 or more"),
        (
            "available_node_types.l4_spot.resources",
            {"GPU": 0.5},
            r"GPU is a whole number; got 0\.5; .*gpus-per-trial",
        ),
        ("available_node_types.l4_spot.resource", {}, r"got resource; did you mean 'resources'\?"),
        ("available_node_types.l4_spot.node_config", None, r"l4_spot has the key node_config"),
        ("idle_timeout_minutes", "five", r"idle_timeout_minutes is a number; got five"),
        ("docker.imgae", "x", r"docker has only keys that Ray knows; got imgae; did you mean 'image'\?"),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, shipped: dict[str, Any], path: str, value: object, message: str
) -> None:
    config = copy.deepcopy(shipped)
    set_in(path, value)(config)
    with pytest.raises(ConfigError, match=message) as caught:
        check_launcher(write(tmp_path, config))
    assert "\n" not in str(caught.value)


def test_workers_asked_for_fit_the_bound(tmp_path: Path, shipped: dict[str, Any]) -> None:
    config = copy.deepcopy(shipped)
    for name, low in (("l4_spot", 3), ("a10g_spot", 2)):
        config["available_node_types"][name]["min_workers"] = low
    message = r"sum of all min_workers is at most max_workers; got 5 > 4; raise max_workers to 5"
    with pytest.raises(ConfigError, match=message):
        check_launcher(write(tmp_path, config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster_name: [a", r"valid YAML; got .* line 1, column \d+: .*; correct that line"),
        ("- a\n- b\n", r"is a mapping of keys"),
        ("", r"is a mapping of keys"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_launcher(write(tmp_path, text))


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can be read; got .*none.yaml: No such file"):
        check_launcher(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        check_launcher(tmp_path / "b.yaml")


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"cluster_name: !!python/object/apply:os.mkdir ['{marker}']\n"
    with pytest.raises(ConfigError, match="valid YAML"):
        check_launcher(write(tmp_path, text))
    assert not marker.exists()


def test_an_open_cluster_is_warned_about(tmp_path: Path, shipped: dict[str, Any]) -> None:
    config = {**shipped, "worker_start_ray_commands": ["ray start --address=$RAY_HEAD_IP:6379"]}
    notes = check_launcher(write(tmp_path, config))
    assert any(n.startswith("warning: no RAY_AUTH_MODE=token in worker_start_ray_commands") for n in notes)


def test_rays_validator_may_move(shipped: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray.autoscaler._private.util", None)  # makes its import fail
    assert any("by its schema only" in note for note in check_launcher(ROOT / "cluster.yaml"))


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
def test_kind_is_told_by_content(tmp_path: Path, name: str, text: str, kind: str) -> None:
    assert cluster_file_kind(write(tmp_path, text, name)) == kind


def test_another_yaml_is_no_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got .*a.yaml with keys kind, spec; see search_spaces/"):
        cluster_file_kind(write(tmp_path, "kind: Pod\nspec: {}\n", "a.yaml"))


def packed(*typed: str, folder: Path | None = None) -> Any:
    from pipeline.cli.submit import package_of

    return package_of(typed, folder or ROOT)[0]


SHARED = ("--space", "smoke", "--data", "digits", "--out", "/shared/runs")


def test_a_jobs_command_is_runs_own() -> None:
    typed = (*SHARED, "--set", "lr_g=1e-3", "--name", "a b; rm -rf /", "--trials", "3")
    with pytest.raises(ConfigError, match="a sweep's name"):
        packed(*typed)
    command = packed(*SHARED, "--set", "loss='hinge'", "--trials", "3").command
    assert command == (
        "gansweep run --space smoke --data digits --out /shared/runs --set 'loss='\"'\"'hinge'\"'\"'' "
        "--trials 3 --address auto"
    )
    assert shlex.split(command)[1:-2] == ["run", *SHARED, "--set", "loss='hinge'", "--trials", "3"]


def test_the_same_arguments_make_the_same_job() -> None:
    assert packed(*SHARED) == packed(*SHARED)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ("--space", "smoke"),
            r"--out is a folder .* got runs, a path of this machine; write --out /shared/runs",
        ),
        (
            (*SHARED, "--data", "folder:photos"),
            r"sees the images; got --data folder:photos.*folder:/shared/photos",
        ),
        ((*SHARED, "--data", "npz:a/b.npz"), r"npz:/shared/b.npz"),
        ((*SHARED, "--tracking-uri", "sqlite:///x.db"), r"reaches the tracking store; got sqlite:///x.db"),
        ((*SHARED, "--tracking-uri", "./mlruns"), r"reaches the tracking store; got ./mlruns, a file of"),
        ((*SHARED, "--tracking-uri", "file:///tmp/x"), r"reaches the tracking store; got file:///tmp/x"),
        (
            (*SHARED, "--storage", "sqlite:///s.db"),
            r"reaches the study; got --storage sqlite:///s.db, a file",
        ),
        ((*SHARED, "--storage", "study.db"), r"reaches the study; .*name a database"),
        (
            (*SHARED, "--extractor-weights", "w.pt"),
            r"sees the extractor's weights; got .*w.pt, a .*/shared/w.pt",
        ),
        (
            (*SHARED, "--data", "folder:~/photos"),
            r"sees the images; got --data folder:~/photos.*/shared/photos",
        ),
        (
            (*SHARED, "--storage", "postgresql://u:pw@h/d"),
            r"no password travels .* got one in --storage or its",
        ),
        ((*SHARED, "--tracking-uri", "https://u:pw@h"), r"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASS"),
        ((*SHARED, "--out", "ftp://b/runs"), r"--out is a folder or an object store; got ftp://b/runs"),
        ((*SHARED, "--space", "nowhere"), r"a space is a TOML file"),
        ((*SHARED, "--space", "../mine.toml"), r"a space is a TOML file"),
        ((*SHARED, "--cpus-per-trial", "-1"), r"cpus_per_trial lies in"),
    ],
)
def test_what_the_cluster_cannot_see_is_refused(typed: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        packed(*typed)
    assert "pw" not in str(caught.value).replace("password", "")


def test_the_environments_addresses_travel_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("GANSWEEP_STORAGE", "postgresql://gansweep@db/study")
    command = packed(*SHARED).command
    assert "--tracking-uri http://mlflow:5000" in command
    assert "--storage postgresql://gansweep@db/study" in command
    monkeypatch.setenv("GANSWEEP_STORAGE", "postgresql://gansweep:pw@db/study")
    with pytest.raises(ConfigError, match="no password travels"):
        packed(*SHARED)


def test_a_home_folder_is_not_sent() -> None:
    with pytest.raises(ConfigError, match="submit sends the folder that it is called in"):
        packed(*SHARED, folder=Path.home())


def test_a_space_beside_the_sent_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text((ROOT / "search_spaces/smoke.toml").read_text())
    with pytest.raises(ConfigError, match=r"the space lies in the folder that is sent.*--space mine.toml"):
        packed(*SHARED, "--space", str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.1:8265", "http://10.0.0.1:8265"), ("https://ray.example.com/", "https://ray.example.com")],
)
def test_an_address_gets_its_scheme(text: str, address: str) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize("text", ["ray://h:10001", "http://", "http://u:pw@h:1"])
def test_another_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--address is the dashboard's address") as caught:
        address_of(text)
    assert "pw" not in str(caught.value)


def test_how_a_job_ended_is_an_exit_code() -> None:
    def job(state: str, code: int | None) -> Any:
        return SimpleNamespace(status=SimpleNamespace(value=state), driver_exit_code=code)

    codes = [
        exit_code(job(*ended))
        for ended in (("SUCCEEDED", 0), ("FAILED", 2), ("FAILED", None), ("STOPPED", 0))
    ]
    assert codes == [0, 2, 1, 130]


def test_a_log_heard_again_is_written_once() -> None:
    written: list[str] = []
    log = Log(written.append)
    for pieces in (("ab", "cd"), ("a", "bcde", "f"), ("abcdef",), ("abcdefg", "h")):
        log.begin()
        for piece in pieces:
            log.add(piece)
    assert "".join(written) == "abcdefgh"
