"""The private interfaces of Optuna that `pipeline.search._compat` relies on are there, by name and form."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path

import optuna
import pytest
from trial_managers import make_manager, tick

from pipeline.search import _compat

METHODS = {
    (optuna.samplers.QMCSampler, "_find_sample_id"): ["self", "study", "search_space"],
    (optuna.samplers.CmaEsSampler, "_restore_optimizer"): ["self", "completed_trials"],
    (optuna.samplers.CmaEsSampler, "_init_optimizer"): ["self", "trans", "direction"],
    (optuna.samplers.CmaEsSampler, "_get_solution_trials"): ["self", "trials", "generation"],
    (optuna.trial.Trial, "__init__"): ["self", "study", "trial_id"],
}
"""Methods that `_compat` calls or replaces, with their parameters."""


@pytest.mark.parametrize(("owner", "name"), METHODS)
def test_a_private_method_is_as_it_was(owner: type, name: str) -> None:
    found = getattr(owner, name, None)
    assert found is not None, (
        f"Optuna {version('optuna')} has no {owner.__name__}.{name}; tested: {_compat.TESTED}"
    )
    assert list(inspect.signature(found).parameters) == METHODS[owner, name]


def test_a_private_attribute_is_there(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.ask()
    study, (frozen,) = manager.study, manager.study.trials
    lacking = [
        text
        for text, owner, name in (
            ("Study._storage", study, "_storage"),
            ("Trial._trial_id", study.ask(), "_trial_id"),
            ("FrozenTrial._trial_id", frozen, "_trial_id"),
        )
        if not hasattr(owner, name)
    ]
    assert not lacking, f"Optuna {version('optuna')} lacks {lacking}; tested: {_compat.TESTED}"


def test_a_trial_is_reopened_with_what_it_reported(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.ask()
    manager.report(tick(0, 1, 9.0))
    (frozen,) = manager.study.trials
    assert _compat.reported_steps(_compat.reopen_trial(manager.study, frozen)) == {1: 9.0}


def test_the_lock_file_of_a_journal(tmp_path: Path) -> None:
    lock = optuna.storages.journal.JournalFileSymlinkLock(str(tmp_path / "j"))
    lock.acquire()
    assert [path.name for path in tmp_path.iterdir()] == [f"j{_compat.JOURNAL_LOCK}"]


def test_no_other_file_uses_a_private_interface() -> None:
    package = Path(_compat.__file__).parent.parent
    words = ("._storage", "._trial_id", "optuna._")
    users = {
        p.name for p in package.rglob("*.py") if any(word in p.read_text(encoding="utf-8") for word in words)
    }
    assert users == {"_compat.py"}
