"""Each sampler proposes on a real study: the same points again, and after an interruption."""

from __future__ import annotations

import importlib.util
import logging
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import scipy.stats.qmc
from trial_managers import make_manager, tick

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.search._compat import ReplayedCmaEsSampler
from pipeline.search.samplers import check_sampler, sampler_notes
from pipeline.search.space.parser import parse_space
from pipeline.tables import PRUNERS, SAMPLERS
from pipeline.user_code import UserCode, read_code, use_code

SPACE = parse_space(
    """
    [fixed]
    kimg = 30
    tick_kimg = 10
    [search]
    lr_g = { float = [1e-5, 1e-2], log = true }
    beta1 = { float = [0.0, 0.9] }
    width_g = { int = [8, 64], log = true }
    penalty = { choice = ["none", "r1"] }
    gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
    [[enqueue]]
    lr_g = 2e-4
    penalty = "r1"
    """
)
MINE = '''
import optuna

class Seeded(optuna.samplers.RandomSampler):
    """Takes the seed that every trial has."""

class Unseeded(optuna.samplers.RandomSampler):
    def __init__(self):
        super().__init__(seed=0)

class Greedy(optuna.samplers.RandomSampler):
    def __init__(self, appetite):
        super().__init__()

class Unpickling(optuna.samplers.CmaEsSampler):
    pass

NUMBER = 7

def none():
    return None

def broken(seed):
    return [][seed]
'''
SLOW = ("gp", "botorch")
INSTALLED = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in SAMPLERS
    if name != "botorch" or importlib.util.find_spec("botorch")
]


@pytest.fixture(autouse=True)
def user_code(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "mine.py").write_text(MINE)
    use_code(read_code(["mine:Seeded", "optuna.samplers:NSGAIISampler"], [tmp_path]))
    yield
    use_code(UserCode())


def search(
    root: Path, sampler: str, trials: int = 18, reopen: int = 0, seed: int = 3
) -> list[dict[str, object]]:
    """The points of a search of two trials at a time; reopened before every `reopen`-th one.

    Two of three trials are pruned; the fid is a function of the point.
    """
    options = {"sampler": sampler, "seed": seed, "space": SPACE}
    manager = make_manager(root, **options)
    drawn: list[dict[str, Any]] = []
    running: list[int] = []
    for number in range(18):
        if reopen and number % reopen == 0:
            manager = make_manager(root, **options)
            for again in running:
                adopted = manager.ask()
                assert adopted is not None
                assert adopted.number == again
        trial = manager.ask()
        assert trial is not None
        assert trial.number == number
        drawn.append(dict(trial.params))
        running.append(number)
        if len(running) == 2:
            first = running.pop(0)
            fid = 100.0 + 50 * abs(math.log10(drawn[first]["lr_g"]) + 3) + drawn[first]["width_g"]
            manager.report(tick(first, 10, fid))
            if first % 3 == 2:
                manager.report(tick(first, 20, None, verdict="diverged", objective=fid))
            manager.finish(first)
    return drawn


def study_trials(root: Path, sampler: str) -> list[optuna.trial.FrozenTrial]:
    return make_manager(root, sampler=sampler, space=SPACE).study.get_trials()


@pytest.mark.parametrize("sampler", [*INSTALLED, "mine:Seeded", "optuna.samplers:NSGAIISampler"])
def test_a_search_repeats_and_a_reopened_one_draws_the_same(tmp_path: Path, sampler: str) -> None:
    with warnings.catch_warnings():
        if sampler != "botorch":
            warnings.simplefilter("error")
        once = search(tmp_path / "a", sampler)
    assert search(tmp_path / "b", sampler) == once
    assert search(tmp_path / "c", sampler, reopen=3) == once
    assert search(tmp_path / "d", sampler, seed=4)[1:] != once[1:]
    assert len({point["lr_g"] for point in once}) == len(once)
    assert once[0]["lr_g"] == 2e-4
    assert all(("gamma" in point) == (point["penalty"] == "r1") for point in once)


def test_the_models_are_in_use_and_leave_no_pickle(tmp_path: Path) -> None:
    search(tmp_path / "cmaes", "cmaes")
    search(tmp_path / "gp", "gp")
    generations = [
        trial.system_attrs.get("cma:generation", -1) for trial in study_trials(tmp_path / "cmaes", "cmaes")
    ]
    assert sorted(set(generations)) == [-1, 0, 1]
    assert "optimizer" not in (tmp_path / "cmaes" / "study.journal").read_text()
    assert any("gp:relative_params:0" in t.system_attrs for t in study_trials(tmp_path / "gp", "gp"))


