"""The ledger on a real Optuna journal, driven by hand; Ray's side is in test_sweep.py."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from pipeline.cluster.preemption import PREEMPTED
from pipeline.cluster.tune_adapters import failure_cause, kind_of
from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import METRICS, PENALTY, TrialRecord
from pipeline.search.hang_watch import HangWatch, hang_bound_sec
from pipeline.search.journal import repair_journal
from pipeline.search.space.parser import parse_space
from pipeline.search.study import make_pruner, open_study
from pipeline.search.trial_manager import SweepTrial, TrialManager, rank_trials
from pipeline.training.checkpoint import Failure, TrialFolder

SPACE = parse_space(
    """
    [fixed]
    kimg = 30
    tick_kimg = 1
    [search]
    lr_g = { float = [1e-5, 1e-2], log = true }
    penalty = { choice = ["none", "r1"] }
    gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
    [[enqueue]]
    lr_g = 2e-4
    penalty = "r1"
    gamma = 0.5
    """
)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_start(self, entry: SweepTrial) -> None:
        self.events.append(("start", entry.number))

    def on_record(self, entry: SweepTrial, record: TrialRecord) -> None:
        self.events.append((f"record {record.kimg}", entry.number))

    def on_failure(self, entry: SweepTrial, failure: Failure) -> None:
        self.events.append((failure.kind, entry.number))

    def on_end(self, entry: SweepTrial) -> None:
        self.events.append((entry.state, entry.number))


def record(trial: int, kimg: int, fid: float | None, **more: object) -> TrialRecord:
    numbers = dict.fromkeys(METRICS, 0.5)
    best = {"best_fid": fid, "best_kimg": kimg, "objective": PENALTY if fid is None else fid}
    values = {**numbers, "trial": trial, "kimg": kimg, "verdict": "healthy", "fid": fid, **best, **more}
    return TrialRecord.from_dict(values)


def ledger(root: Path, heard: Heard | None = None, spent: float = 0.0, **plan: object) -> TrialManager:
    config = SweepConfig(**{"trials": 20, "pruner": "none", **plan})  # type: ignore[arg-type]
    paths = SweepPaths(root)
    study = open_study("s", paths.study, config, SPACE)
    return TrialManager(study, SPACE, config, paths, [heard] if heard else [], spent)


def frozen(root: Path) -> list[optuna.trial.FrozenTrial]:
    return ledger(root).study.get_trials()


def test_the_enqueued_point_comes_first_then_draws_inside_the_space(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    first, second = book.ask(), book.ask()
    assert first is not None
    assert second is not None
    assert first.params == {"lr_g": 2e-4, "penalty": "r1", "gamma": 0.5}
    assert 1e-5 <= second.params["lr_g"] <= 1e-2


def test_a_parameter_takes_part_only_when_its_condition_holds(tmp_path: Path) -> None:
    book = ledger(tmp_path, sampler="random", trials=15)
    drawn = [entry.params for entry in iter(book.ask, None) if entry]
    assert {p["penalty"] for p in drawn} == {"none", "r1"}
    assert all(("gamma" in p) == (p["penalty"] == "r1") for p in drawn)


def test_no_more_than_n_trials_are_asked(tmp_path: Path) -> None:
    book = ledger(tmp_path, trials=3)
    assert [entry.number for entry in iter(book.ask, None) if entry] == [0, 1, 2]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_reopened_search_draws_what_an_unbroken_one_draws(tmp_path: Path, sampler: str) -> None:
    def work(root: Path, breaks: bool) -> list[dict[str, object]]:
        book, drawn = ledger(root, sampler=sampler, seed=3), []
        for number in range(14):
            if breaks:
                book = ledger(root, sampler=sampler, seed=3)
            entry = book.ask()
            assert entry is not None
            assert entry.number == number
            drawn.append(entry.params)
            book.report(record(number, 30, 100.0 + 50 * math.log10(entry.params["lr_g"])))
            book.finish(number)
        return drawn

    assert work(tmp_path / "a", breaks=False) == work(tmp_path / "b", breaks=True)


def test_different_trials_of_one_seed_draw_different_points(tmp_path: Path) -> None:
    book = ledger(tmp_path, sampler="random", trials=10)
    rates = [entry.params["lr_g"] for entry in iter(book.ask, None) if entry]
    assert len(set(rates)) == len(rates)


def test_a_finished_trial_is_told_its_best_not_its_last(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.ask()
    book.report(record(0, 1, 50.0))
    book.report(record(0, 2, 80.0, objective=50.0, best_fid=50.0, best_kimg=1))
    book.finish(0)
    trial = frozen(tmp_path)[0]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 50.0)
    assert trial.intermediate_values == {1: 50.0, 2: 50.0}


@pytest.mark.parametrize(
    ("happening", "state", "value"),
    [
        ("diverged at once", TrialState.PRUNED, PENALTY),
        ("diverged later", TrialState.PRUNED, 40.0),
        ("worker died", TrialState.FAIL, None),
        ("no report", TrialState.FAIL, None),
    ],
)
def test_every_end_is_told_once(
    tmp_path: Path, happening: str, state: TrialState, value: float | None
) -> None:
    heard = Heard()
    book = ledger(tmp_path, heard)
    book.ask()
    if happening == "diverged later":
        assert not book.report(record(0, 1, 40.0))
    if happening.startswith("diverged"):
        last = 40.0 if happening == "diverged later" else None
        row = record(0, 2, None, verdict="diverged", best_fid=last, objective=last or PENALTY)
        assert book.report(row)
    book.finish(0, "killed" if happening == "worker died" else "")
    book.finish(0)
    trial = frozen(tmp_path)[0]
    assert (trial.state, trial.value) == (state, value)
    assert len([event for event, _ in heard.events if event in ("complete", "pruned", "failed")]) == 1
    assert book.entries[0].cause


def test_asha_stops_the_worst_and_spares_the_best(tmp_path: Path) -> None:
    book = ledger(tmp_path, pruner="asha")
    grace = 3  # 7 % of 30 kimg, rounded up
    ends = {}
    for number, fid in enumerate([10.0, 90.0, 80.0, 5.0]):
        book.ask()
        for kimg in range(1, 31):
            if book.report(record(number, kimg, fid)):
                break
        book.finish(number)
        ends[number] = (book.entries[number].state, kimg)
    assert ends[0] == ("complete", 30)
    assert ends[1] == ("pruned", grace)
    assert ends[2] == ("pruned", grace)
    assert ends[3] == ("complete", 30)


def test_a_lost_game_is_stopped_only_when_the_fid_stands_still(tmp_path: Path) -> None:
    book = ledger(tmp_path, pruner="median")
    book.ask()
    falling = [book.report(record(0, k, 100.0 - k, verdict="d_wins")) for k in range(1, 9)]
    standing = [
        book.report(record(0, k, 99.0, verdict="d_wins", objective=92.0, best_fid=92.0)) for k in range(9, 15)
    ]
    assert not any(falling)
    assert any(standing)
    assert "hopeless" in book.entries[0].cause


def test_running_trials_are_handed_out_again_under_their_number(tmp_path: Path) -> None:
    book = ledger(tmp_path, trials=3)
    book.ask()
    entry = book.ask()
    assert entry is not None
    book.report(record(0, 1, 9.0))
    TrialFolder(tmp_path / "trials" / "0").append(record(0, 1, 9.0))

    heard = Heard()
    again = ledger(tmp_path, heard, trials=3)
    again.replay()
    numbers = [e.number for e in iter(again.ask, None) if e]
    assert numbers == [0, 1, 2]
    assert again.entries[1].params == entry.params
    again.report(record(0, 1, 9.0))  # a re-adopted trial first repeats itself
    again.report(record(0, 2, 8.0))
    again.finish(0)
    assert heard.events.count(("record 1", 0)) == 1
    assert frozen(tmp_path)[0].intermediate_values == {1: 9.0, 2: 8.0}


def test_a_record_that_the_study_never_heard_of_is_reported_after_all(tmp_path: Path) -> None:
    ledger(tmp_path).ask()
    TrialFolder(tmp_path / "trials" / "0").append(record(0, 1, 9.0))
    again = ledger(tmp_path)
    assert again.entries[0].records == []
    again.report(record(0, 1, 9.0))
    again.finish(0)
    assert frozen(tmp_path)[0].intermediate_values == {1: 9.0}


def test_a_spent_budget_asks_no_more_and_tells_the_running(tmp_path: Path) -> None:
    book = ledger(tmp_path, time_budget_sec=100.0, spent=99.99)
    book.ask()
    book.report(record(0, 1, 9.0))
    spent = ledger(tmp_path, time_budget_sec=100.0, spent=100.0)
    assert spent.over()
    assert [e.number for e in iter(spent.ask, None) if e] == [0]
    spent.close()
    trial = frozen(tmp_path)[0]
    assert trial.state == TrialState.PRUNED
    assert "time budget" in trial.user_attrs["cause"]


def test_an_interrupted_search_leaves_its_trials_running(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.ask()
    book.report(record(0, 1, 9.0))
    book.interrupted = True
    book.finish(0)
    book.close()
    assert book.ask() is None
    assert frozen(tmp_path)[0].state == TrialState.RUNNING


def test_the_clock_stops_when_the_search_closes(tmp_path: Path) -> None:
    book = ledger(tmp_path, spent=7.0)
    book.close()
    assert book.seconds == book.seconds >= 7.0


def test_rank_puts_the_unmeasured_last(tmp_path: Path) -> None:
    entries = [
        SweepTrial(0, {}, records=[record(0, 1, None)]),
        SweepTrial(1, {}, records=[record(1, 1, 5.0), record(1, 2, 7.0)]),
        SweepTrial(2, {}, records=[record(2, 1, 6.0)]),
    ]
    assert [entry.number for entry in rank_trials(entries)] == [1, 2, 0]


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
def test_every_pruner_can_judge(name: str, tmp_path: Path) -> None:
    assert isinstance(make_pruner(name, SPACE), optuna.pruners.BasePruner)
    book = ledger(tmp_path, pruner=name, trials=8)
    for number in range(8):
        book.ask()
        for kimg in range(1, 31):
            if book.report(record(number, kimg, 10.0 * number + 1)):
                break
        book.finish(number)
    states = [entry.state for entry in book.entries.values()]
    assert states[0] == "complete"
    assert ("pruned" in states) == (name != "none")


def test_balance_is_the_samplers_constraint(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    for number, balance in enumerate([0.5, 0.01]):
        book.ask()
        book.report(record(number, 1, 9.0, balance=balance))
        book.finish(number)
    feasible, infeasible = (trial.constraints for trial in frozen(tmp_path))
    assert all(value <= 0 for value in feasible.values())
    assert all(value > 0 for value in infeasible.values())


# The journal


def test_a_torn_line_and_a_dead_ones_lock_are_mended(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.ask()
    path = tmp_path / "study.journal"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 6, "trial')
    os.symlink(path, f"{path}.lock")  # of a process that was killed while it wrote
    begun = time.monotonic()
    again = ledger(tmp_path)
    again.ask()
    again.report(record(0, 1, 9.0))
    assert time.monotonic() - begun < 5
    assert frozen(tmp_path)[0].intermediate_values == {1: 9.0}


@pytest.mark.parametrize("damage", [b"x" * 200_000, b"", b"\n"])
def test_mending_cuts_the_torn_line_only(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(b'{"a":1}\n{"b":2}\n' + damage)
    repair_journal(path)
    assert path.read_bytes() == b'{"a":1}\n{"b":2}\n' + (b"\n" if damage == b"\n" else b"")
    path.write_bytes(b"no line at all")
    repair_journal(path)
    assert path.read_bytes() == b""


def test_a_draw_that_a_kill_cut_short_is_finished(tmp_path: Path) -> None:
    whole = ledger(tmp_path / "whole", sampler="random", seed=5)
    drawn = [entry.params for entry in (whole.ask(), whole.ask()) if entry]
    broken = ledger(tmp_path / "broken", sampler="random", seed=5)
    broken.ask()
    broken.study.ask()  # and dies before its parameters
    again = ledger(tmp_path / "broken", sampler="random", seed=5)
    assert [entry.params for entry in (again.ask(), again.ask()) if entry] == drawn


# Failures and hangs


def test_failures_stay_with_their_trial(tmp_path: Path) -> None:
    heard = Heard()
    book = ledger(tmp_path, heard)
    book.ask()
    book.report(record(0, 3, 9.0))
    book.stumble(0, "exception", "ValueError:\n  bad")
    book.suspect(0, "no report in 700 s")
    book.stumble(0, "worker killed", "its process is gone")
    again = ledger(tmp_path, heard)
    assert [str(failure) for failure in again.entries[0].failures] == [
        "exception after 3 kimg: ValueError: bad",
        "hang after 3 kimg: no report in 700 s",
    ]
    again.replay()
    assert heard.events.count(("hang", 0)) == 2
    with pytest.raises(ValueError, match="no kind of failure: bad luck"):
        again.note(0, "bad luck", "it rained")
    book.finish(0, str(book.entries[0].failures[-1]))
    assert frozen(tmp_path)[0].user_attrs["cause"] == "hang after 3 kimg: no report in 700 s"


def test_a_hang_is_a_silence_longer_than_its_bound(tmp_path: Path) -> None:
    now = 0.0
    book = ledger(tmp_path)
    watch = HangWatch(book, lambda: now)
    book.ask()
    assert watch.silent([0]) == []
    now = 7199.0  # the first tick of all: nothing is known of their length
    assert watch.silent([0]) == []
    book.report(record(0, 1, 9.0, train_seconds=50.0, eval_seconds=10.0))
    assert watch.silent([0]) == []
    now += 1199.0
    assert watch.silent([0]) == []
    now += 2.0  # 20 ticks of 60 s
    assert watch.silent([0]) == [0]
    assert "bound is 1200 s" in book.entries[0].suspicion
    assert watch.silent([0]) == []  # its worker is being ended: a new one gets the same time


def test_what_waits_for_a_machine_does_not_hang(tmp_path: Path) -> None:
    now = 0.0
    book = ledger(tmp_path, hang_after_sec=60.0)
    watch = HangWatch(book, lambda: now)
    book.ask()
    watch.silent([0])
    now = 100.0
    assert watch.silent([]) == []
    now = 200.0
    assert watch.silent([0]) == []
    now = 319.0  # its worker is starting
    assert watch.silent([0]) == []
    book.report(record(0, 1, 9.0))
    watch.silent([0])
    now = 378.0
    assert watch.silent([0]) == []
    now = 380.0
    assert watch.silent([0]) == [0]
    now = 499.0  # the next one starts
    assert watch.silent([0]) == []


@pytest.mark.parametrize(
    ("seconds", "bound"), [((), 7200.0), ((1.0, 2.0), 600.0), ((40.0, 10.0, 50.0), 1000.0)]
)
def test_the_bound_follows_the_longest_tick(tmp_path: Path, seconds: tuple[float, ...], bound: float) -> None:
    book = ledger(tmp_path)
    book.ask()
    book.ask()
    for kimg in range(1, len(seconds) + 1):
        book.report(record(0, kimg, 9.0, train_seconds=sum(seconds[:kimg]), eval_seconds=0.0))
    assert hang_bound_sec(book.entries, 0) == hang_bound_sec(book.entries, 1) == bound
    assert hang_bound_sec(book.entries, 0, given=7.0) == 7.0


RAYS_TEXT = """Failure # 1 (occurred at 2026-11-22)
ValueError: the first one

