"""The result of one row: how often the fault was injected, which checks failed, how long recovery took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Result:
    """A row of the table.

    Attributes:
        fault: what went wrong, as text.
        injected: how often.
        times: seconds from each fault to recovery.
        broken: descriptions of failed checks.
        notes: remarks for the table.
    """

    fault: str
    injected: int = 0
    times: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def expect(self, held: bool, what: str) -> None:
        """Add `what` to the failed checks unless `held`."""
        if not held:
            self.broken.append(what)

    def cells(self) -> tuple[str, str, str, str]:
        """Fault, times injected, longest recovery, verdict."""
        longest = f"{max(self.times):.1f} s" if self.times else "-"
        verdict = "held" if not self.broken else f"{len(self.broken)} BROKEN: {self.broken[0]}"
        return self.fault, str(self.injected), longest, "; ".join([verdict, *self.notes])


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until `condition` holds; returns how long that took, in seconds. Raises TimeoutError."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{what}: not in {seconds:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun
