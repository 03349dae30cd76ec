"""The files of one trial: their names, and how they are written and read.

`TRIAL_FILES` lists them.

A checkpoint is written under a temporary name and renamed, and has the first 16 hex digits of its SHA-256 in
its name: a truncated or altered one is recognised, reported and ignored. Checkpoints are loaded with
`weights_only`, so a file from elsewhere can hold wrong numbers but cannot run code.

A full disk stops no trial: its writes pause, and what was left out is written when there is space again.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.config import TrialConfig
from pipeline.data.pictures import image_sheet, save_drawing
from pipeline.errors import CheckpointError
from pipeline.records import TrialRecord
from pipeline.storage.files import DiskSpace, append_bytes, write_bytes
from pipeline.training.events import EventKind, OnEvent, TrialEvent, log_event
from pipeline.training.networks.blocks import Generator, ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.states import BestState, TrialState

FORMAT = 1
_FILE_NAME = re.compile(r"(state|best)-(\d{9})-([0-9a-f]{16})\.pt")

TRIAL_FILES: Mapping[str, str] = {
    "records.jsonl": "a JSON object for each tick, oldest first",
    "best-KIMG-SHA.pt": "the best generator so far: weights of its average, shape, configuration",
    "state-KIMG-SHA.pt": "the last two checkpoints, for a resume; deleted when the trial has ended",
    "samples/KIMG.png": "a sheet of generated images for each tick; none where it has diverged",
    "failures.jsonl": "a JSON object for each failure: index, kind, text, kimg",
}
"""The meaning of every file of a trial. KIMG: digits; SHA: the first 16 hex digits of the file's SHA-256."""

FAILURE_KINDS = (
    *("exception", EventKind.OUT_OF_MEMORY.value, "worker killed", "hang"),
    *(EventKind.DISK_FULL.value, EventKind.STORE_AWAY.value, EventKind.DAMAGED_CHECKPOINT.value),
)
"""Kinds of failures of a trial; none of them ends a sweep, and the last three do not end the trial."""


@dataclass(frozen=True)
class Failure:
    """One failure of a trial; ValueError where `kind` is not one of `FAILURE_KINDS`.

    index: counts the failures of the trial. text: one line for people. kimg: of the last record before it.
    """

    index: int
    kind: str
    text: str
    kimg: int

    def __post_init__(self) -> None:
        if self.kind not in FAILURE_KINDS:
            raise ValueError(f"unknown kind of failure: {self.kind}")

    def __str__(self) -> str:
        return f"{self.kind} after {self.kimg} kimg: {self.text}"


class TrialFolder:
    """The folder of one trial.

    on_event: receives an event for each checkpoint that is damaged, and when the disk becomes full or has
    space again.
    """

    def __init__(self, root: Path, on_event: OnEvent = log_event) -> None:
        self.root = root
        self._on_event = on_event
        self._space = DiskSpace("nothing is saved, training goes on", self._on_disk_change)
        self._best: tuple[Path, bytes] | None = None  # not written yet
        self._unwritten_rows = ""
        (root / "samples").mkdir(parents=True, exist_ok=True)

    def save(self, kimg: int, state: Mapping[str, object]) -> None:
        """Write a checkpoint and keep the one before it; delete all others.

        Others of the same kimg, or of a later one, are damaged: a resumed trial could not use them.
        """
        path, data = self._serialize("state", kimg, state)
        with self._space.tolerate_full():
            self._write_best()
            write_bytes(path, data)
            older = [other for other in self._newest_first("state") if other.name < f"state-{kimg:09d}"]
            for other in self._newest_first("state"):
                if other not in (path, *older[:1]):
                    other.unlink(missing_ok=True)

    def restore(self) -> TrialState | None:
        """The state in the newest undamaged checkpoint, or None where there is none."""
        for path in self._newest_first("state"):
            try:
                return cast(TrialState, read_checked(path))
            except CheckpointError as error:
                text = f"{error}; the checkpoint before it is used"
                self._on_event(TrialEvent(EventKind.DAMAGED_CHECKPOINT, text))
        return None

    def save_best(self, kimg: int, state: Mapping[str, object]) -> None:
        """Write the best generator so far, and delete the one before."""
        self._best = self._serialize("best", kimg, state)
        with self._space.tolerate_full(small=True):
            self._write_best()

    def flush(self) -> None:
        """Write what a full disk has delayed, if there is space now."""
        with self._space.tolerate_full(small=True):
            self._write_best()
            self._write_rows()

    def complete(self, records: list[TrialRecord]) -> None:
        """Write all records of a finished trial, where a full disk kept its worker from writing them."""
        if len(self.records()) < len(records):
            with self._space.tolerate_full(small=True):
                self.rewrite(records)

    def drop_states(self) -> None:
        """Delete the checkpoints of a finished trial; records and best generator stay."""
        for path in self._newest_first("state"):
            path.unlink(missing_ok=True)

    def append(self, record: TrialRecord) -> None:
        """Add one row to records.jsonl."""
        self._unwritten_rows += record.to_json() + "\n"
        with self._space.tolerate_full(small=True):
            self._write_rows()

    def rewrite(self, records: Iterable[TrialRecord]) -> None:
        """Replace records.jsonl atomically."""
        text = "".join(record.to_json() + "\n" for record in records)
        write_bytes(self.root / "records.jsonl", text.encode())

    def records(self) -> list[TrialRecord]:
        """The rows of records.jsonl; a last line torn by a crash is left out."""
        return read_records(self.root)

    def save_grid(self, kimg: int, images: Tensor, columns: int = 10) -> None:
        """Write uint8 images (N,H,W,C) as one PNG, `columns` to a row."""
        buffer = io.BytesIO()
        save_drawing(image_sheet(images.cpu().numpy(), columns), buffer)
        with self._space.tolerate_full(small=True):
            write_bytes(grid_path(self.root, kimg), buffer.getvalue())

    def _on_disk_change(self, full: bool, text: str) -> None:
        self._on_event(TrialEvent(EventKind.DISK_FULL if full else EventKind.DISK_HAS_SPACE, text))

    def _serialize(self, kind: str, kimg: int, state: Mapping[str, object]) -> tuple[Path, bytes]:
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        data = buffer.getvalue()
        return self.root / f"{kind}-{kimg:09d}-{hashlib.sha256(data).hexdigest()[:16]}.pt", data

    def _write_best(self) -> None:
        if self._best is None:
            return
        path, data = self._best
        write_bytes(path, data)
        self._best = None
        for other in self._newest_first("best"):
            if other != path:
                other.unlink(missing_ok=True)

    def _write_rows(self) -> None:
        if self._unwritten_rows:
            append_bytes(self.root / "records.jsonl", self._unwritten_rows.encode())
            self._unwritten_rows = ""

    def _newest_first(self, kind: str) -> list[Path]:
        return sorted(
            (p for p in self.root.glob(f"{kind}-*.pt") if _FILE_NAME.fullmatch(p.name)), reverse=True
        )


