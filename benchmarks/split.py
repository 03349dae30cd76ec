"""Where the seconds of a trial go: each counts once, for what its thread was doing (see `trials.py`)."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

from pipeline.config import TrialConfig
from pipeline.metrics import frechet
from pipeline.training import balance, checkpoint, cuda_graphs, trial
from pipeline.training.trainer import Trainer


def told(
    split: Split, config: TrialConfig, word: str, best: float | None, ticks: int, said: list[str]
) -> dict[str, Any]:
    found = split.stop()
    training = found["training"]
    return {
        **found,
        "training_share": training / found["wall"],
        "images_per_second": 1000 * config.kimg / max(training, 1e-9),
        "kimg": config.kimg,
        "ticks": ticks,
        "verdict": word,
        "best_fid": best,
        "said": said,
    }


class Split:
    """Seconds by kind: each counts once, for the innermost span that its thread is in."""

    KINDS = ("training", "recording", "evaluation", "saving", "waiting", "gc")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stacks = threading.local()
        self._main = threading.get_ident()
        self.missing: list[str] = []  # methods that are no more
        self.start()

    def start(self) -> None:
        """A trial begins."""
        self._began = time.perf_counter()
        self._here = dict.fromkeys(self.KINDS, 0.0)
        self._beside: dict[str, float] = {}
        self._marks: dict[str, float] = {}

    def stop(self) -> dict[str, Any]:
        """A trial is over: its seconds. rest: of the main thread, in no span."""
        wall = time.perf_counter() - self._began
        rest = wall - sum(self._here.values())
        found: dict[str, Any] = {"wall": wall, **self._marks, **self._here, "rest": rest}
        return {**found, "beside": dict(self._beside), "not_found": self.missing}

    def mark(self, name: str) -> None:
        """That something has happened for the first time."""
        self._marks.setdefault(name, time.perf_counter() - self._began)

    def enter(self, kind: str) -> None:
        stack = self._stacks.__dict__.setdefault("spans", [])
        stack.append([kind, time.perf_counter(), 0.0])

    def leave(self) -> None:
        stack = self._stacks.__dict__.get("spans")
        if not stack:
            return
        kind, began, within = stack.pop()
        passed = time.perf_counter() - began
        if stack:
            stack[-1][2] += passed
        with self._lock:
            seconds = self._here if threading.get_ident() == self._main else self._beside
            seconds[kind] = seconds.get(kind, 0.0) + passed - within

    @contextlib.contextmanager
    def span(self, kind: str) -> Iterator[None]:
        self.enter(kind)
        try:
            yield
        finally:
            self.leave()

    def wrap(self, owner: type, name: str, kind: str, mark: str = "") -> None:
        """Count the method's seconds; `mark` its first end."""
        method = getattr(owner, name, None)
        if method is None:
            self.missing.append(f"{owner.__name__}.{name}")
            return

        @functools.wraps(method)
        def watched(*given: Any, **named: Any) -> Any:
            with self.span(kind):
                result = method(*given, **named)
            if mark:
                self.mark(mark)
            return result

        setattr(owner, name, watched)

    def watch(self) -> None:
        """Wrap what a trial of ours does, for the rest of this process."""
        self.wrap(Trainer, "advance", "training")
        self.wrap(balance.MetricAccumulator, "read", "training")  # waits for the device
        self.wrap(cuda_graphs.CudaRecorder, "rehearse", "recording")
        self.wrap(cuda_graphs.CudaRecorder, "record", "recording", mark="first_replay")
        self.wrap(getattr(trial, "_Trial", Split), "_wait", "waiting")  # for a tick that is measured beside
        self.wrap(Trainer, "read_balance", "evaluation")
        self.wrap(frechet.Evaluator, "score", "evaluation")
        self.wrap(Trainer, "state_dict", "saving")
        for name in ("save", "save_best", "save_grid", "append", "flush"):
            self.wrap(checkpoint.TrialFolder, name, "saving")
        self.watch_gc()

    def watch_gc(self) -> None:
        def collected(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                self.enter("gc")
            else:
                self.leave()

        gc.callbacks.append(collected)
