"""What the measurements of training share: processes that take turns, JSON that outlives a kill, the machine.

Owns: `beside`, `Peer` and `orders`, `write_json`, `wait`, `machine`. Refuses: what is measured.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pipeline.cluster import mps


class Peer:
    """A process that does what it is told; once it has ended or hung, `trouble` says so."""

    def __init__(self, life: Callable[..., None], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, its = context.Pipe()
        self._process = context.Process(target=life, args=(*given, its), daemon=True)
        self._process.start()
        its.close()
        self.trouble = ""

    def tell(self, order: Any) -> None:
        """Give it an order; `hear` has its answer."""
        if not self.trouble:
            with contextlib.suppress(OSError):  # an ended process is noticed by `hear`
                self._pipe.send(order)

    def hear(self, patience: float) -> Any:
        """Its next answer, or None if it gives none within `patience` seconds."""
        if self.trouble:
            return None
        try:
            if self._pipe.poll(max(0.0, patience)):
                return self._pipe.recv()
            self.trouble = f"no answer within {patience:.0f} s"
        except (EOFError, OSError):
            self.trouble = "it ended with an error"
        self.end()
        return None

    def ask(self, order: Any, patience: float) -> Any:
        """Tell and hear."""
        self.tell(order)
        return self.hear(patience)

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)


@contextlib.contextmanager
def beside(life: Callable[..., None], *given: Any) -> Iterator[Peer]:
    """A process that lives `life(*given, pipe)` for as long as the block lasts."""
    peer = Peer(life, *given)
    try:
        yield peer
    finally:
        peer.end()


def orders(pipe: Connection) -> Iterator[Any]:
    """What such a process is told, until nobody is there any more."""
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


def write_json(path: Path | None, found: Any) -> None:
    """Put `found` there in one move, so that whoever reads it finds it whole."""
    if path is not None:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(found, indent=1))
        fresh.replace(path)


def wait(device: torch.device) -> None:
    """For what the device was told to do; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine() -> dict[str, Any]:
    """Where and when this was; asks nvidia-smi, so that this process never opens the GPU."""
    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/local/nvidia/bin:/usr/bin")
    card, driver = "none", "none"
    if smi:
        query = [smi, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
            answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            card, driver = (cell.strip() for cell in answer.stdout.splitlines()[0].split(","))
    return {
        "card": card,
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "mps": bool(mps.find_program()),
        "date": datetime.date.today().isoformat(),
    }
