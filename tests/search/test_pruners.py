"""Each pruner on a real study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from trial_managers import SPACE, make_manager, tick

from pipeline.config import SweepPaths
from pipeline.errors import ConfigError
from pipeline.search.pruners import OLD_REDUCTION, REDUCTION, make_pruner
from pipeline.tables import PRUNERS
from pipeline.user_code import UserCode, read_code, use_code


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_but_none_prunes_the_worse_trials(name: str, tmp_path: Path) -> None:
    assert isinstance(make_pruner(name, SPACE), optuna.pruners.BasePruner)
    manager = make_manager(tmp_path, pruner=name, trials=8)
    for number in range(8):
        manager.ask()
        for kimg in range(1, 31):
            if manager.report(tick(number, kimg, 10.0 * number + 1)):
                break
        manager.finish(number)
    states = [trial.state for trial in manager.trials.values()]
    assert states[0] == "complete"
    assert ("pruned" in states) == (name != "none")


MINE = """
import optuna

class Halving(optuna.pruners.BasePruner):
    def __init__(self, max_resource, n_warmup_steps, patience=7):
        self.given = max_resource, n_warmup_steps, patience

    def prune(self, study, trial):
        return trial.last_step >= 15

sampler = optuna.samplers.RandomSampler
"""


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "mine.py").write_text(MINE)
    use_code(read_code(["mine:Halving", "optuna.pruners:ThresholdPruner"], [tmp_path]))
    yield
    use_code(UserCode())


@pytest.mark.usefixtures("mine")
def test_the_users_own_pruner_gets_its_bounds_in_kimg(tmp_path: Path) -> None:
    assert vars(make_pruner("mine:Halving", SPACE)) == {"given": (30, 3, 7)}
    manager = make_manager(tmp_path, pruner="mine:Halving")
    manager.ask()
    assert [manager.report(tick(0, kimg, 9.0)) for kimg in (5, 10, 15)] == [False, False, True]
    assert manager.trials[0].cause == "pruned by mine:Halving at 15 kimg"


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("optuna.pruners:ThresholdPruner", "cannot be made: TypeError: Either lower or upper must be"),
        ("mine:sampler", "pruner = mine:sampler is no BasePruner"),
    ],
)
def test_a_pruner_that_cannot_be_used_is_refused_in_one_line(name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_pruner(name, SPACE)


def test_the_rungs_of_the_default_pruner() -> None:
    made = make_pruner("asha", SPACE)
    assert (made._min_resource, made._reduction_factor) == (3, 2)


def test_a_study_keeps_its_reduction(tmp_path: Path) -> None:
    """Rungs of other lengths than those of earlier trials would compare fids at different kimg."""
    path = tmp_path / "old" / SweepPaths(Path()).study.name
    path.parent.mkdir()
    old = optuna.create_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    old.set_user_attr("enqueued", 0)  # by a version that kept no reduction
    for root, expected in (("old", OLD_REDUCTION), ("new", REDUCTION), ("new", REDUCTION)):
        manager = make_manager(tmp_path / root, pruner="asha")
        assert manager.study.pruner._reduction_factor == expected
