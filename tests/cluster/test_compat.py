"""Ray's private interfaces: what the installed Ray lacks of them; one file has them all."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial

from pipeline.cluster import _compat
from pipeline.cluster.preemption import PREEMPTED, raise_preempted
from pipeline.cluster.tune_adapters import NODE_GONE, failure_cause

PACKAGE = Path(__file__).parents[2] / "pipeline"

WAITS = "the wait for a machine that the autoscaler does not have ends at its bound only"
INTERFACES = [
    ("ray._private.state", "state.get_draining_nodes", "machines that are taken away are not noticed"),
    ("ray", "_raylet.GcsClient", WAITS),
    ("ray", "_raylet.InnerGcsClient.get_cluster_status", WAITS),
    ("ray.core.generated.autoscaler_pb2", "GetClusterStatusReply", WAITS),
    ("ray.autoscaler._private.util", "prepare_config", "cluster files are checked by their schema only"),
    ("ray.autoscaler._private.util", "validate_config", "cluster files are checked by their schema only"),
]
"""Module, name in it, and what gansweep does worse without it."""


def lacks(name: str, consequence: str) -> str:
    return f"ray {ray.__version__} has no {name}: {consequence}; adapt {_compat.__name__} (TESTED)"


@pytest.mark.parametrize(("module", "name", "consequence"), INTERFACES)
def test_the_installed_ray_has_the_private_interface(module: str, name: str, consequence: str) -> None:
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        pytest.fail(lacks(f"{module}.{name}", consequence))


def test_the_status_of_the_autoscaler_has_the_demands_that_cannot_be_met() -> None:
    from ray.core.generated import autoscaler_pb2

    reply = autoscaler_pb2.GetClusterStatusReply()
    try:
        request = reply.autoscaling_state.infeasible_gang_resource_requests.add()
        request.details = "group"
    except AttributeError as error:
        pytest.fail(lacks(str(error), WAITS))


def test_the_installed_ray_is_a_tested_one() -> None:
    assert ray.__version__ in _compat.TESTED, (
        f"ray {ray.__version__} is new: run the tests marked ray, then name it in {_compat.__name__}.TESTED"
    )


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A real trial of Tune, which nothing runs."""
    trial = Trial("trainable", stub=True)
    trial.storage = SimpleNamespace(trial_driver_staging_path=str(tmp_path))
    return trial


def test_the_actor_of_a_trial_is_found(trial: Trial) -> None:
    assert _compat.actor_of(trial) is None
    trial.temporary_state.ray_actor = actor = object()
    assert _compat.actor_of(trial) is actor, lacks("Trial.temporary_state.ray_actor", "hung workers stay")


def test_a_failure_of_a_trial_is_taken_back_and_none_below_zero(trial: Trial) -> None:
    trial.handle_error(RayActorError())
    trial.handle_error(RayActorError())
    assert trial.num_failures == 2
    for left in (1, 0, 0):
        _compat.take_back_failure(trial)
        assert trial.num_failures == left, lacks("Trial.run_metadata.num_failures", "lost nodes count")


def test_a_preempted_trial_has_not_failed_and_its_error_file_says_so(trial: Trial) -> None:
    trial.handle_error(RayActorError(error_msg="its process is gone"))
    assert failure_cause(trial.error_file) == ("exception", "its process is gone")
    with pytest.raises(RayActorError) as caught:
        raise_preempted()
    trial.handle_error(caught.value)
    assert trial.num_failures == 1
    assert failure_cause(trial.error_file) == (NODE_GONE, PREEMPTED)


def test_ray_has_a_schema_of_cluster_files() -> None:
    assert _compat.cluster_file_schema(), lacks("autoscaler/ray-schema.json", "cluster files are not checked")


def test_another_ray_costs_an_ability_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ray._private.state", "ray.core.generated", "ray.autoscaler._private.util"):
        monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    changed = SimpleNamespace()
    assert _compat.draining_nodes() == set()
    assert not _compat.is_infeasible("00")
    assert _compat.actor_of(changed) is None
    _compat.take_back_failure(changed)
    with pytest.raises(ImportError):
        _compat.validate_cluster_file({})


def private_names(path: Path) -> set[str]:
    """The private modules of Ray and attributes of its trials that a file uses."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ray":
            found.add(f"ray.{node.attr}")
        elif isinstance(node, ast.Attribute) and node.attr in ("temporary_state", "run_metadata"):
            found.add(f"ray.tune._{node.attr}")
    private = ("ray.core.generated", "ray.autoscaler")
    return {n for n in found if n.startswith("ray.") and ("._" in n or n.startswith(private))}


def test_private_interfaces_are_used_in_one_file() -> None:
    users = {path.relative_to(PACKAGE).as_posix(): private_names(path) for path in PACKAGE.rglob("*.py")}
    assert {name for name, used in users.items() if used} == {"cluster/_compat.py"}
