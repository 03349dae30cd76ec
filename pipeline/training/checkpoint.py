"""Every byte that a trial leaves on disk, and every file name.

Owns: `TrialFolder`: `records.jsonl`, two checkpoints `state-<kimg>-<sha>.pt`, the best generator
`best-<kimg>-<sha>.pt`, sample grids `samples/<kimg>.png`; `failures.jsonl`. Refuses: deciding when.

A file is written under a temporary name and renamed, and carries the start of its own SHA-256 in its
name: a truncated or altered one is recognised, named and left out. Loaded with weights_only, so a file
from elsewhere can hold wrong numbers but run nothing.

A full disk stops no trial: its saves pause, and what they left out is written when there is space again.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pipeline.config import TrialConfig
from pipeline.errors import CheckpointError
from pipeline.records import TrialRecord
from pipeline.storage.files import DiskSpace, append_bytes, write_bytes
from pipeline.training.events import EventKind, OnEvent, TrialEvent, log_event
from pipeline.training.networks.blocks import Generator, ImageShape
from pipeline.training.networks.build import build_networks

FORMAT = 1
_KEPT = 2
_NAME = re.compile(r"(state|best)-(\d{9})-([0-9a-f]{16})\.pt")


FAILURES = (
    *("exception", EventKind.OUT_OF_MEMORY.value, "worker killed", "hang"),
    *(EventKind.DISK_FULL.value, EventKind.STORE_AWAY.value, EventKind.DAMAGED_CHECKPOINT.value),
)
"""Kinds of what may go wrong with a trial; none of them ends a sweep, and the last three end no trial."""


@dataclass(frozen=True)
class Failure:
    """One thing that went wrong with a trial. index: counts them. kimg: of the last record before.

    Raises:
        ValueError: the kind is none of `FAILURES`.
    """

    index: int
    kind: str
    text: str
    kimg: int

    def __post_init__(self) -> None:
        if self.kind not in FAILURES:
            raise ValueError(f"no kind of failure: {self.kind}")

    def __str__(self) -> str:
        return f"{self.kind} after {self.kimg} kimg: {self.text}"


class TrialFolder:
    """The folder of one trial; `on_event` hears of damaged files that are left out, and of a full disk.

    `damaged` names those files.
    """

    def __init__(self, root: Path, on_event: OnEvent = log_event) -> None:
        self.root = root
        self.damaged: list[str] = []
        self._on_event = on_event
        self._space = DiskSpace("nothing is saved, training goes on", self._disk_changed)
        self._best: tuple[Path, bytes] | None = None  # waits for space
        self._unwritten = ""  # rows that wait as well
        (root / "samples").mkdir(parents=True, exist_ok=True)

    def save(self, kimg: int, state: dict[str, Any]) -> None:
        """Write a checkpoint and keep the one before it; delete all others.

        Another one of the same kimg or of a later one is what a resumed trial could not use.
        """
        kept, data = self._pack("state", kimg, state)
        with self._space.awaited():
            self._write_best()
            write_bytes(kept, data)
            older = [path for path in self._newest("state") if path.name < f"state-{kimg:09d}"]
            for path in self._newest("state"):
                if path != kept and path not in older[: _KEPT - 1]:
                    path.unlink(missing_ok=True)

    def restore(self) -> dict[str, Any] | None:
        """The state of the newest whole checkpoint, or None where there is none."""
        for path in self._newest("state"):
            try:
                return read_checked(path)
            except CheckpointError as error:
                self.damaged.append(str(error))
                text = f"{error}; the checkpoint before it is used"
                self._on_event(TrialEvent(EventKind.DAMAGED_CHECKPOINT, text))
        return None

    def save_best(self, kimg: int, state: dict[str, Any]) -> None:
        """Write the best generator so far in place of the one before."""
        self._best = self._pack("best", kimg, state)
        with self._space.awaited(small=True):
            self._write_best()

    def flush(self) -> None:
        """Write what waits for space, if there is any by now."""
        with self._space.awaited(small=True):
            self._write_best()
            self._write_rows()

    def complete(self, records: list[TrialRecord]) -> None:
        """Write all records of a trial that is over where a full disk kept its worker from it."""
        if len(self.records()) < len(records):
            with self._space.awaited(small=True):
                self.rewrite(records)

    def drop_states(self) -> None:
        """Delete the checkpoints of a trial that is over; records and best generator stay."""
        for path in self._newest("state"):
            path.unlink(missing_ok=True)

    def append(self, record: TrialRecord) -> None:
        """Add one row to records.jsonl."""
        self._unwritten += record.to_json() + "\n"
        with self._space.awaited(small=True):
            self._write_rows()

    def rewrite(self, records: Iterable[TrialRecord]) -> None:
        """Replace records.jsonl, atomically."""
        text = "".join(record.to_json() + "\n" for record in records)
        write_bytes(self.root / "records.jsonl", text.encode())

    def records(self) -> list[TrialRecord]:
        """The rows of records.jsonl; a last line torn by a crash is left out."""
        return read_records(self.root)

    def save_grid(self, kimg: int, images: Tensor, columns: int = 10) -> Path:
        """Write uint8 images (N,H,W,C) as one PNG, `columns` to a row."""
        path = grid_path(self.root, kimg)
        buffer = io.BytesIO()
        grid_image(images.cpu().numpy(), columns).save(buffer, format="PNG")
        with self._space.awaited(small=True):
            write_bytes(path, buffer.getvalue())
        return path

    def _disk_changed(self, full: bool, text: str) -> None:
        self._on_event(TrialEvent(EventKind.DISK_FULL if full else EventKind.DISK_HAS_SPACE, text))

    def _pack(self, kind: str, kimg: int, state: dict[str, Any]) -> tuple[Path, bytes]:
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        data = buffer.getvalue()
        return self.root / f"{kind}-{kimg:09d}-{hashlib.sha256(data).hexdigest()[:16]}.pt", data

    def _write_best(self) -> None:
        if self._best is None:
            return
        kept, data = self._best
        write_bytes(kept, data)
        self._best = None
        for path in self._newest("best"):
            if path != kept:
                path.unlink(missing_ok=True)

    def _write_rows(self) -> None:
        if self._unwritten:
            append_bytes(self.root / "records.jsonl", self._unwritten.encode())
            self._unwritten = ""

    def _newest(self, kind: str) -> list[Path]:
        return sorted((p for p in self.root.glob(f"{kind}-*.pt") if _NAME.fullmatch(p.name)), reverse=True)


def load_best(root: Path) -> dict[str, Any]:
    """The best generator of the trial in `root`: keys config, shape, kimg, record, ema.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    found = sorted(root.glob("best-*.pt"), reverse=True)
    problems = []
    for path in found:
        try:
            return read_checked(path)
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("; ".join(problems) or f"trial {root.name} has no best generator yet")


