"""Ray Tune's function API on one side, `pipeline.trial.run` on the other; nothing in between.

Owns: the report dictionary. Refuses: any decision on training.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ray import tune

from pipeline.config import SweepPaths, TrialConfig
from pipeline.errors import GansweepError
from pipeline.node import Lent, borrow, device
from pipeline.records import PENALTY
from pipeline.trial import run


def train(asked: dict[str, Any], *, fixed: dict[str, Any], root: str, threads: int, lent: Lent) -> None:
    """Run the trial that was asked for, reporting each record; the folder of a number is its memory.

    asked: {"number", "params"} from the searcher. fixed: the space's fixed values and the sweep's seed.
    """
    # Ray's object store lends read-only memory; torch warns, although no trial writes to its images.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    number = asked["number"]
    try:
        dataset, evaluator = borrow(lent)
        config = TrialConfig.from_dict(
            {**fixed, **asked["params"], "seed": fixed["seed"] * 1_000_000 + number}
        )
        paths = SweepPaths(Path(root))
        trial = run(
            config,
            dataset,
            evaluator,
            paths.trial(number),
            number=number,
            device=device(),
            threads=threads,
            should_stop=paths.stop.exists,
        )
        for record in trial:
            tune.report({"objective": record.objective, "record": record})
    except GansweepError as error:
        tune.report({"objective": PENALTY, "failure": str(error)})
