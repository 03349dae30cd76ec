"""The end of a sweep without Ray: what is registered and written, in which order, and what is left undone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.search.space.parser import space_from_tables
from pipeline.storage.summary_file import SweepSummary, read_summary
from pipeline.storage.uploader import Uploader
from pipeline.sweep.finalize import close_sweep, complete_finished, finalize
from pipeline.sweep.inputs import SweepInputs
from pipeline.sweep.open_sweep import OpenSweep, open_sweep
from pipeline.sweep.request import Request
from pipeline.tracking.event_log import has_finished
from pipeline.tracking.tracking_uri import default_uri
from pipeline.training.finalists import Finalist, FinalistRun, choose_winner, measure_finalist
from pipeline.training.seeds import trial_seed
from pipeline.training.trial import TrialSettings, run_trial
from pipeline.user_code import UserCode

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]

SPACE = {
    "fixed": {
        "architecture": "dcgan", "width_g": 4, "width_d": 4, "z_dim": 8, "batch_size": 32,
        "kimg": 1, "tick_kimg": 1, "ema_halflife_kimg": 0.1,
    },
    "search": {"lr_g": {"float": [1e-4, 1e-2], "log": True}},
}  # fmt: skip


@pytest.fixture
def searched(
    tmp_path: Path, dataset: Dataset, evaluator: Evaluator
) -> Callable[..., contextlib.AbstractContextManager[tuple[OpenSweep, list[Finalist]]]]:
    """searched(uri, trials=1): a sweep whose trials have ended, as after the search, and its finalists."""

    @contextlib.contextmanager
    def search(uri: str = "", **changes: Any) -> Iterator[tuple[OpenSweep, list[Finalist]]]:
        values = {"name": "s", "trials": 1, "pruner": "none", "sampler": "random", "fid_samples": 100}
        config = SweepConfig.from_dict({**values, **changes})
        request = Request(space_from_tables(SPACE), config, tmp_path, "faces")
        inputs = SweepInputs(dataset, evaluator, UserCode())
        with open_sweep(request, inputs, Uploader(), uri or default_uri(tmp_path), 0.0) as sweep:
            while (trial := sweep.manager.ask()) is not None:
                number = trial.number
                chosen = request.space.config(trial.params, seed=trial_seed(config.seed, number))
                folder = request.paths.trial(number)
                for record in run_trial(chosen, dataset, evaluator, folder, TrialSettings(number=number)):
                    sweep.manager.report(record)
            sweep.manager.close()
            runs = [FinalistRun(number, 0, request.paths.trial(number)) for number in range(config.trials)]
            kinds = {"n": 100, "seed": 0, "device": "cpu"}
            yield sweep, choose_winner([measure_finalist(run, dataset, evaluator, **kinds) for run in runs])

    return search


def summary_of(sweep: OpenSweep) -> SweepSummary:
    found = read_summary(sweep.request.paths.summary)
    assert found is not None
    return found


def parent_status(uri: str) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(uri, uri)
    (experiment,) = client.search_experiments(filter_string="name = 'gansweep/s'")
    runs = client.search_runs([experiment.experiment_id], "tags.`gansweep.trial` = 'none'")
    return [run.info.status for run in runs]


def test_finished_is_the_last_that_becomes_true(searched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every point before it a resume still finds the sweep running, and completes it."""
    states: dict[str, str] = {}
    with searched() as (sweep, found):
        for module in ("sweep.finalize", "tracking.registry.promote", "tracking.registry.model_version"):
            monkeypatch.setattr(
                f"pipeline.{module}.reach", lambda point: states.update({point: summary_of(sweep).state})
            )
        assert finalize(sweep, found) == ()
        result = close_sweep(sweep, "finished")
    assert states.pop("finished") == "finished"
    assert set(states.values()) == {"running"}
    assert list(states) == [
        *("measured", "packed", "card", "logged", "version", "candidate", "champion", "registered"),
        *("reported", "ended", "sent"),
    ]
    assert parent_status(sweep.uri) == ["FINISHED"]
    assert has_finished(sweep.request.paths.event_log)
    assert result.champion == "models:/faces@champion"
    page = sweep.request.paths.report.read_text(encoding="utf-8")
    assert "<dt>state</dt><dd>finished</dd>" in page
    sweep.request.paths.report.unlink()
    complete_finished(sweep.request, sweep.uri)
    assert result.report is not None