def best_generator(root: Path) -> tuple[Generator, dict[str, Any]]:
    """The best generator of the trial in `root`, ready to draw on the CPU, and what `load_best` gives.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    best = load_best(root)
    generator, _ = build_networks(TrialConfig.from_dict(best["config"]), ImageShape(**best["shape"]))
    generator.load_state_dict(best["ema"])
    return generator.eval().requires_grad_(False), best


def read_checked(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU after comparing its bytes with the hash in its name.

    Raises:
        CheckpointError: the file is truncated, altered, unreadable or of another format.
    """
    match = _NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    if match is None or hashlib.sha256(data).hexdigest()[:16] != match[3]:
        raise CheckpointError(f"{path.name} is damaged: its bytes do not match its name")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file that is not one of its own
        raise CheckpointError(f"{path.name} is no checkpoint: {type(error).__name__}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} was written by another version of gansweep")
    return state


def sizes(config: TrialConfig, shape: ImageShape) -> tuple[int, int]:
    """Bytes of a checkpoint and of a best generator, about; builds nothing real."""
    with torch.device("meta"):
        pair = build_networks(config, shape)
    g, d = (sum(t.numel() * t.element_size() for t in net.state_dict().values()) for net in pair)
    return 4 * g + 3 * d, g  # G and its average, D, and two moments of each


def append_failure(root: Path, failure: Failure) -> None:
    """Add one line to failures.jsonl; where the disk is full the line is left out."""
    with suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        append_bytes(root / "failures.jsonl", (json.dumps(asdict(failure)) + "\n").encode())


def read_failures(root: Path) -> list[Failure]:
    """What went wrong with the trial in `root`, oldest first; lines that are not whole are left out."""
    failures = []
    with suppress(OSError):
        for line in (root / "failures.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError, RecursionError):
                failures.append(Failure(**json.loads(line)))
    return failures


def read_records(root: Path) -> list[TrialRecord]:
    """The records of the trial in `root`, oldest first; lines that are not whole are left out."""
    path = root / "records.jsonl"
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if isinstance(row.get("kimg"), int) and isinstance(row.get("verdict"), str):
                records.append(TrialRecord.from_dict(row))
        except (ValueError, AttributeError, RecursionError):
            continue
    return records


def grid_path(root: Path, kimg: int) -> Path:
    """Where the sample grid of a tick lies."""
    return root / "samples" / f"{kimg:06d}.png"


def grid_image(images: npt.NDArray[np.uint8], columns: int) -> Image.Image:
    """uint8 (N,H,W,C) -> one picture, row by row; missing cells are black."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
    canvas[:count] = images
    sheet = canvas.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    array = sheet.reshape(rows * height, columns * width, channels)
    return Image.fromarray(array[:, :, 0] if channels == 1 else array)
