"""The peers of a replay: their spaces, what they are told, and that each runs on a small synthetic table."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from pipeline.records import PENALTY
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from replays.clock import Job, Report, Trace, replay
from replays.peers import PEERS
from replays.peers.base import BudgetSearch, OwnRandomState, Request
from replays.peers.spaces import active_params, prior_point, to_configspace, to_neps, to_syne_tune
from replays.world import Trial

FULL = 9
OLD = [name for name, row in PEERS.items() if "Old" in row.where]


@pytest.fixture(scope="module")
def space() -> Space:
    return parse_space(
        """
        [fixed]
        kimg = 9
        [search]
        lr_g = { float = [1e-5, 1e-2], log = true }
        batch_size = { choice = [32, 64, 128] }
        depth_g = { int = [1, 3] }
        penalty = { choice = ["none", "r1", "gp"] }
        gamma = { float = [1e-3, 1e2], log = true, when = { penalty = ["r1", "gp"] } }
        """,
        "peers",
    )


class Valley:
    """A table in which lr_g = 1e-3 is best and above 5e-3 a trial diverges in its third tick."""

    def trial(self, params: Mapping[str, Any], rng: np.random.Generator) -> Trial:
        ticks = np.arange(1, FULL + 1)
        distance = abs(np.log10(params["lr_g"]) + 3)
        truth = (10 + 90 * distance) * (1 + 1 / ticks)
        last = 3 if params["lr_g"] > 5e-3 else FULL
        fid = truth * rng.normal(1, 0.01, FULL)
        fid[2:3] = np.nan if last == 3 else fid[2:3]
        verdict = np.full(FULL, "healthy")
        return Trial(*(a[:last] for a in (ticks, fid, truth, np.full(FULL, 0.5), verdict, ticks * 1.0)))


class Watched:
    """A search, and what it has asked for."""

    def __init__(self, search: Any) -> None:
        self.search, self.jobs = search, []
        self.report, self.done = search.report, search.done

    def ask(self) -> Job | None:
        job: Job | None = self.search.ask()
        self.jobs.extend([job] if job else [])
        return job


def run(search: Any, seconds: float) -> tuple[list[Job], Trace]:
    watched = Watched(search)
    trace = replay(Valley(), watched, workers=2, budget=seconds, seed=0)  # type: ignore[arg-type]
    if hasattr(search, "close"):
        search.close()
    return watched.jobs, trace


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> str:
    row = PEERS[request.param]
    if find_spec(row.package) is None:
        pytest.skip(f"{row.package} is not installed (benchmarks/requirements-peers.txt)")
    if request.param in OLD:
        from replays.peers.syne_tune_search import OLD_FOLDER

        if not OLD_FOLDER.is_dir():
            pytest.skip(f"no {OLD_FOLDER} (benchmarks/requirements-peers.txt)")
    return str(request.param)


def test_each_peer_asks_for_trials_of_the_space_and_the_same_ones_of_the_same_seed(
    peer: str, space: Space
) -> None:
    runs = [run(PEERS[peer].make(space, seed, 2, FULL), 30.0)[0] for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
    assert len({job.trial for job in runs[0]}) >= 6
    for job in runs[0]:
        assert job.params == active_params(space, job.params)
        assert all(space.search[name].contains(value) for name, value in job.params.items())
        assert 0 <= job.start < job.until <= FULL


@pytest.mark.parametrize("name", ["random", "optuna tpe"])
def test_without_a_pruner_every_trial_runs_to_its_end(name: str, space: Space) -> None:
    _, trace = run(PEERS[name].make(space, 0, 2, FULL), 100.0)
    assert {kimg for _, _, kimg, _ in trace.trials} == {3, FULL}


def test_tpe_learns(space: Space) -> None:
    jobs, _ = run(PEERS["optuna tpe"].make(space, 0, 2, FULL), 300.0)
    distance = [abs(np.log10(job.params["lr_g"]) + 3) for job in jobs]
    assert np.median(distance[-20:]) < 0.5 * np.median(distance[:10])


@pytest.mark.parametrize(
    "name", ["optuna tpe+median", "optuna tpe+sha", "optuna tpe+hyperband", "random+asha"]
)
def test_a_pruner_stops_the_bad_ones(name: str, space: Space) -> None:
    _, trace = run(PEERS[name].make(space, 0, 2, FULL), 200.0)
    stopped = [best for _, best, kimg, _ in trace.trials if kimg not in (3, FULL)]
    full = [best for _, best, kimg, _ in trace.trials if kimg == FULL]
    assert len(stopped) >= 5
    assert np.median(full) < np.median(stopped)


def test_optuna_hears_pruned_and_ray_tells_it_complete(space: Space) -> None:
    own: Any = PEERS["optuna tpe+median"].make(space, 0, 2, FULL)
    ray: Any = PEERS["ray optuna+asha"].make(space, 0, 2, FULL)
    run(own, 100.0)
    _, trace = run(ray, 100.0)
    assert {t.state for t in own._study.trials} >= {TrialState.PRUNED, TrialState.COMPLETE}
    told = [t for t in ray._searcher._ot_study.trials if t.state == TrialState.COMPLETE]
    assert len(told) == len(trace.trials) > len([kimg for _, _, kimg, _ in trace.trials if kimg == FULL])


def test_a_missing_package_is_one_line(space: Space) -> None:
    row = replace(PEERS["random"], package="no_such_package_of_a_peer")
    with pytest.raises(SystemExit, match="no package no_such_package_of_a_peer: pip install -r"):
        row.make(space, 0, 2, FULL)


# --- Budgets -------------------------------------------------------------------------------------


class Listed(BudgetSearch):
    """Asks for what it is given, and keeps what it is told."""

    def __init__(self, *requests: Request) -> None:
        super().__init__()
        self.requests, self.told = list(requests), []

    def next_request(self) -> Request | None:
        return self.requests.pop(0) if self.requests else None

    def tell(self, ticket: Any, value: float) -> None:
        self.told.append((ticket, value))


def tick(search: Listed, job: Job, kimg: int, fid: float | None) -> None:
    search.report(Report(job, kimg, fid, 0.5, "healthy", float(kimg)))


def test_a_configuration_goes_on_from_its_pause() -> None:
    search = Listed(Request("a", {}, 1.1, "first"), Request("a", {}, 3.3, "second"))
    job = search.ask()
    assert job == Job(0, {}, 1, 0)
    tick(search, job, 1, 7.0)
    search.done(job)
    job = search.ask()
    assert job == Job(0, {}, 3, 1)
    tick(search, job, 2, 9.0)
    tick(search, job, 3, 8.0)
    search.done(job)
    assert search.told == [("first", 7.0), ("second", 7.0)]


def test_what_is_known_is_told_at_once() -> None:
    asked = [("a", 3), ("b", 1), ("b", 9), ("a", 1)]
    search = Listed(*(Request(key, {}, budget, (key, budget)) for key, budget in asked))
    job = search.ask()
    assert job is not None
    for kimg, fid in [(1, 5.0), (2, 4.0), (3, 4.5)]:
        tick(search, job, kimg, fid)
    search.done(job)
    job = search.ask()
    assert job is not None
    tick(search, job, 1, None)
    search.done(job)
    assert search.ask() is None  # b has diverged, a has been at 1 kimg
    assert search.told == [(("a", 3), 4.0), (("b", 1), PENALTY), (("b", 9), PENALTY), (("a", 1), 5.0)]


def test_a_configuration_asked_for_twice_at_the_same_time_is_two_trials() -> None:
    search = Listed(Request("a", {}, 3, 1), Request("a", {}, 3, 2))
    assert [job.trial for job in (search.ask(), search.ask()) if job] == [0, 1]


# --- Spaces and random states --------------------------------------------------------------------


def test_drawn_values_become_parameters_of_the_space(space: Space) -> None:
    drawn = {
        "lr_g": np.float64(0.010000000000000002),
        "batch_size": "64",
        "depth_g": np.int64(2),
        "penalty": "none",
        "gamma": 1.0,
    }
    params = active_params(space, drawn)
    assert params == {"lr_g": 0.01, "batch_size": 64, "depth_g": 2, "penalty": "none"}
    assert [type(value) for value in params.values()] == [float, int, int, str]


def test_the_prior_is_the_first_enqueued_point_or_the_middle(space: Space) -> None:
    middle = prior_point(space)
    assert middle["lr_g"] == pytest.approx(10**-3.5)
    assert (middle["depth_g"], middle["penalty"]) == (2, "none")
    enqueued = replace(space, enqueue=({"lr_g": 0.001, "penalty": "gp"},))
    assert prior_point(enqueued) == {**middle, "lr_g": 0.001, "penalty": "gp"}


def test_configspace_has_the_conditions(space: Space) -> None:
    pytest.importorskip("ConfigSpace", reason="benchmarks/requirements-peers.txt")
    drawn = [dict(config) for config in to_configspace(space, seed=0).sample_configuration(50)]
    assert {"gamma" in config for config in drawn} == {True, False}
    for config in drawn:
        assert active_params(space, config).keys() == config.keys()


def test_syne_tune_draws_every_parameter(space: Space) -> None:
    pytest.importorskip("syne_tune", reason="benchmarks/requirements-peers.txt")
    rng = np.random.RandomState(0)
    for _ in range(50):
        drawn = {name: domain.sample(random_state=rng) for name, domain in to_syne_tune(space).items()}
        params = active_params(space, drawn)
        assert all(space.search[name].contains(value) for name, value in params.items())
        assert drawn.keys() == space.search.keys()


def test_neps_has_a_fidelity_and_a_prior(space: Space) -> None:
    neps = pytest.importorskip("neps", reason="benchmarks/requirements-peers.txt")
    optimizer = neps.algorithms.priorband(to_neps(space, "kimg", FULL), sample_prior_first=True)
    first = neps.AskAndTell(optimizer).ask().config
    assert first.pop("kimg") == 1
    assert active_params(space, first) == active_params(space, prior_point(space))


def test_a_peers_random_numbers_are_its_own() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    one, two = OwnRandomState(1), OwnRandomState(1)
    drawn = []
    for state in (one, two, one, two):
        with state():
            drawn.append(np.random.rand())
    assert np.random.get_state()[1].tolist() == before  # type: ignore[union-attr]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
