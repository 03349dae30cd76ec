"""Does one more hour of search bring what `gansweep` expects of it? Predicted against what then came.

    python benchmarks/expected_gain.py runs/mnist5k runs/photos      # sweeps' folders
    python benchmarks/expected_gain.py histories.jsonl --hours 0.25  # of searches shorter than some hours
    python benchmarks/expected_gain.py --made 60                     # made-up searches, as below

A line of a .jsonl file is one search: {"seconds": [...], "fid": [...]}, a number for each ended trial in the
order of the ends; a fid may be null, and "name" may group searches. What `replay.py` keeps
in its folder WORK is read as well. Each search is predicted every half
horizon, from the time when enough trials have ended until one horizon before its end. The estimate is
calibrated where the mean predicted gain is within a factor of two of the mean gain that came.

It also says where `--until-plateau PERCENT` would have stopped, and how much lower the best fid of the search
was in the end.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from json_lines import read_lines
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from pipeline.config import SweepPaths
from pipeline.reporting.history import read_history
from pipeline.search.expected_gain import (
    SEARCH_SECONDS,
    EndedTrial,
    EndedTrials,
    expected_gain,
    place_in_time,
)
from pipeline.storage.readable import finite

CALIBRATED = 2.0
"""Within this factor of each other lie the means of a calibrated estimate."""


@dataclass(frozen=True)
class Prediction:
    """One prediction and what came; gain, came: fall of the best fid, fractions of it."""

    gain: float
    chance: float
    came: float


@dataclass(frozen=True)
class Stop:
    """Where a plateau ends a search. used: share of its seconds; lost: fall of the best fid after it."""

    used: float
    lost: float


def predictions(trials: Sequence[EndedTrial], hours: float) -> Iterator[Prediction]:
    """Predict a search, its trials in the order of their ends, every half horizon of `hours`."""
    ends = np.array([trial.seconds for trial in trials], float)
    at, horizon = 0.0, 3600 * hours
    while at + horizon <= ends[-1]:
        past = int(np.searchsorted(ends, at, side="right"))
        expected = expected_gain(trials[:past], hours)
        if expected.gain is not None and expected.chance is not None:
            then = int(np.searchsorted(ends, ends[past - 1] + horizon, side="right"))
            came = 1 - best_fid(trials[:then]) / best_fid(trials[:past])
            yield Prediction(expected.gain, expected.chance, came)
        at += horizon / 2


def plateau(trials: Sequence[EndedTrial], hours: float, percent: float) -> Stop | None:
    """Where `--until-plateau PERCENT` ends a search; None = it goes on to its end."""
    ended = EndedTrials(hours=hours)
    for count, trial in enumerate(trials[:-1], start=1):
        ended.add(trial.seconds, trial.fid, trial.work)
        gain = ended.one_more_hour.plateau
        if gain is not None and 100 * gain < percent:
            used = (trial.seconds or 0.0) / (trials[-1].seconds or 1.0)
            return Stop(used, 1 - best_fid(trials) / best_fid(trials[:count]))
    return None


def best_fid(trials: Sequence[EndedTrial]) -> float:
    """The lowest fid; infinite without one."""
    return min((trial.fid for trial in trials if trial.fid is not None), default=math.inf)


def of_lines(path: Path) -> Iterator[tuple[str, list[EndedTrial]]]:
    """The searches of a .jsonl file, each with the name of its group."""
    for row in read_lines(path):
        if "trace" in row:
            pairs = [(seconds, fid) for seconds, fid, *_ in row["trace"]["trials"]]
        else:
            pairs = list(zip(row["seconds"], row["fid"], strict=True))
        yield str(row.get("name", path.stem)), [EndedTrial(seconds, finite(fid)) for seconds, fid in pairs]


def of_sweep(root: Path) -> list[EndedTrial]:
    """The ended trials of a sweep; those whose study is in a database by their share of the work."""
    history, journal = read_history(root), SweepPaths(root).study
    seconds: dict[int, float] = {}
    if journal.is_file():
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        trials = optuna.load_study(study_name=None, storage=storage).get_trials(deepcopy=False)
        seconds = {trial.number: trial.user_attrs.get(SEARCH_SECONDS) for trial in trials}
    ended = [
        EndedTrial(seconds.get(trial.number), trial.fid, trial.seconds)
        for trial in sorted(history.trials, key=lambda trial: trial.number)
        if trial.state not in ("", "running")
    ]
    return place_in_time(ended, history.summary.wall_seconds if history.summary else 0.0)


def _bowl(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random search: fid = 5 + 400 |x|^2 / 4 of a point x drawn evenly from a cube in 4 dimensions."""
    return 5 + 100 * ((rng.random((count, 4)) - 0.5) ** 2).sum(axis=1)


