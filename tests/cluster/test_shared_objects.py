"""What a worker's process does about the GPU that it shares."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from pipeline import user_code
from pipeline.cluster import mps, shared_objects
from pipeline.cluster.shared_objects import SharedRefs, enter_worker
from pipeline.errors import ConfigError, GansweepError
from pipeline.user_code import UserCode


def test_a_process_logs_once_why_it_takes_turns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.cluster.mps.start", lambda: "no program")
    monkeypatch.setattr(shared_objects, "_LOGGED", set())
    monkeypatch.setenv(mps.PERCENTAGE, "")
    monkeypatch.delenv(mps.PERCENTAGE)
    enter_worker(8)
    enter_worker(8)
    assert caplog.messages == ["trials that share a GPU take turns on it: no program"]
    assert os.environ[mps.PERCENTAGE] == "25"


def test_a_percentage_that_the_user_has_set_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.mps.start", lambda: "")
    monkeypatch.setenv(mps.PERCENTAGE, "60")
    enter_worker(8)
    assert os.environ[mps.PERCENTAGE] == "60"


def test_the_users_code_is_allowed_before_the_evaluator_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extractor of the user's is made by its module's code when it is unpickled."""
    monkeypatch.setattr("pipeline.user_code._active", UserCode())
    code = UserCode({"mine": b"def answer() -> int:\n    return 42\n"})

    evaluator: Any = SimpleNamespace(hex=lambda: "e1")

    def unpickle(ref: Any) -> Any:
        made = SimpleNamespace(to=lambda device: user_code.load("mine:answer", "a function")())
        return made if ref is evaluator else ref

    monkeypatch.setattr(shared_objects.ray, "get", unpickle)
    monkeypatch.setattr(shared_objects, "worker_device", lambda: "cpu")
    assert shared_objects.get_shared(SharedRefs("images", evaluator, code)) == ("images", 42)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (ConfigError("cannot find mine", fix="install it"), GansweepError),
        (OSError("no memory"), RaySystemError),
    ],
)
def test_code_that_a_node_lacks_is_an_error_of_the_user(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, kind: type[Exception]
) -> None:
    """Ray raises its own error of what fails while it unpickles; a trial is not retried for ours."""

    def get(ref: Any) -> Any:
        raise RaySystemError(failure)

    monkeypatch.setattr(shared_objects.ray, "get", get)
    evaluator: Any = SimpleNamespace(hex=lambda: "e2")
    with pytest.raises(kind):
        shared_objects.get_shared(SharedRefs("images", evaluator, UserCode()))
