"""Each pruner on a real study."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from trial_managers import SPACE, make_manager, tick

from pipeline.search.pruners import make_pruner


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
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
