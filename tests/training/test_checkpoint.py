"""Files of a trial: damaged and forged checkpoints, incomplete records, retention, sample grids."""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import record
from PIL import Image

from pipeline.config import TrialConfig
from pipeline.errors import CheckpointError
from pipeline.records import TrialRecord
from pipeline.training import checkpoint
from pipeline.training.checkpoint import TrialFolder, load_best, read_checked
from pipeline.training.events import TrialEvent
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.trainer import Trainer


@pytest.fixture
def events() -> list[TrialEvent]:
    return []


@pytest.fixture
def folder(tmp_path: Path, events: list[TrialEvent]) -> TrialFolder:
    return TrialFolder(tmp_path / "7", events.append)


def state(kimg: int) -> dict[str, Any]:
    return {"kimg": kimg, "weights": {"w": torch.arange(50.0) + kimg}, "fid": None, "words": ["a", kimg / 3]}


def names(folder: TrialFolder) -> list[str]:
    return sorted(str(p.relative_to(folder.root)) for p in folder.root.rglob("*") if p.is_file())


def states(folder: TrialFolder) -> list[int]:
    return [int(name.split("-")[1]) for name in names(folder) if name.startswith("state-")]


def newest(folder: TrialFolder) -> Path:
    return max(folder.root.glob("state-*.pt"))


def test_restore_returns_what_was_saved(folder: TrialFolder, events: list[TrialEvent]) -> None:
    assert folder.restore() is None
    folder.save(3, state(3))
    back = TrialFolder(folder.root).restore()
    assert back is not None
    assert torch.equal(back["weights"]["w"], state(3)["weights"]["w"])
    assert (back["kimg"], back["fid"], back["words"]) == (3, None, ["a", 1.0])
    assert events == []


def test_two_checkpoints_and_one_best_generator_are_kept(folder: TrialFolder) -> None:
    for kimg in (5, 10, 100, 1000):  # by number, not by text
        folder.save(kimg, state(kimg))
        folder.save_best(kimg, state(kimg))
    assert states(folder) == [100, 1000]
    assert len(list(folder.root.glob("best-*"))) == 1
    assert load_best(folder.root)["kimg"] == 1000
    assert folder.restore()["kimg"] == 1000
    folder.drop_states()
    assert states(folder) == []
    assert load_best(folder.root)["kimg"] == 1000


def test_no_temporary_file_is_left(folder: TrialFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save(1, state(1))
    folder.save_best(1, state(1))
    folder.append(record(1))
    folder.rewrite([record(1)])
    folder.save_grid(1, torch.zeros(3, 4, 4, 1, dtype=torch.uint8))
    before = names(folder)
    assert not [name for name in before if "tmp" in name]

    def full(source: Any, target: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", full)
    for write in (lambda: folder.save(2, state(2)), lambda: folder.rewrite([])):
        with pytest.raises(OSError, match="Input/output"):
            write()
    assert names(folder) == before
    assert folder.restore()["kimg"] == 1
    assert folder.records() == [record(1)]


@pytest.mark.parametrize("seed", range(20))
def test_an_altered_bit_is_detected(folder: TrialFolder, events: list[TrialEvent], seed: int) -> None:
    folder.save(1, state(1))
    folder.save(2, state(2))
    path, rng = newest(folder), random.Random(seed)
    data = bytearray(path.read_bytes())
    position = rng.randrange(len(data))
    data[position] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    assert folder.restore()["kimg"] == 1
    assert len(events) == 1
    assert path.name in events[0].text
    assert "\n" not in events[0].text


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.7, 0.99, 2.0])
def test_a_truncated_or_lengthened_file_is_detected(
    folder: TrialFolder, events: list[TrialEvent], fraction: float
) -> None:
    folder.save(1, state(1))
    folder.save(2, state(2))
    path = newest(folder)
    data = path.read_bytes()
    path.write_bytes((data + data)[: int(fraction * len(data))])
    assert folder.restore()["kimg"] == 1
    assert path.name in events[0].text


def test_nothing_is_restored_if_both_checkpoints_are_damaged(
    folder: TrialFolder, events: list[TrialEvent]
) -> None:
    for kimg in (1, 2):
        folder.save(kimg, state(kimg))
    for path in folder.root.glob("state-*.pt"):
        path.write_bytes(b"")
    assert folder.restore() is None
    assert len(events) == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_checkpoint_does_not_displace_an_undamaged_one(folder: TrialFolder, seed: int) -> None:
    """After the tick is repeated there are two undamaged checkpoints, whichever hash sorts first."""
    folder.save(1, state(1))
    folder.save(2, state(2))
    newest(folder).write_bytes(b"torn")
    assert folder.restore()["kimg"] == 1
    folder.save(2, {**state(2), "seconds": seed})  # another hash, because times differ
    assert states(folder) == [1, 2]
    newest(folder).write_bytes(b"torn again")
    again = TrialFolder(folder.root)
    assert again.restore()["kimg"] == 1


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["plain pickle", "torch.save", "other format", "not a dict"])
def test_a_forged_checkpoint_is_refused_and_runs_no_code(
    folder: TrialFolder, tmp_path: Path, kind: str
) -> None:
    """Its name matches its bytes, as anyone can arrange; its content must still not run."""
    folder.save(1, state(1))
    buffer = io.BytesIO()
    trap = tmp_path / "trap"
    if kind == "plain pickle":
        pickle.dump({"format": 1, "kimg": 9, "evil": Evil(trap)}, buffer)
    elif kind == "torch.save":
        torch.save({"format": 1, "kimg": 9, "evil": Evil(trap)}, buffer)
    else:
        torch.save({"format": 999, "kimg": 9} if kind == "other format" else [1, 2], buffer)
    data = buffer.getvalue()
    for prefix in ("state", "best"):
        path = folder.root / f"{prefix}-000000009-{hashlib.sha256(data).hexdigest()[:16]}.pt"
        path.write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            read_checked(path)
        assert path.name in str(caught.value)
    assert folder.restore()["kimg"] == 1
    with pytest.raises(CheckpointError, match="best-000000009"):
        load_best(folder.root)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["state-1-0.pt", "state-000000001-zzzzzzzzzzzzzzzz.pt", "best-copy.pt"])
