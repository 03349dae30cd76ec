"""Replays: a table that knows its own trials, virtual time, our search in it, and the ratios of computes."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from finalists import gains
from portfolio import bootstrapped, choose, write
from replays.chosen import cross_validate
from replays.clock import Job, Report, Trace, replay
from replays.methods import CHOICES, open_search, parse_choices
from replays.ours import OurSearch
from replays.points import points_of, shared_point
from replays.results import read_results, write_results
from replays.scores import Curves, compute_ratio, compute_to_reach, curves_of
from replays.world import Table

SPACE = """
[fixed]
kimg = 6
tick_kimg = 1
[search]
lr_g = { float = [1e-5, 1e-2], log = true }
lr_d = { float = [1e-5, 1e-2], log = true }
batch_size = { choice = [32, 64] }
width_g = { int = [8, 16], log = true }
penalty = { choice = ["none", "r1"] }
gamma = { float = [0.01, 10.0], log = true, when = { penalty = ["r1"] } }
ema_halflife_kimg = { float = [0.1, 10.0], log = true }
"""
CONFIGS = 60


def write_table(folder: Path) -> None:
    """A table whose fid is best at lr_g = 1e-3, and whose trials take 1 or 2 seconds a tick."""
    rng, rows = np.random.default_rng(0), []
    for config in range(CONFIGS):
        params = {
            "lr_g": float(10 ** rng.uniform(-5, -2)),
            "lr_d": float(10 ** rng.uniform(-5, -2)),
            "batch_size": int(rng.choice([32, 64])),
            "width_g": int(rng.integers(8, 17)),
            "penalty": str(rng.choice(["none", "r1"])),
            "ema_halflife_kimg": 1.0,
        }
        if params["penalty"] == "r1":
            params["gamma"] = 1.0
        for seed in (0, 1) if config < 5 else (0,):
            for kimg in range(1, 7):
                fid = 20 * math.exp(abs(math.log10(params["lr_g"]) + 3)) / kimg * (1 + 0.05 * seed)
                tick = {"kimg": kimg, "fid": fid, "balance": 0.5, "verdict": "healthy"}
                seconds = kimg * (64 / params["batch_size"])
                rows.append({"config": config, "seed": seed, **tick, "seconds": seconds, **params})
    (folder / "digits.toml").write_text(SPACE)
    pd.DataFrame(rows).to_parquet(folder / "digits.parquet")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("tables")
    write_table(folder)
    return Table("digits", folder)


class Full:
    """A search whose trials all run to their end; what it was told is kept."""

    def __init__(self, table: Table, stop_at: int = 99) -> None:
        self.params, self.stop_at = table.params, stop_at
        self.asked, self.reports, self.ended = 0, list[Report](), list[int]()

    def ask(self) -> Job | None:
        self.asked += 1
        return Job(self.asked - 1, self.params[self.asked - 1], 6)

    def report(self, report: Report) -> bool:
        self.reports.append(report)
        return report.kimg >= self.stop_at

    def done(self, job: Job) -> None:
        self.ended.append(job.trial)


def test_a_recorded_trial_is_replayed_as_it_was_but_for_its_luck(table: Table) -> None:
    for row in (10, 30, 50):
        expected = table.expected(table.params[row])
        recorded, unseen = table.log_fid[row], table._unseen()[row]
        kept = table.shrinkage[row]
        assert 0.5 < kept < 1
        assert np.allclose(np.log(expected.truth), kept * recorded + (1 - kept) * unseen)
        assert expected.kimg.tolist() == [1, 2, 3, 4, 5, 6]
        assert set(expected.verdict) == {"healthy"}
        assert expected.seconds[-1] == pytest.approx(table.recorded.seconds[row], rel=0.3)


def test_more_seeds_leave_less_to_luck(table: Table) -> None:
    assert table.shrinkage[0] > table.shrinkage[10]  # two seeds, one


def test_a_diverged_trial_is_replayed_to_its_end(tmp_path: Path) -> None:
    write_table(tmp_path)
    frame = pd.read_parquet(tmp_path / "digits.parquet")
    gone = (frame["config"] == 20) & (frame["kimg"] > 3)
    frame.loc[(frame["config"] == 20) & (frame["kimg"] == 3), ["fid", "verdict"]] = [None, "diverged"]
    frame[~gone].to_parquet(tmp_path / "digits.parquet")
    table = Table("digits", tmp_path)
    trial = table.expected(table.params[20])
    assert trial.kimg.tolist() == [1, 2, 3]
    assert np.isnan(trial.truth).tolist() == [False, False, True]
    assert trial.verdict.tolist() == ["healthy", "healthy", "diverged"]


def test_noise_has_the_size_of_that_between_seeds(table: Table) -> None:
    rng = np.random.default_rng(0)
    drawn = [table.trial(table.params[20], rng).fid[-1] for _ in range(50)]
    assert 0 < np.std(np.log(drawn)) == pytest.approx(math.log(1.05) / math.sqrt(2), rel=0.1)


def test_other_points_spread_as_recorded_ones_do(table: Table) -> None:
    rng = np.random.default_rng(1)
    spread = []
    for row in range(CONFIGS):
        params = {**table.params[row], "lr_g": float(10 ** rng.uniform(-5, -2))}
        spread.append(np.log(table.expected(params).truth.min()))
    assert np.std(spread) == pytest.approx(table.log_fid.min(axis=1).std(), rel=0.5)


def test_workers_share_the_time(table: Table) -> None:
    counts = {}
    for workers in (1, 2):
        search = Full(table)
        trace = replay(table, search, workers, 60.0, 0)
        counts[workers] = len(search.ended)
        assert max(seconds for seconds, *_ in trace.trials) <= 60
        assert all(report.kimg <= 6 for report in search.reports)
    assert counts[2] == pytest.approx(2 * counts[1], abs=2)


def test_a_stopped_trial_frees_its_worker_at_once(table: Table) -> None:
    search = Full(table, stop_at=1)
    replay(table, search, 1, 20.0, 0)
    assert {report.kimg for report in search.reports} == {1}
    assert len(search.ended) > 10


def test_the_incumbent_is_what_was_seen_and_its_truth_has_no_noise(table: Table) -> None:
    trace = replay(table, Full(table), 2, 60.0, 0)
    assert trace.seen == sorted(trace.seen, reverse=True)
    assert trace.at(0.0) == math.inf
    assert trace.at(60.0) == trace.truth[-1]


def test_our_search_runs_in_a_replay_and_repeats(table: Table) -> None:
    found = []
    for _ in range(2):
        search = OurSearch(table.space, 3, {"sampler": "mfgp", "pruner": "asha"})
        found.append(replay(table, search, 2, 120.0, 3))
        states = {trial.state for trial in search.manager.trials.values()}
        search.close()
        assert {"complete", "pruned"} <= states
    assert found[0] == found[1]


def test_a_choice_holds_in_its_replay_alone(table: Table) -> None:
    from pipeline.search.surrogate import sampler

    before = sampler.CANDIDATES
    choice = "sampler=tpe,portfolio=no,candidates=77,pruner=replays.pruners:FirstTwo"
    with open_search(f"gansweep:{choice}", table, 2, 0) as search:
        assert isinstance(search, OurSearch)
        held = sampler.CANDIDATES
        assert search.manager.config.sampler == "tpe"
        assert not search.manager.space.enqueue
        assert search.manager.study.pruner.first == 2
    assert (held, sampler.CANDIDATES) == (77, before)
    assert all(parse_choices(choice) for choice in CHOICES)
    with pytest.raises(SystemExit, match="no choice 'candidate': use sampler"):
        parse_choices("candidate=3")


def test_results_are_kept_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "replays.parquet"
    first = {("digits", "w", 2, "random", seed): Trace([1.0, 2.5], [9.0, 8.0]) for seed in range(3)}
    write_results(first, path)
    more = {("digits", "w", 2, "random", 1): [7.0], ("icons", "v", 8, "bohb", 0): [1.0]}
    write_results({key: Trace([3.0], truth) for key, truth in more.items()}, path)
    found = read_results(path)
    assert found["digits", "w", 2, "random", 0] == first["digits", "w", 2, "random", 0]
    assert found["digits", "w", 2, "random", 1].truth == [7.0]
    assert len(found) == 4
    assert read_results(tmp_path / "none.parquet") == {}


def test_finalists_gain_what_a_lucky_measurement_lost() -> None:
    trials = [(2.0, 4.0), (1.0, 5.0), (3.0, 3.0), (4.0, 4.5)]
    assert gains(trials)[:4] == [1.0, 0.8, 0.6, 0.6]


def test_points_move_to_a_table_and_back(table: Table, tmp_path: Path) -> None:
    params = next(p for p in table.params if p["penalty"] == "r1")
    point = shared_point(params, table)
    assert point["gamma"] == {"factor": pytest.approx(params["batch_size"] / 64), "size": 2, "batch_size": -1}
    write(tmp_path / "p.toml", [point], "a test")
    (back,) = points_of(table, tmp_path / "p.toml")
    assert back["gamma"] == pytest.approx(1.0)
    assert back["width_g"] == params["width_g"]


def test_a_portfolio_has_different_points_and_good_ones(table: Table) -> None:
    chosen = choose([table], {table.name: bootstrapped(table)}, 4)
    assert len({str(point) for point in chosen}) == 4
    assert all(abs(math.log10(point["lr_g"]) + 3) < 0.7 for point in chosen)


def curves(falls_at: float, ends: float = 1.0) -> Curves:
    """20 seeds that fall from 10 to `ends` after about `falls_at` of 1,000 seconds."""
    rng = np.random.default_rng(int(falls_at))
    traces = [Trace([0.1, falls_at * rng.uniform(0.9, 1.1)], [10.0, ends], [10.0, ends]) for _ in range(20)]
    return curves_of(traces, 1, 1000.0)


def test_ratio_of_computes() -> None:
    random, ours = curves(800), curves(100)
    found = compute_ratio(ours, random, random)
    assert found.value == pytest.approx(1 / 8, rel=0.1)
    assert found.low <= found.value <= found.high
    assert compute_ratio(random, random, random).value == 1
    assert compute_ratio(curves(100, ends=2.0), random, random).value == math.inf


def test_compute_counts_all_workers() -> None:
    traces = [Trace([10.0], [1.0], [1.0])] * 3
    assert compute_to_reach(curves_of(traces, 8, 1000.0), 1.0) == pytest.approx(80, rel=0.05)


def test_choices_are_judged_on_the_table_that_did_not_choose_them() -> None:
    ratios = {
        "gansweep": (0.2, 0.2, 0.2),
        "gansweep:grace=0.2": (0.8, 0.1, 0.1),
        "random": (0.01, 0.01, 0.01),
    }
    ratios["gansweep:startup=4"] = (0.01,)  # not on all tables
    lines = [
        {"table": table, "workers": 2, "method": method, "compute_ratio": ratio}
        for method, found in ratios.items()
        for table, ratio in zip(("a", "b", "c"), found, strict=False)
    ]
    found = {chosen.table: chosen for chosen in cross_validate(lines)}
    assert [found[table].method for table in "abc"] == ["gansweep:grace=0.2", "gansweep", "gansweep"]
    assert [found["a"].there, found["a"].default, found["a"].least] == pytest.approx([0.8, 0.2, 0.2])
    assert found["b"].least == pytest.approx(0.1)
    assert not list(cross_validate([line for line in lines if line["method"] == "random"]))
