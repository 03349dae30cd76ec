"""How many finalists pay? The best trials of replayed searches, measured again without noise.

A search ends with the trial whose fid was lowest in one noisy measurement. If its K best trials are measured
again, the best of these is taken. Here the second measurement is exact, so each figure is the most that K
finalists can gain: the expected fid of the chosen trial over that of the trial with the lowest fid seen, the
median and the mean over the searches.

    python benchmarks/replay.py --work build/replays
    python benchmarks/finalists.py build/replays/*/gansweep-2.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from json_lines import read_lines

COUNTS = (1, 2, 3, 5, 8, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="of replay.py's WORK, one method and table each")
    args = parser.parse_args()
    print("fid of the champion over that without finalists, median (mean)")
    print(f"{'':<28}" + "".join(f"{count:>14}" for count in COUNTS))
    for path in args.files:
        found = np.array([gains(trials) for trials in searches(path)])
        cells = [f"{np.median(row):.3f} ({row.mean():.3f})" for row in found.T]
        print(f"{path.parent.name + ' ' + path.stem:<28}" + "".join(f"{cell:>14}" for cell in cells))


def searches(path: Path) -> list[list[tuple[float, float]]]:
    """Of each replay its trials as (lowest fid seen, expected fid of the same tick)."""
    return [[(seen, truth) for _, seen, _, truth in line["trace"]["trials"]] for line in read_lines(path)]


def gains(trials: Sequence[tuple[float, float]]) -> list[float]:
    """The expected fid with 1, 2, ... (`COUNTS`) finalists, over that with one."""
    truths = [truth for _, truth in sorted(trials)]
    return [min(truths[:count]) / truths[0] for count in COUNTS]


if __name__ == "__main__":
    main()