def load_best(root: Path) -> BestState:
    """The best generator of the trial in `root`; CheckpointError where there is none, or it is damaged."""
    problems = []
    for path in sorted(root.glob("best-*.pt"), reverse=True):
        try:
            return cast(BestState, read_checked(path))
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("; ".join(problems) or f"trial {root.name} has no best generator yet")


def best_generator(root: Path) -> tuple[Generator, BestState]:
    """The best generator of the trial in `root`, in eval mode on the CPU, and the result of `load_best`."""
    best = load_best(root)
    generator, _ = build_networks(TrialConfig.from_dict(best["config"]), ImageShape(**best["shape"]))
    generator.load_state_dict(best["ema"])
    return generator.eval().requires_grad_(False), best


def read_checked(path: Path) -> Mapping[str, object]:
    """Load a checkpoint onto the CPU after comparing its bytes with the hash in its name.

    CheckpointError where the file is truncated, altered, unreadable or of another format.
    """
    match = _FILE_NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    if match is None or hashlib.sha256(data).hexdigest()[:16] != match[3]:
        raise CheckpointError(f"{path.name} is damaged: its bytes do not match its name")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for a file in another format
        raise CheckpointError(f"{path.name} is not a checkpoint: {type(error).__name__}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} was written by another version of gansweep")
    return state


def checkpoint_sizes(config: TrialConfig, shape: ImageShape) -> tuple[int, int]:
    """Approximate bytes of a checkpoint and of a best generator; builds the networks.

    Not on the meta device, for which torch imports hundreds of modules: a second before each sweep.
    """
    with torch.random.fork_rng(devices=[]):
        pair = build_networks(config, shape)
    g, d = (sum(t.numel() * t.element_size() for t in net.state_dict().values()) for net in pair)
    return 4 * g + 3 * d, g  # G and its average, D, and two Adam moments of each


def append_failure(root: Path, failure: Failure) -> None:
    """Add one line to failures.jsonl; where that is impossible (a full disk) the line is left out."""
    with suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        append_bytes(root / "failures.jsonl", (json.dumps(asdict(failure)) + "\n").encode())


def read_failures(root: Path) -> list[Failure]:
    """The failures of the trial in `root`, oldest first; incomplete lines are left out."""
    failures = []
    for row in _rows(root / "failures.jsonl"):
        with suppress(ValueError, TypeError):
            failures.append(Failure(**row))
    return failures


def read_records(root: Path) -> list[TrialRecord]:
    """The records of the trial in `root`, oldest first; incomplete lines are left out."""
    records = []
    for row in _rows(root / "records.jsonl"):
        with suppress(ValueError):
            if isinstance(row.get("kimg"), int) and isinstance(row.get("verdict"), str):
                records.append(TrialRecord.from_dict(row))
    return records


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def grid_path(root: Path, kimg: int) -> Path:
    """The path of the sample grid of a tick."""
    return root / "samples" / f"{kimg:06d}.png"
