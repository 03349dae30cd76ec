"""Every verdict and every end of a trial has its kind of reason, the numbers behind it, and advice."""

from __future__ import annotations

import dataclasses
import re

import pytest
from histories import POINT, bare_trial, finished_sweep, trial_view

from pipeline.reporting.explain.reasons import Reason, find_reasons
from pipeline.reporting.history import TrialView

D_WON = {"verdict": "d_wins", "auc": 0.99, "balance": 0.02, "grad_norm_g": 0.01}


def reasons_of(loser: TrialView) -> dict[str, Reason]:
    found = find_reasons(finished_sweep(loser), loser)
    assert len({reason.kind for reason in found}) == len(found)
    return {reason.kind: reason for reason in found}


@pytest.mark.parametrize(
    ("loser", "kinds", "text", "advice"),
    [
        (
            trial_view(1, [60.0, 60.0], "pruned", last=D_WON,
                       params={**POINT, "lr_d": 5e-3, "penalty": "none"}),
            ["d_wins", "stopped", "merit"],
            r"20 kimg.*0.99.*0.02.*vanished.*\(1 .*0.01",
            r"lr_d \(0.005;.* 0.001\).*r1.*skip",
        ),
        (
            trial_view(1, [60.0, 60.0], last={"verdict": "d_wins"}, params={**POINT, "loss": "minimax"}),
            ["d_wins", "merit"], r"20 kimg.*\(1\)", r"gamma \(1\).*nonsaturating",
        ),
        (
            trial_view(1, [60.0], last={"verdict": "g_wins", "auc": 0.03}, params={**POINT, "lr_d": 1e-4}),
            ["g_wins", "merit"], "10 kimg.*0.03", r"lr_d \(0.0001;.* 0.001\).*gamma \(1\)",
        ),
        (
            trial_view(1, [60.0], last={"verdict": "collapsed", "diversity": 0.012}),
            ["collapsed", "merit"], "10 kimg.*1.2 %", "lr_g.*relativistic",
        ),
        (
            trial_view(1, [60.0, 70.0], "pruned", last={"verdict": "diverged", "fid": None},
                       params={**POINT, "lr_g": 9e-3}),
            ["diverged", "merit"], "20 kimg", r"lr_g \(0.009;.* 0.001\).*gamma \(1\)",
        ),
        (
            trial_view(1, [60.0, 70.0], "pruned", last={"verdict": "diverged", "fid": None},
                       params={**POINT, "loss": "wasserstein", "penalty": "none"}),
            ["diverged", "merit"], "20 kimg", "add penalty r1, which loss wasserstein needs$",
        ),
        (
            trial_view(1, [60.0], last={"verdict": "d_wins"}, params={**POINT, "loss": "mine:loss"}),
            ["d_wins", "merit"], "10 kimg", "^(?!.*loss)",
        ),
        (
            bare_trial(1, "failed", "CUDA out of memory", params=POINT, last_kimg=5),
            ["failed"], "5 kimg.*CUDA out of memory", "batch_size.*--gpus-per-trial",
        ),
        (bare_trial(1, "failed", params=POINT), ["failed"], "0 kimg", "worker"),
        (
            trial_view(1, [90.0, 60.0], "pruned", cause="by asha"),
            ["stopped", "merit"], r"20 kimg \(by asha\).* 60.* trial 0 30", "",
        ),
        (
            trial_view(1, [30.0, 25.0, 60.0]),
            ["unstable", "merit"], "20 kimg.* 2.4 times", "cosine.*ema_halflife_kimg",
        ),
        (
            trial_view(1, [30.0, 25.0], last={"overfit": 0.9}),
            ["overfit", "falling", "merit"], "overfit 0.90", "augment = ada",
        ),
        (trial_view(1, [50.0, 40.0]), ["falling", "merit"], "50 to 40", "--kimg 40"),
        (trial_view(1, [50.0, 49.9]), ["merit"], "49.9, 2.5 times .* trial 0", ""),
        (trial_view(1, [500.0, 499.0]), ["merit"], " 25 times ", ""),
        (trial_view(1, [50.0], "running"), ["running"], "10 of 40 kimg", ""),
        (bare_trial(1), ["unknown"], "", ""),
    ],
)  # fmt: skip
def test_reasons_follow_from_the_records(loser: TrialView, kinds: list[str], text: str, advice: str) -> None:
    found = reasons_of(loser)
    assert list(found) == kinds
    first = found[kinds[0]]
    assert re.search(text, first.text), first.text
    assert re.search(advice, first.advice), first.advice
    assert bool(first.advice) == bool(advice)


def test_values_outside_the_region_of_the_best_trials_are_named() -> None:
    near = [trial_view(n, [21.0 + n, 20.5 + n], params={**POINT, "lr_g": 1e-3 + n * 1e-4}) for n in (1, 2)]
    bad = [trial_view(n, [50.0 + n]) for n in (3, 4, 5, 6)]
    far = trial_view(9, [90.0, 80.0], params={**POINT, "lr_g": 9e-3, "loss": "minimax"})
    merit = find_reasons(finished_sweep(*near, *bad, far), far)[-1]
    assert merit.kind == "merit"
    assert re.search(r"lr_g \(0.009\).*: 0.001 to 0.0012", merit.advice)
    assert re.search(r"loss \(minimax\).*: hinge", merit.advice)


def test_a_verdict_holds_since_its_last_unbroken_run_of_ticks_began() -> None:
    verdicts = ("d_wins", "healthy", "d_wins", "d_wins")
    records = tuple(
        trial_view(0, [9.0] * (i + 1), last={"verdict": verdict}).records[-1]
        for i, verdict in enumerate(verdicts)
    )
    loser = dataclasses.replace(trial_view(1, [9.0] * 4, last={"verdict": "d_wins"}), records=records)
    assert reasons_of(loser)["d_wins"].text.startswith("D won at 30 kimg")
