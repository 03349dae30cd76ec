"""Every verdict has its sentence and its advice; the narrowed space holds the best trials and is a space."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import SpaceError, SweepError
from pipeline.records import TrialRecord
from pipeline.reporting.explain.narrative import explain_sweep, explain_trial, next_file, next_steps
from pipeline.reporting.explain.regions import narrowed, place, regions, value_at, winners
from pipeline.reporting.history import History, TrialView
from pipeline.search.space.builtin import builtin_spaces, load_space
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution
from pipeline.search.space.parser import parse_space

SPACE = parse_space(
    """
[fixed]
kimg = 40
[search]
lr_g = { float = [1e-4, 1e-2], log = true }
lr_d = { float = [1e-4, 1e-2], log = true }
width_g = { int = [8, 64], log = true }
loss = { choice = ["nonsaturating", "hinge", "minimax"] }
penalty = { choice = ["none", "r1"] }
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
"""
)
D_WON = {"verdict": "d_wins", "auc": 0.99, "balance": 0.02, "grad_norm_g": 0.01}
POINT = {"lr_g": 1e-3, "lr_d": 1e-3, "width_g": 20, "loss": "hinge", "penalty": "r1", "gamma": 1.0}


def record(
    kimg: int, fid: float | None, best: float | None, verdict: str = "healthy", **more: Any
) -> TrialRecord:
    numbers: dict[str, Any] = {f.name: 0.5 for f in dataclasses.fields(TrialRecord)}
    numbers.update(
        trial=0, kimg=kimg, verdict=verdict, fid=fid, best_fid=best, best_kimg=kimg, grad_norm_g=1.0
    )
    return TrialRecord(**{**numbers, **more})


def told(number: int, fids: list[float], state: str = "complete", **more: Any) -> TrialView:
    """A trial with a tick every ten kimg; `more` are fields of Told, `last` those of the last record."""
    last = more.pop("last", {})
    records = [record(10 * (i + 1), fid, min(fids[: i + 1])) for i, fid in enumerate(fids)]
    verdict = last.get("verdict", "healthy")
    records[-1] = dataclasses.replace(records[-1], **last)
    best = min(fids)
    known: dict[str, Any] = {
        "fid": best, "balance": 0.5, "auc": 0.75, "kimg": 10 * (fids.index(best) + 1),
        "last_kimg": 10 * len(fids), "stability": fids[-1] / best, "verdict": verdict, "params": POINT,
    }  # fmt: skip
    return TrialView(number=number, state=state, records=tuple(records), **{**known, **more})


def sweep(*others: TrialView, **summary: Any) -> History:
    winner = told(0, [40.0, 30.0, 20.0, 19.9])
    trials = sorted([winner, *others], key=lambda t: (t.fid is None, t.fid or 0.0))
    return History(Path("tiny"), {"state": "finished", **summary}, tuple(trials), {}, SPACE)


def why(loser: TrialView) -> str:
    return " ".join(line for _, lines in explain_trial(sweep(loser), loser) for line in lines)


@pytest.mark.parametrize(
    ("loser", "said"),
    [
        (
            told(1, [60.0, 60.0], "pruned", last=D_WON,
                 params={**POINT, "lr_d": 5e-3, "penalty": "none"}),
            ["D won at 20 kimg (AUC 0.99, balance 0.02), and G's gradients vanished (1 fell to 0.01)",
             "ower lr_d (0.005; the winner has 0.001) or add penalty r1 or let controller skip hold D back"],
        ),
        (
            told(1, [60.0, 60.0], last={"verdict": "d_wins"}, params={**POINT, "loss": "minimax"}),
            ["though G still gets gradients (1)", "raise gamma (1)", "use loss nonsaturating"],
        ),
        (
            told(1, [60.0], last={"verdict": "g_wins", "auc": 0.03}, params={**POINT, "lr_d": 1e-4}),
            ["G won at 10 kimg: D takes fakes for reals (AUC 0.03)",
             "Raise lr_d (0.0001; the winner has 0.001)", "lower gamma (1)"],
        ),
        (
            told(1, [60.0], last={"verdict": "collapsed", "diversity": 0.012}),
            ["G collapsed at 10 kimg: it draws one picture (its fakes spread 1.2 %", "try loss relativistic"],
        ),
        (
            told(1, [60.0, 70.0], "pruned", last={"verdict": "diverged", "fid": None},
                 params={**POINT, "lr_g": 9e-3}),
            ["It diverged at 20 kimg", "ower lr_g (0.009; the winner has 0.001), lower gamma (1)"],
        ),
        (
            TrialView(1, "failed", POINT, "CUDA out of memory", last_kimg=5),
            ["It failed at 5 kimg: CUDA out of memory", "ower batch_size"],
        ),
        (TrialView(1, "failed", POINT, ""), ["It failed at 0 kimg: without a word", "last words are the cause"]),
        (
            told(1, [90.0, 60.0], "pruned", cause="by asha"),
            ["It was stopped at 20 kimg (by asha): its best fid was 60, that of trial 0 30 by then",
             "Its best fid is 60, 3 times that of trial 0", "Nothing of its own"],
        ),
        (told(1, [30.0, 25.0, 60.0]), ["best at 20 kimg and ended 2.4 times as far away", "schedule cosine"]),
        (told(1, [30.0, 25.0], last={"overfit": 0.9}), ["by heart (overfit 0.90", "et augment = ada"]),
        (told(1, [50.0, 40.0]), ["still falling when it ended (50 to 40", "rain longer (--kimg 40)"]),
        (told(1, [50.0, 49.9]), ["Its best fid is 49.9, 2.5 times that of trial 0"]),
        (told(1, [50.0], "running"), ["It has trained 10 of 40 kimg"]),
        (told(1, [500.0, 499.0]), ["25 times that of trial 0"]),
        (TrialView(1), ["do not tell what became of it"]),
    ],
)  # fmt: skip
def test_a_trial_is_explained_by_what_its_records_show(loser: TrialView, said: list[str]) -> None:
    text = why(loser)
    assert all(part in text for part in said), text


def test_what_went_wrong_on_its_way_is_told() -> None:
    row = {"trial": 1, "kind": "out of memory", "kimg": 5, "text": "CUDA", "index": 0}
    loser = told(1, [50.0, 49.9])
    history = sweep(loser, failures=[row, {**row, "trial": 2}])
    said = dict(explain_trial(history, loser))["What went wrong on its way"]
    assert said == ["out of memory after 5 kimg: CUDA"]


def test_values_away_from_the_best_trials_are_named() -> None:
    near = [told(n, [21.0 + n, 20.5 + n], params={**POINT, "lr_g": 1e-3 + n * 1e-4}) for n in (1, 2)]
    far = told(9, [90.0, 80.0], params={**POINT, "lr_g": 9e-3, "loss": "minimax"})
    bad = [told(n, [50.0 + n]) for n in (3, 4, 5, 6)]
    lines = dict(explain_trial(sweep(*near, *bad, far), far))["What to try"]
    assert "Move lr_g (0.009) to where the best trials lie: 0.001 to 0.0012" in lines[-1]
    assert "loss (minimax) to what the best trials have: hinge" in lines[-1]


def final(trial: int, fid: float, low: float, high: float) -> dict[str, Any]:
    measurement = {"fid": fid, "fid_low": low, "fid_high": high, "n": 5000}
    return {"best": {"trial": trial, "fid": fid}, "measurement": measurement}


def test_the_winner_is_told_with_its_margin() -> None:
    finals = [final(0, 20.4, 20.0, 20.8), final(1, 20.9, 20.5, 21.3)]
    history = sweep(told(1, [21.0]), told(2, [33.0]), best={"trial": 0}, finalists=finals)
    lines = dict(explain_sweep(history))["What won"]
    assert lines == [
        "Trial 0 won: fid 20.4 in [20, 20.8] of 5000 samples (the search saw 19.9), balance 0.50 at 40 of 40"
        " kimg.",
        "Trial 1 comes next with 20.9; their intervals overlap: call it a tie.",
    ]
    seeds = {"runs": [{"fid": 20.4}, {"fid": 21.4}, {"fid": None}]}
    finals[0] |= seeds | {"best": {"trial": 0, "fid": 20.4, "fid_mean": 20.9, "search_fid": 19.5}}
    seen = "its best run 20.4 in [20, 20.8] of 5000 samples (the search saw 19.5)"
    first = dict(explain_sweep(history))["What won"][0]
    assert first.startswith(f"Trial 0 won: fid 20.9 on average of 2 seeds, {seen}")
    assert "hinge (3 of 3)" in " ".join(dict(explain_trial(history, history.trials[0]))["Why it won"])
    running = dataclasses.replace(history, summary={"state": "running"})
    assert dict(explain_sweep(running))["What won"] == [
        "Trial 0 leads so far: fid 19.9 as the search saw it, balance 0.50 at 40 of 40 kimg.",
        "Trial 1 comes next with 21 (as the search saw it).",
    ]


def test_the_dead_are_counted_and_a_common_death_has_its_cure() -> None:
    dead = [told(n, [60.0], last={"verdict": "d_wins"}) for n in (1, 2)]
    told_ = dict(explain_sweep(sweep(*dead, told(3, [25.0]))))
    assert "2 lost to D: 1, 2." in told_["What lost"]
    assert any(
        "2 of 4 trials lost to D: search a lower lr_d" in line for line in told_["What to search next"]
    )
    assert "4 trials are few" in told_["What to search next"][0]


def test_a_sweep_without_a_fid_is_told_too() -> None:
    history = History(Path("x"), {}, (TrialView(0, "failed", {}, "boom"),), {}, SPACE)
    told_ = dict(explain_sweep(history))
    assert told_["What won"] == ["No trial has a fid yet."]
    with pytest.raises(SpaceError, match="narrowed from 3 trials with a fid; got 0"):
        narrowed(history)


def test_bounds_move_out_where_the_best_lean_on_them_and_in_elsewhere() -> None:
    best = [told(n, [20.5 + n], params={**POINT, "lr_g": 9.9e-3, "width_g": 20 + n}) for n in (1, 2)]
    history = sweep(*best, *(told(n, [90.0], params={**POINT, "loss": "minimax"}) for n in range(3, 9)))
    history = dataclasses.replace(history, summary={"best": {"trial": 1}})
    found = {region.name: region for region in regions(history, winners(history))}
    assert (found["lr_g"].hit, found["lr_g"].bound, found["width_g"].hit) == ("high", 1e-2, "")
    after = narrowed(history)
    assert after.search["lr_g"].high == pytest.approx(0.1, rel=0.1)
    assert after.search["lr_d"].low > 1e-4
    assert after.search["lr_d"].high < 1e-2
    assert after.search["width_g"].low > 8
    assert after.search["width_g"].high < 64
    assert after.search["loss"].choices == ("nonsaturating", "hinge"), "one was never tried, one lost"
    assert after.search["penalty"].choices == ("none", "r1")
    assert after.enqueue[0]["lr_g"] == 9.9e-3
    assert any(
        "lr_g: the best trials lean on its high bound 0.01; widen it" in x for x in next_steps(history)
    )


def test_what_can_take_no_part_any_more_is_gone() -> None:
    point = {k: v for k, v in {**POINT, "penalty": "none"}.items() if k != "gamma"}
    best = [told(n, [20.5 + n], params=point) for n in (1, 2, 3)]
    lost = [told(n, [90.0 + n]) for n in range(4, 12)]
    trials = tuple(sorted([*best, *lost], key=lambda t: t.fid or 0.0))
    after = narrowed(History(Path("x"), {}, trials, {}, SPACE))
    assert after.fixed["penalty"] == "none"
    assert "gamma" not in after.search


@pytest.mark.parametrize("name", sorted(builtin_spaces()))
def test_a_narrowed_space_is_valid_and_holds_the_best_points(name: str) -> None:
    space, rng = load_space(name), random.Random(name)
    for _ in range(20):
        trials = [told(n, [rng.uniform(1, 99)], params=drawn(space, rng)) for n in range(rng.randint(3, 30))]
        history = History(Path(name), {}, tuple(sorted(trials, key=lambda t: t.fid or 0.0)), {}, space)
        after = parse_space(next_file(history))
        assert len(after.enqueue) == 3
        kept = {k: v for k, v in history.trials[0].params.items() if k in after.search}
        assert dict(after.enqueue[0]) == pytest.approx(kept)
        after.config(after.enqueue[0])


def drawn(space: Space, rng: random.Random) -> dict[str, Any]:
    point: dict[str, Any] = {}
    for name, d in space.search.items():
        if space.active(name, point):
            value = rng.choice(d.choices) if d.choices else value_at(d, rng.random() ** 3)
            point[name] = round(value) if d.whole else value
    return point


@pytest.mark.parametrize("log", [False, True])
def test_places_in_a_range(log: bool) -> None:
    d = Distribution(low=1.0, high=100.0, log=log)
    assert (place(d, 1.0), place(d, 100.0)) == (0.0, 1.0)
    assert value_at(d, place(d, 7.0)) == pytest.approx(7.0)
    assert value_at(d, 0.5) == pytest.approx(10.0 if log else 50.5)
    assert math.isclose(value_at(d, 1.5), 1000.0 if log else 149.5)


def test_the_command(tmp_path: Path) -> None:
    root, invoke = tmp_path / "tiny", CliRunner().invoke
    for n in range(4):
        folder = root / "trials" / str(n)
        folder.mkdir(parents=True)
        folder.joinpath("records.jsonl").write_text(record(10, 30.0 + n, 30.0 + n).to_json() + "\n")
    spool = [
        f'{{"event": "start", "trial": {n}, "params": {{"lr_g": {1e-3 * (n + 1)}}}}}\n' for n in range(4)
    ]
    (root / "spool.jsonl").write_text("".join(spool))
    (root / "sweep.toml").write_text(
        "[space.fixed]\nkimg = 40\n[space.search]\nlr_g = { float = [1e-4, 1e-2] }\n"
    )
    said = invoke(app, ["explain", str(root)])
    assert said.exit_code == 0
    assert "Trial 0 leads so far: fid 30" in said.stdout
    assert "How it goes\n  - It has trained 10 of 40 kimg." in invoke(app, ["explain", str(root), "3"]).stdout
    assert isinstance(invoke(app, ["explain", str(root), "9"]).exception, SweepError)
    target = tmp_path / "next.toml"
    assert invoke(app, ["explain", str(root), "--next", str(target)]).exit_code == 0
    assert invoke(app, ["validate", str(target)]).exit_code == 0
    assert invoke(app, ["explain", str(root), "--next", str(target)]).exit_code == 1, "nothing is overwritten"
