"""The functions that run in Ray's workers, without Ray."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cluster import mps, worker
from pipeline.cluster.messages import Suggestion, WorkerSettings
from pipeline.cluster.shared_objects import SharedRefs
from pipeline.config import SweepConfig
from pipeline.errors import GansweepError
from pipeline.records import PENALTY
from pipeline.search.resources import TrialResources
from pipeline.user_code import UserCode


def settings(mps_trials: int) -> WorkerSettings:
    return WorkerSettings(
        root="", store="", config=SweepConfig(name="x"), fixed={}, threads=1, mps=mps_trials,
        shared_refs=SharedRefs(None, None, UserCode()),
    )  # fmt: skip


LINES = [(logging.WARNING, "the images are gone")]


@pytest.mark.parametrize("trials_on_gpu", [4, 0])
def test_a_trial_joins_mps_before_cuda_starts(monkeypatch: pytest.MonkeyPatch, trials_on_gpu: int) -> None:
    calls, reports = list[str](), list[dict[str, Any]]()

    def get_shared(refs: Any) -> Any:
        calls.append("cuda")
        logging.getLogger("pipeline.metrics").warning("the images are gone")
        raise GansweepError("enough")

    monkeypatch.setattr(worker, "get_shared", get_shared)
    monkeypatch.setattr("pipeline.cluster.mps.start", lambda: calls.append("mps") or "")
    monkeypatch.setenv(mps.PERCENTAGE, "50")  # so that what a trial sets is undone
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(worker, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setattr(worker.tune, "report", reports.append)
    worker.train_trial(Suggestion(number=0, params={}), settings(trials_on_gpu))
    assert calls == (["mps", "cuda"] if trials_on_gpu else ["cuda"])
    assert reports == [{"objective": PENALTY, "failure": "enough", "events": [], "lines": LINES}]


@pytest.mark.parametrize("gpus", [0.0, 0.25])
def test_finalists_get_the_resources_of_a_trial(monkeypatch: pytest.MonkeyPatch, gpus: float) -> None:
    asked = list[float]()
    task = SimpleNamespace(options=lambda **options: asked.append(options["num_gpus"]))
    monkeypatch.setattr(worker, "gpu_task", lambda function, amount: asked.append(amount) or task)
    runs = worker.run_finalists([], settings(0), TrialResources(1.0, gpus), bool)
    assert (runs, asked) == ([], [gpus, gpus])