def test_replaying_the_generations_gives_the_optimizer_that_optuna_keeps_as_a_pickle() -> None:
    def value(trial: optuna.Trial) -> float:
        return (trial.suggest_float("x", -5, 5) - 1) ** 2 + (trial.suggest_float("y", -5, 5) + 2) ** 2

    study = optuna.create_study(sampler=optuna.samplers.CmaEsSampler(seed=1))
    study.optimize(value, n_trials=60)
    numbers = study.trials[0].distributions
    ours = ReplayedCmaEsSampler(1, numbers)
    assert ours._restore_optimizer(study.trials) is None
    transform = optuna._transform._SearchSpaceTransform(numbers, transform_step=True, transform_0_1=True)
    replayed = ours._init_optimizer(transform, study.direction)
    kept = study.sampler._restore_optimizer(study.trials)
    assert replayed.generation == kept.generation > 5
    assert replayed._mean == pytest.approx(kept._mean)
    assert replayed._sigma == pytest.approx(kept._sigma)


def test_qmc_walks_along_one_sequence(tmp_path: Path) -> None:
    drawn = search(tmp_path, "qmc", seed=5)
    sequence = scipy.stats.qmc.Sobol(len(SPACE.search), seed=5, scramble=True).random(32)
    column = list(SPACE.search).index("beta1")
    assert [p["beta1"] for p in drawn] == pytest.approx([0.9 * row[column] for row in sequence[:18]])


@pytest.mark.parametrize(
    ("sampler", "problem", "fix"),
    [
        ("mine:Greedy", "mine:Greedy cannot be made: TypeError: .* argument: 'appetite'", "correct mine.py"),
        ("mine:NUMBER", "mine:NUMBER cannot be made: TypeError: 7 is not a callable", "correct mine.py"),
        ("mine:none", "sampler = mine:none is no BaseSampler", "inherit from optuna.samplers.BaseSampler"),
        ("mine:broken", "sampler = mine:broken cannot be made: IndexError", "line 24"),
        ("mine:Nowhere", "mine has no Nowhere", ""),
        ("mine:Unpickling", "sampler = mine:Unpickling is refused", "--sampler cmaes"),
        ("optuna.samplers:CmaEsSampler", "is refused", "--sampler cmaes"),
        ("optuna.samplers:GridSampler", "cannot be made: TypeError: .* argument: 'search_space'", "inherits"),
    ],
)
def test_a_sampler_that_cannot_be_used_is_refused_in_one_line(sampler: str, problem: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        check_sampler(SweepConfig(sampler=sampler), SPACE)
    assert fix in caught.value.fix
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("sampler", "module", "package"),
    [("cmaes", "cmaes", "cmaes"), ("botorch", "optuna_integration", "optuna-integration botorch")],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, sampler: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    with pytest.raises(ConfigError, match=f"--sampler {sampler} needs a package .*; pip install {package}$"):
        check_sampler(SweepConfig(sampler=sampler), SPACE)


def test_a_sampler_without_a_seed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_sampler(SweepConfig(sampler="mine:Seeded"), SPACE)
        assert caplog.messages == []
        check_sampler(SweepConfig(sampler="mine:Unseeded"), SPACE)
    assert len(caplog.messages) == 1
    assert "mine:Unseeded" in caplog.messages[0]


@pytest.mark.parametrize(
    ("sampler", "pruner", "notes"),
    [
        ("tpe", "asha", []),
        ("random", "asha", []),
        ("qmc", "asha", []),
        ("gp", "none", ["not model gamma"]),
        ("gp", "asha", ["not model gamma", "--pruner none"]),
        ("cmaes", "asha", ["not model penalty, gamma"]),
        ("botorch", "none", ["not model gamma"]),
        ("mine:Seeded", "asha", []),
    ],
)
def test_what_a_sampler_does_not_do_is_noted(sampler: str, pruner: str, notes: list[str]) -> None:
    found = sampler_notes(SweepConfig(sampler=sampler, pruner=pruner), SPACE)
    assert len(found) == len(notes)
    assert all(part in note for part, note in zip(notes, found, strict=True))


def test_the_guide_lists_every_sampler_and_pruner() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "samplers.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [name for name in (*SAMPLERS, *PRUNERS) if not any(f"`{name}`" in row for row in rows)] == []