def test_what_could_not_be_done_is_told_and_the_rest_is_done(
    searched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry refuses, and a folder is in the report's place: the champion is packed all the same."""
    monkeypatch.setattr("pipeline.tracking.registry.promote.model_version.PROBE_SEC", 0.01)
    with searched() as (sweep, found):
        paths = sweep.request.paths
        paths.report.mkdir()
        undone = finalize(sweep, found)
        result = close_sweep(sweep, "failed", undone)
    first, second = undone
    assert first.startswith("no version was registered: the model failed its verification")
    assert second.startswith("report.html was not written: ")
    assert (result.state, result.undone, result.registered) == ("failed", undone, None)
    assert summary_of(sweep).state == "failed"
    assert summary_of(sweep).finalists
    assert (paths.packed / "files.json").is_file()
    assert parent_status(sweep.uri) == ["FAILED"]
    monkeypatch.undo()
    paths.report.rmdir()
    with searched() as (again, found):  # the resume that the command prints
        assert finalize(again, found) == ()
        assert close_sweep(again, "finished").champion == "models:/faces@champion"
    assert parent_status(sweep.uri) == ["FINISHED"]


def test_what_a_store_that_never_answered_lacks_is_sent_later(searched: Any) -> None:
    with searched() as (sweep, found):
        finalize(sweep, found)
        close_sweep(sweep, "finished")
    paths = sweep.request.paths
    for path in (paths.export_cursor, paths.root.parent / "mlflow.db"):  # as if neither had been made
        path.unlink()
    complete_finished(sweep.request, sweep.uri)
    assert parent_status(sweep.uri) == ["FINISHED"]


def seen_by_another(final: Finalist, fid: float, second: float) -> Finalist:
    """The finalist with this fid, without verdicts, and with a fid in a second extractor; +- 1 each."""
    (run,) = final.runs
    assert run.measurement is not None
    measured = dataclasses.replace(
        run.measurement,
        fid=fid,
        fid_low=fid - 1,
        fid_high=fid + 1,
        memorisation="ok",
        collapse="ok",
        second_fid=second,
        second_low=second - 1,
        second_high=second + 1,
        second_extractor="efficientnet",
        second_evaluator="h",
    )
    return Finalist(final.trial, (dataclasses.replace(run, measurement=measured),))


@pytest.mark.parametrize("effect", ["report", "veto"])
def test_a_second_opinion_is_written_everywhere_and_may_have_a_veto(
    searched: Any, effect: str, caplog: pytest.LogCaptureFixture
) -> None:
    with searched(trials=2, second_opinion=effect) as (sweep, found):
        fid = found[0].fids[0]  # the verification measures it again
        found = [seen_by_another(found[0], fid, 30.0), seen_by_another(found[1], fid + 10, 20.0)]
        assert finalize(sweep, found) == ()
        result = close_sweep(sweep, "finished")
    first, other = (final.trial for final in found)
    said = f"disagrees, trial {other} is best, not trial {first}: trial {other} has fid 20 in [19, 21]"
    assert f"second opinion (efficientnet): {said}" in caplog.text
    opinion = summary_of(sweep).second_opinion
    assert opinion is not None
    assert (opinion.extractor, opinion.trial, opinion.agrees) == ("efficientnet", other, False)
    assert opinion.text.startswith(said)
    paths = sweep.request.paths
    for page in (paths.report, paths.packed / "card" / "README.md", paths.packed / "facts.json"):
        assert said in page.read_text(encoding="utf-8")
    assert result.registered is not None
    assert result.registered.alias == (None if effect == "veto" else "champion")
    assert ("withheld: second opinion (efficientnet): dis" in result.registered.reason) is (effect == "veto")


def test_finalists_that_cannot_be_measured_are_not_taken_for_success(searched: Any) -> None:
    with searched() as (sweep, _):
        (text,) = finalize(sweep, [])
        close_sweep(sweep, "failed", (text,))
    assert text == "none of the finalists could be measured, so there is no champion"
