"""Two sweeps that begin at the same moment in one fresh folder."""

from __future__ import annotations

import random
import time
from pathlib import Path

from faults.result import Result
from faults.sweeps import Sweep, check_stores

_FLAGS = ("--trials", "1", "--kimg", "2", "--concurrency", "1", "--extractor", "pixels")
_FLAGS += ("--fid-samples", "200", "--final-samples", "200")


def together(folder: Path, times: int, rng: random.Random) -> Result:
    """Start two sweeps on one --out that does not exist yet: both make MLflow's store, and both end right."""
    result = Result("two sweeps begin together on a fresh --out")
    both = 0
    for index in range(times):
        sweeps = [Sweep(folder / str(index), *_FLAGS, name=name) for name in ("a", "b")]
        begun, broken = time.monotonic(), len(result.broken)
        for sweep in sweeps:
            sweep.start()
        for sweep in sweeps:
            code = sweep.end()
            result.expect(code == 0, f"{sweep.paths.root.name}: exit code {code}: {sweep.stderr[-300:]}")
        result.times.append(time.monotonic() - begun)
        result.injected += 1
        for sweep in sweeps:
            registered = sweep.summary.get("registered") or {}
            result.expect(registered.get("alias") == "champion", "no champion")
            check_stores(result, sweep, 1)
        both += len(result.broken) == broken
    result.notes.append(f"{both} of {times} times both right")
    return result
