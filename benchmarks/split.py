"""How the time of a trial is divided: each second counts once, by the activity of its thread."""

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


def trial_result(
    split: Split, config: TrialConfig, word: str, best: float | None, ticks: int, said: list[str]
) -> dict[str, Any]:
    """The result of a trial: its times, speed and last verdict. said: its log lines."""
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
    """Seconds by kind: each counts once, for the innermost span of its thread."""

    KINDS = ("training", "recording", "evaluation", "saving", "waiting", "gc")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stacks = threading.local()
        self._main = threading.get_ident()
        self.missing: list[str] = []  # methods that were not found
        self.start()

    def start(self) -> None:
        """Start the clock of a trial."""
        self._began = time.perf_counter()
        self._main_seconds = dict.fromkeys(self.KINDS, 0.0)
        self._other_seconds: dict[str, float] = {}
        self._marks: dict[str, float] = {}

    def stop(self) -> dict[str, Any]:
        """The seconds of the trial so far. rest: of the main thread outside of all spans."""
        wall = time.perf_counter() - self._began
        rest = wall - sum(self._main_seconds.values())
        found: dict[str, Any] = {"wall": wall, **self._marks, **self._main_seconds, "rest": rest}
        return {**found, "beside": dict(self._other_seconds), "not_found": self.missing}

    def mark(self, name: str) -> None:
        """Store the time of the first event called `name`."""
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
            in_main = threading.get_ident() == self._main
            seconds = self._main_seconds if in_main else self._other_seconds
            seconds[kind] = seconds.get(kind, 0.0) + passed - within

    @contextlib.contextmanager
    def span(self, kind: str) -> Iterator[None]:
        self.enter(kind)
        try:
            yield
        finally:
            self.leave()

    def wrap(self, owner: type, name: str, kind: str, mark: str = "") -> None:
        """Count the seconds of the method `name` of `owner`; `mark` the end of its first call."""
        method = getattr(owner, name, None)
        if method is None:
            self.missing.append(f"{owner.__name__}.{name}")
            return

        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.span(kind):
                result = method(*args, **kwargs)
            if mark:
                self.mark(mark)
            return result

        setattr(owner, name, timed)

    def watch(self) -> None:
        """Time the parts of gansweep's trials, for the rest of this process."""
        self.wrap(Trainer, "advance", "training")
        self.wrap(balance.MetricAccumulator, "read", "training")  # synchronises with the device
        self.wrap(cuda_graphs.CudaGraphBackend, "warm_up", "recording")
        self.wrap(cuda_graphs.CudaGraphBackend, "capture", "recording", mark="first_replay")
        self.wrap(trial._Trial, "_await_record", "waiting")  # for a tick that is measured in the background
        self.wrap(Trainer, "read_balance", "evaluation")
        self.wrap(frechet.Evaluator, "score", "evaluation")
        self.wrap(Trainer, "state_dict", "saving")
        for name in ("save", "save_best", "save_grid", "append", "flush"):
            self.wrap(checkpoint.TrialFolder, name, "saving")
        self.watch_gc()

    def watch_gc(self) -> None:
        def on_collection(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                self.enter("gc")
            else:
                self.leave()

        gc.callbacks.append(on_collection)