def test_files_with_other_names_are_ignored(folder: TrialFolder, events: list[TrialEvent], name: str) -> None:
    folder.save(1, state(1))
    (folder.root / name).write_bytes(newest(folder).read_bytes())
    assert folder.restore()["kimg"] == 1
    assert events == []
    with pytest.raises(CheckpointError, match=name):
        read_checked(folder.root / name)


def test_missing_files_are_named(folder: TrialFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="trial 7 has no best generator"):
        load_best(folder.root)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checked(tmp_path / f"state-000000001-{'0' * 16}.pt")


def test_the_best_generator_gives_the_images_of_the_average(folder: TrialFolder, tiny: Any) -> None:
    config, shape = tiny(conditional=True), ImageShape(8, 1, 3)
    generator, _ = build_networks(config, shape)
    generator(torch.randn(16, 8), torch.arange(16) % 3)  # changes the running statistics
    saved = {"config": config.to_dict(), "shape": vars(shape), "kimg": 4, "record": record(4).to_dict()}
    folder.save_best(4, {**saved, "ema": generator.state_dict()})
    back, best = checkpoint.best_generator(folder.root)
    z, labels = torch.randn(5, 8), torch.arange(5) % 3
    assert torch.equal(back(z, labels), generator.eval()(z, labels))
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())
    assert TrialRecord.from_dict(best["record"]) == record(4)


# ---- Records


def test_records_are_read_as_they_were_written(folder: TrialFolder) -> None:
    assert folder.records() == []
    rows = [record(1), record(2, fid=None, best_fid=None, best_kimg=None), record(3, auc=0.1 + 0.2)]
    for row in rows:
        folder.append(row)
    assert folder.records() == rows
    folder.rewrite(rows[:1])
    assert folder.records() == rows[:1]


def test_a_number_that_is_not_finite_is_read_as_nan(folder: TrialFolder) -> None:
    folder.append(record(1, loss_d=math.nan, loss_g=math.inf))
    assert "NaN" not in (folder.root / "records.jsonl").read_text()
    (row,) = folder.records()
    assert math.isnan(row.loss_d)
    assert math.isnan(row.loss_g)
    assert row.loss_d is not None


@pytest.mark.parametrize("cut", [1, 5, 50, 300])
def test_an_incomplete_line_is_left_out(folder: TrialFolder, cut: int) -> None:
    for kimg in (1, 2, 3):
        folder.append(record(kimg))
    path = folder.root / "records.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 1 - cut])
    assert folder.records() == [record(1), record(2)]


@pytest.mark.parametrize("junk", [b"\xff\xfe\x00", b"[1, 2]\n", b"null\n", b'"text"\n', b"\n\n", b"{]\n"])
def test_junk_among_the_records_is_left_out(folder: TrialFolder, junk: bytes) -> None:
    folder.append(record(1))
    path = folder.root / "records.jsonl"
    path.write_bytes(path.read_bytes() + junk + (b"" if junk.endswith(b"\n") else b"\n"))
    folder.append(record(2))
    assert folder.records() == [record(1), record(2)]


# ---- Grids


@pytest.mark.parametrize(("count", "channels", "columns"), [(50, 1, 10), (50, 3, 10), (7, 3, 3), (2, 1, 10)])
def test_grid(folder: TrialFolder, count: int, channels: int, columns: int) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 6, 6, channels), generator=rng, dtype=torch.uint8)
    folder.save_grid(12, images, columns)
    path = checkpoint.grid_path(folder.root, 12)
    assert path.name == "000012.png"
    with Image.open(path) as picture:
        rows = math.ceil(count / columns)
        assert picture.size == (columns * 6, rows * 6)
        assert picture.mode == ("L" if channels == 1 else "RGB")
        pixels = np.asarray(picture).reshape(rows, 6, columns, 6, channels)
    for i in range(rows * columns):
        cell = pixels[i // columns, :, i % columns]
        assert np.array_equal(cell, images[i].numpy() if i < count else np.zeros_like(cell))


def test_checkpoint_sizes_are_predicted(folder: TrialFolder) -> None:
    """To within a fifth."""
    config, shape = TrialConfig(width_g=24, width_d=24), ImageShape(16, 3)
    trainer = Trainer(config, torch.zeros(64, 16, 16, 3, dtype=torch.uint8), None, 0)
    trainer.advance(1)
    folder.save(1, {"trainer": trainer.state_dict()})
    folder.save_best(1, {"ema": trainer.ema.generator.state_dict()})
    state_bytes, best_bytes = checkpoint.checkpoint_sizes(config, shape)
    assert newest(folder).stat().st_size == pytest.approx(state_bytes, rel=0.2)
    assert next(folder.root.glob("best-*")).stat().st_size == pytest.approx(best_bytes, rel=0.2)


def test_complete_writes_missing_records(folder: TrialFolder) -> None:
    folder.append(record(1))
    folder.complete([record(1), record(2), record(3)])
    assert folder.records() == [record(1), record(2), record(3)]
    folder.complete([record(1)])
    assert len(folder.records()) == 3
