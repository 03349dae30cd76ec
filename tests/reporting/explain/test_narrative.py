"""The explanation of a sweep and of its trials; the wording is in golden_explain.txt alone.

UPDATE_GOLDEN=1 rewrites the golden file.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from histories import POINT, bare_trial, best_of, finalist_row, finished_sweep, history_of, trial_view
from sweep_folders import summary_of

from pipeline.reporting.explain.narrative import (
    explain_sweep,
    explain_trial,
    next_file,
    next_steps,
    shared_values,
)
from pipeline.reporting.history import History, TrialView
from pipeline.search.space.parser import parse_space
from pipeline.tables import PRUNERS

GOLDEN = Path(__file__).with_name("golden_explain.txt")
LAST_OF_LOSERS = {
    5: {"verdict": "d_wins", "auc": 0.99, "balance": 0.02, "grad_norm_g": 0.01},
    6: {"verdict": "g_wins", "auc": 0.03},
    7: {"verdict": "collapsed", "diversity": 0.012},
    8: {"verdict": "diverged", "fid": None},
    9: {"overfit": 0.9},
}


def sweep_of_every_kind() -> History:
    """A finished sweep whose trials have every kind of reason."""
    near = [
        trial_view(n, [21.0 + n, 20.5 + n], params={**POINT, "lr_g": 9.5e-3 - n * 1e-4}) for n in (1, 2, 3)
    ]
    losers = [trial_view(n, [60.0, 60.0 + n], last=last) for n, last in LAST_OF_LOSERS.items()]
    others = [
        trial_view(10, [90.0, 60.0], "pruned", cause="pruned by asha"),
        trial_view(11, [30.0, 25.0, 60.0], params={**POINT, "loss": "minimax"}),
        trial_view(12, [50.0, 40.0]),
        trial_view(13, [50.0], "running"),
        bare_trial(14, "failed", "CUDA out of memory", params=POINT, last_kimg=5),
        bare_trial(15),
    ]
    failure = {"trial": 12, "kind": "out of memory", "kimg": 5, "text": "CUDA"}
    rows = [finalist_row(0, 20.4, 20.0, 20.8), finalist_row(1, 20.9, 20.5, 21.3)]
    return finished_sweep(*near, *losers, *others, best=best_of(0), finalists=rows, failures=[failure])


def rendered(history: History) -> str:
    """The whole explanation as text."""
    parts = [("the sweep", explain_sweep(history))]
    by_number = sorted(history.trials, key=lambda trial: trial.number)
    parts += [(f"trial {trial.number}", explain_trial(history, trial)) for trial in by_number]
    lines = []
    for name, sections in parts:
        lines.append(f"=== {name} ===")
        for heading, sentences in sections:
            lines += [heading, *(f"  - {sentence}" for sentence in sentences)]
    return "\n".join([*lines, "=== next space ===", next_file(history)])


def test_the_explanation_of_one_sweep_is_the_golden_text() -> None:
    text = rendered(sweep_of_every_kind())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_the_sampler_the_pruner_and_the_users_own_code_are_named() -> None:
    stored = {
        "sweep": {"sampler": "mine:Sampler", "pruner": "asha", "extractor": "other:features"},
        "code": {"mine": "ab" * 32, "other": "cd" * 32},
    }
    space = parse_space('[fixed]\nloss = "mine:loss"\n[search]\nlr_g = { float = [1e-4, 1e-2] }\n')
    history = dataclasses.replace(finished_sweep(), stored=stored, space=space)
    (_, lines), *_ = explain_sweep(history)
    extractor, sampler, pruner, mine, other = lines
    assert extractor == "The extractor is other:features: your own code."
    assert "mine:Sampler" in sampler
    assert "asha" in pruner
    assert PRUNERS["asha"].meaning in pruner
    assert re.search("mine .*abababababab.*: mine:loss, mine:Sampler", mine)
    assert re.search("other .*: other:features", other)


def searched_by_mfgp(*trials: TrialView) -> str:
    """How a sweep of these trials searched, in one line."""
    stored = {"sweep": {"sampler": "mfgp"}}
    space = parse_space(
        "[search]\nlr_g = { float = [1e-5, 1e-1], log = true }\nbeta1 = { choice = [0, 0.5] }"
    )
    (_, lines), *_ = explain_sweep(dataclasses.replace(history_of(*trials), stored=stored, space=space))
    return " ".join(lines)


def test_what_the_search_believes_is_told() -> None:
    """The fid depends on lr_g alone; failed trials and values outside the space do not count."""
    rates = [1e-5 * 10**n for n in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4)]
    trials = [
        trial_view(n, [90.0, 10.0 + 20 * abs(n - 4)], params={"lr_g": rate, "beta1": (0, 0.5)[n % 2]})
        for n, rate in enumerate(rates)
    ]
    found = searched_by_mfgp(*trials, trial_view(20, [1.0], "failed", params={"lr_g": 5.0}))
    assert "It believes that these decide most: lr_g, beta1." in found
    told = re.search(r"lowest fid, (\S+) \((\S+) to (\S+)\) at a trial's end, at lr_g = (\S+), beta1", found)
    assert told
    fid, low, high, rate = map(float, told.groups())
    assert low < fid < high
    assert 5 < fid < 30
    assert 1e-4 < rate < 1e-2
    few = [trial for trial in trials if trial.trial < 7]
    assert "It has not learned yet: fewer than 8 trials have reported." in searched_by_mfgp(*few)


def test_failures_of_a_trial_are_listed() -> None:
    row = {"trial": 1, "kind": "out of memory", "kimg": 5, "text": "CUDA", "index": 0}
    trial = trial_view(1, [50.0, 49.9])
    history = finished_sweep(trial, failures=[row, {**row, "trial": 2}])
    _, (_, failures), _ = explain_trial(history, trial)
    assert len(failures) == 1
    assert re.search("out of memory.* 5 kimg.*CUDA", failures[0])


def test_the_winner_is_explained_by_its_own_fid_and_the_one_of_the_next() -> None:
    rows = [finalist_row(0, 20.4, 20.0, 20.8), finalist_row(1, 20.9, 20.5, 21.3)]
    history = finished_sweep(trial_view(1, [21.0]), trial_view(2, [33.0]), best=best_of(0), finalists=rows)
    first, second = explain_sweep(history)[0][1]
    assert re.search(r"Trial 0 .*20.4 .*\[20, 20.8\].*5000 .*19.9.* 0.50 .*40 of 40 kimg", first)
    assert re.search(r"Trial 1 .*20.9.*overlap", second)
    rows[1] = finalist_row(1, 20.9, 20.81, 21.3)
    history = finished_sweep(trial_view(1, [21.0]), best=best_of(0), finalists=rows)
    assert "overlap" not in explain_sweep(history)[0][1][1]


def test_the_mean_over_the_seeds_comes_first() -> None:
    row = finalist_row(0, 20.4, 20.0, 20.8)
    row["runs"] = [{"fid": 20.4}, {"fid": 21.4}, {"fid": None}]
    row["best"] |= {"fid_mean": 20.9, "search_fid": 19.5}
    history = finished_sweep(trial_view(1, [21.0]), best=best_of(0), finalists=[row])
    first = explain_sweep(history)[0][1][0]
    assert re.search(r"20.9 .*2 seeds.*20.4 .*\[20, 20.8\].*19.5", first)


def test_before_the_final_evaluation_the_fids_are_those_of_the_search() -> None:
    history = finished_sweep(trial_view(1, [21.0]), state="running")
    first, second = explain_sweep(history)[0][1]
    assert re.search(r"Trial 0 leads .*19.9", first)
    assert re.search(r"Trial 1 .* 21 ", second)


def test_what_the_best_trials_have_in_common() -> None:
    history = finished_sweep(trial_view(1, [21.0]), trial_view(2, [33.0]))
    assert "hinge (3 of 3)" in shared_values(history)[0]
    assert shared_values(finished_sweep()) == []


def test_problems_are_counted_and_a_common_one_comes_with_advice() -> None:
    lost_to_d = [trial_view(n, [60.0], last={"verdict": "d_wins"}) for n in (1, 2)]
    _, (_, lost), (_, steps) = explain_sweep(finished_sweep(*lost_to_d, trial_view(3, [25.0])))
    assert any(re.search(r"^2 .* D: trials 1, 2\.", line) for line in lost)
    assert any(re.search(r"^2 of 4 trials .* D: .*lower lr_d", line) for line in steps)
    assert steps[0].startswith("4 trials are few")


def test_a_bound_that_the_best_trials_are_near_is_to_be_widened() -> None:
    near = [trial_view(n, [20.5 + n], params={**POINT, "lr_g": 9.9e-3}) for n in (1, 2)]
    history = dataclasses.replace(finished_sweep(*near), summary=summary_of(best=best_of(1)))
    assert any(re.search("lr_g: .*high bound 0.01; widen", line) for line in next_steps(history))


def test_what_one_more_hour_should_bring_is_said_where_it_is_known() -> None:
    trials = [trial_view(number, [30.0, 20.0 + number]) for number in range(1, 10)]
    hour = {"trials": 34, "needed": 12, "gain": 0.031, "chance": 0.6, "fid": 12.1}
    first = next_steps(finished_sweep(*trials, one_more_hour=hour))[0]
    assert first.startswith("One more hour in the same space: best fid -3.1 % (about 12.1), 60 % chance")
    assert first.endswith("; search longer.")
    low = next_steps(finished_sweep(*trials, one_more_hour={**hour, "gain": 0.0099}))[0]
    assert low.endswith("; change the space instead.")
    unknown = next_steps(finished_sweep(*trials, one_more_hour={"trials": 10, "needed": 12}))
    assert not any("One more hour" in line for line in unknown)


def test_a_sweep_without_a_fid_is_explained_too() -> None:
    (_, won), (_, lost), (_, steps) = explain_sweep(history_of(bare_trial(0, "failed", "boom")))
    assert len(won) == len(steps) == 1
    assert any(re.search("^1 failed: trial 0", line) for line in lost)