Failure # 2 (occurred at 2026-11-22)
{}
"""


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        ("Traceback ...\n  File x\nValueError: too wide", "exception", "ValueError: too wide"),
        ("torch.OutOfMemoryError: CUDA out of memory.\n more", "out of memory", "torch.OutOfMemoryError"),
        ("The actor died unexpectedly.\n Worker exit detail: End of file. Some common causes include: (1) "
         "the process was killed by the OOM killer", "worker killed", "End of file."),
        ("The actor died\n Task was killed, the node running low on memory.", "out of memory", "Task was"),
        ("File y\nray.exceptions.RayActorError: its machine is being taken away", "machine gone", PREEMPTED),
        ("", "worker killed", "its process is gone"),
    ],
)  # fmt: skip
def test_the_cause_is_read_from_what_ray_wrote(tmp_path: Path, text: str, kind: str, cause: str) -> None:
    file = tmp_path / "error.txt"
    file.write_text(RAYS_TEXT.format(text))
    found = failure_cause(str(file))
    assert found[0] == kind
    assert found[1].startswith(cause)
    assert failure_cause(None) == ("worker killed", "its process is gone")


def test_what_a_living_trial_says_is_a_failure_of_its_kind_or_none(tmp_path: Path) -> None:
    said: list[str] = []
    folder = TrialFolder(tmp_path, said.append)
    (tmp_path / "state-000000001-0123456789abcdef.pt").write_bytes(b"cut")
    assert folder.restore() is None
    assert [kind_of(text) for text in said] == ["damaged checkpoint"]
    assert kind_of("trial 3: out of memory; from its last tick on, each batch in 2 parts") == "out of memory"
    assert kind_of("the disk has space again; while it was full: nothing is saved") == "disk full"
    assert kind_of("s3://bucket/team/far is away, the trial goes on on its node alone: x") == "store away"
    assert kind_of("training without CUDA graphs: operation not permitted") == ""