def _power(rng: np.random.Generator, count: int) -> np.ndarray:
    """Fids without a lower bound: log fid = 3 - 0.3 E, E exponential."""
    return np.exp(3 - 0.3 * rng.exponential(size=count))


def _floor(rng: np.random.Generator, count: int) -> np.ndarray:
    """A space with little to find: fid = 10 + 30 B, B of beta(1, 6), and 1 % of noise."""
    return (10 + 30 * rng.beta(1, 6, size=count)) * (1 + 0.01 * rng.normal(size=count))


def _learning(rng: np.random.Generator, count: int) -> np.ndarray:
    """The bowl with 3 % of noise; after ten trials three of four lie near the best so far, ever closer."""
    best, centre, fids = math.inf, np.zeros(4), []
    for number in range(count):
        near = number >= 10 and rng.random() < 0.75
        point = centre + 0.2 * rng.normal(size=4) * (number + 1) ** -0.3 if near else rng.random(4) - 0.5
        fids.append((5 + 100 * (point**2).sum()) * math.exp(0.03 * rng.normal()))
        if fids[-1] < best:
            best, centre = fids[-1], point
    return np.array(fids)


PROCESSES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "bowl": _bowl, "power": _power, "floor": _floor, "learning": _learning,
}  # fmt: skip
"""How made-up searches draw the fids of their trials."""


def made(name: str, seed: int, count: int = 96, per_hour: float = 12.0) -> list[EndedTrial]:
    """A made-up search: fids by a process of `PROCESSES`, ends of a Poisson process of `per_hour`."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.exponential(3600 / per_hour, size=count))
    fids = PROCESSES[name](rng, count)
    return [EndedTrial(float(end), float(fid)) for end, fid in zip(ends, fids, strict=True)]


def judge(name: str, searches: Sequence[Sequence[EndedTrial]], hours: float, percent: float) -> str:
    """One line on searches of a kind: predicted and real gain, and what a plateau would have cost."""
    found = [one for trials in searches for one in predictions(trials, hours)]
    if not found:
        return f"{name}: {len(searches)} searches, none is long enough to be predicted"
    gain, chance, came = (float(np.mean([getattr(one, key) for one in found])) for key in vars(found[0]))
    real = float(np.mean([one.came > 0 for one in found]))
    calibrated = came / CALIBRATED <= gain <= came * CALIBRATED
    stops = [stop for trials in searches if (stop := plateau(trials, hours, percent))]
    text = (
        f"{name}: {len(found)} predictions of {len(searches)} searches: gain {100 * gain:.2f} %, came "
        f"{100 * came:.2f} % ({'calibrated' if calibrated else 'NOT calibrated'})"
    )
    text += f"; chance {chance:.2f}, came {real:.2f}"
    if stops:
        used, lost = (float(np.mean([getattr(stop, key) for stop in stops])) for key in ("used", "lost"))
        text += f"; a plateau of {percent:g} % ends {len(stops)} after {100 * used:.0f} % of their time"
        text += f", {100 * lost:.2f} % lost"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("searches", nargs="*", type=Path, help="sweeps' folders and .jsonl files")
    parser.add_argument("--hours", type=float, default=1.0, help="the horizon")
    parser.add_argument("--percent", type=float, default=1.0, help="of --until-plateau, per horizon")
    parser.add_argument("--made", type=int, default=0, help="made-up searches of each process")
    arguments = parser.parse_args()
    groups: dict[str, list[list[EndedTrial]]] = {
        f"made up, {name}": [made(name, seed) for seed in range(arguments.made)]
        for name in (PROCESSES if arguments.made else ())
    }
    for path in arguments.searches:
        for name, trials in of_lines(path) if path.is_file() else [(path.name, of_sweep(path))]:
            if trials:
                groups.setdefault(name, []).append(trials)
    for name, searches in groups.items():
        print(judge(name, searches, arguments.hours, arguments.percent), flush=True)


if __name__ == "__main__":
    main()
