"""Tools of the GPU benchmarks: peer processes, JSON that survives a kill, facts of the machine."""

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
    """A process that answers requests. After it has ended or hung, `trouble` says so."""

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, peer_end = context.Pipe()
        self._process = context.Process(target=target, args=(*args, peer_end), daemon=True)
        self._process.start()
        peer_end.close()
        self.trouble = ""

    def send(self, request: Any) -> None:
        """Send a request; `receive` returns the answer."""
        if not self.trouble:
            with contextlib.suppress(OSError):  # `receive` notices a process that has ended
                self._pipe.send(request)

    def receive(self, timeout_sec: float) -> Any:
        """The next answer, or None if there is none within `timeout_sec` seconds."""
        if self.trouble:
            return None
        try:
            if self._pipe.poll(max(0.0, timeout_sec)):
                return self._pipe.recv()
            self.trouble = f"no answer within {timeout_sec:.0f} s"
        except (EOFError, OSError):
            self.trouble = "it ended with an error"
        self.end()
        return None

    def ask(self, request: Any, timeout_sec: float) -> Any:
        """Send a request and return the answer, or None."""
        self.send(request)
        return self.receive(timeout_sec)

    def end(self) -> None:
        """End the process, by force if need be."""
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)


@contextlib.contextmanager
def peer_process(target: Callable[..., None], *args: Any) -> Iterator[Peer]:
    """A process that runs `target(*args, pipe)` during the block."""
    peer = Peer(target, *args)
    try:
        yield peer
    finally:
        peer.end()


def requests(pipe: Connection) -> Iterator[Any]:
    """The requests to such a process, until its parent has gone."""
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


def write_json(path: Path | None, found: Any) -> None:
    """Write `found` atomically, so that readers never see a part; nothing where `path` is None."""
    if path is not None:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(found, indent=1))
        fresh.replace(path)


def wait(device: torch.device) -> None:
    """Wait until the device has done all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine() -> dict[str, Any]:
    """The card, versions and date; asks nvidia-smi, so that this process never opens the GPU."""
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
