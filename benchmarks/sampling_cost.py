"""What proposing a trial costs when 2,000 trials are known: ms per trial of our sampler and of Optuna's TPE.

The trials are those of a replay's start on the table `digits`: random points of its wide space, two thirds of
them stopped after a tick. Timed is what a sweep waits for at each new trial: the sampler made, the study
asked and all parameters suggested. CPU time of one thread, the median of 20 proposals.

    OMP_NUM_THREADS=1 python benchmarks/sampling_cost.py
    python benchmarks/sampling_cost.py --trials 200 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial
from replays.world import Table, load_table

from pipeline.config import SweepConfig
from pipeline.search.samplers import make_sampler, to_optuna
from pipeline.search.study import open_study, suggest_params
from pipeline.search.surrogate.encoding import Encoder

PROPOSALS = 20
BAR_MS = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="that are known")
    parser.add_argument("--samplers", nargs="+", default=["mfgp", "tpe", "random"])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    table = load_table("digits")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.samplers:
            config = SweepConfig(sampler=name)
            study = open_study("cost", Path(folder) / f"{name}.journal", config, table.space)
            study.add_trials(known_trials(table, args.trials))
            found = milliseconds(study, config, table)
            line = {"sampler": name, "trials": args.trials, "ms": round(found, 2)}
            verdict = f", at most {BAR_MS:g}: {'reached' if found <= BAR_MS else 'missed'}"
            text = f"{name}: {found:.1f} ms a trial at {args.trials} trials"
            print(json.dumps(line) if args.json else text + (verdict if name == "mfgp" else ""), flush=True)


def known_trials(table: Table, count: int) -> list[optuna.trial.FrozenTrial]:
    """Random points with the curves that the table gives them."""
    rng, encoder = np.random.default_rng(0), Encoder(table.space)
    known = {name: to_optuna(d) for name, d in table.space.search.items()}
    found = []
    for number, places in enumerate(encoder.draw(rng, count)):
        params = encoder.params(places)
        trial = table.trial(params, rng)
        last = len(trial.kimg) if number % 3 == 0 else 1
        fids = np.minimum.accumulate(np.nan_to_num(trial.fid[:last], nan=1e6))
        reports = {int(kimg): float(fid) for kimg, fid in zip(trial.kimg, fids, strict=False)}
        complete = last == table.full_kimg
        found.append(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=float(fids[-1]) if complete else None,
                params=params,
                distributions={name: known[name] for name in params},
                intermediate_values=reports,
            )
        )
    return found


def milliseconds(study: optuna.Study, config: SweepConfig, table: Table) -> float:
    """The median over proposals; the first one, which reads all trials, is not counted."""
    times = []
    for number in range(PROPOSALS + 1):
        started = time.process_time()
        study.sampler = make_sampler(config, table.space, number)
        trial = study.ask()
        suggest_params(table.space, trial)
        times.append(1000 * (time.process_time() - started))
        study.tell(trial, state=TrialState.FAIL)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
