"""Hostile files: spaces, arrays, images, weights, checkpoints, summaries and the sweep's other files.

Each begins as a good file and is cut, flipped, filled and spliced by hypothesis. Its reader may succeed or
raise a documented error; another exception, a hang, or executed code is a finding.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import signal
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from faults.result import Result
from faults.sweeps import COMMAND
from pipeline.config import SweepPaths, TrialConfig
from pipeline.data import dataset
from pipeline.data.options import DataOptions
from pipeline.errors import GansweepError
from pipeline.metrics import extractors
from pipeline.reporting import history
from pipeline.reporting.leaderboard import text_table
from pipeline.reporting.live.view import SweepSnapshot
from pipeline.search.space.builtin import builtin_spaces, load_space
from pipeline.storage.summary_file import read_summary
from pipeline.sweep.manifest import read_manifest
from pipeline.tracking.event_log import EventLog
from pipeline.training.checkpoint import TrialFolder, best_generator, read_failures, read_records
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks

HANG_SEC = 20
Reader = Callable[[Path], object]


_SWEEP = b"""# Written by gansweep
[sweep]
name = "s"
[data]
fingerprint = "f"
[evaluator]
hash = "h"
[registry]
name = "s"
[space.search]
lr_g = { float = [1e-4, 1e-2] }
"""


class _Canary:
    """Unpickled anywhere, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


def _bytes_of(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _checkpoint(folder: Path, content: bytes, kind: str) -> Path:
    """Write a file whose name holds the hash of its bytes, as an attacker who knows the format would."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.pt"):
        path.unlink()
    (folder / f"{kind}-000000001-{hashlib.sha256(content).hexdigest()[:16]}.pt").write_bytes(content)
    return folder


class Corpus:
    """Good files of every kind, and the reader of each; a pickle that is executed would leave `canary`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.canary = folder, folder / "code-ran"
        self.dataset = dataset.load_dataset("digits")
        self.digits = folder / "digits"
        self.digits.mkdir()
        for index, image in enumerate(self.dataset.train[:70]):
            Image.fromarray(image[..., 0]).save(self.digits / f"{index}.png")
        pickled = pickle.dumps(_Canary(self.canary))
        weights = _bytes_of(lambda b: torch.save({"format": 1, "w": torch.zeros(4)}, b))
        self.good: dict[str, list[bytes]] = {
            "space": [path.read_bytes() for path in sorted(builtin_spaces().values())],
            "npz": [
                _bytes_of(lambda b: np.savez(b, images=self.dataset.train[:80], labels=np.arange(80) % 3)),
                _bytes_of(lambda b: np.savez(b, images=np.array([_Canary(self.canary)], object))),
            ],
            "image": [_image(f) for f in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "PPM")],
            "weights": [weights, pickled, b"\x80\x02" + pickled],
            "checkpoint": [weights, pickled],
            "best": [_bytes_of(lambda b: torch.save(_best(), b)), pickled],
            "summary": [json.dumps(_summary()).encode()],
            "sweep.toml": [_SWEEP],
            "records": [b'{"trial": 0, "kimg": 1, "verdict": "healthy", "fid": 3.0}\n' * 3],
            "failures": [b'{"index": 0, "kind": "hang", "text": "t", "kimg": 1}\n' * 2],
            "spool": [b'{"event": "open", "id": "s-1"}\n{"event": "start", "trial": 0, "params": {"a": 1}}\n'
                      b'{"event": "record", "trial": 0, "record": {"kimg": 1}}\n{"event": "end", "trial": 0, '
                      b'"status": "KILLED"}\n'],
        }  # fmt: skip

    def restore(self) -> None:
        """Put good files into the folder of the sweep."""
        for kind in ("best", "records"):
            with contextlib.suppress(GansweepError):
                self.read(kind, self.good[kind][0])

    def read(self, kind: str, content: bytes) -> None:
        """Give a file of this kind to the reader that the command uses."""
        root = self.folder / "sweep"
        (root / "trials" / "0").mkdir(parents=True, exist_ok=True)
        file = self.folder / f"hostile.{'toml' if kind == 'space' else kind}"
        paths = SweepPaths(root)
        if kind == "space":
            file.write_bytes(content)
            load_space(str(file))
        elif kind == "npz":
            file.write_bytes(content)
            dataset.load_dataset(f"npz:{file}", cache=self.folder / "cache")
        elif kind == "image":
            (self.digits / "0.png").write_bytes(content)
            dataset.load_dataset(f"folder:{self.digits}", DataOptions(size=8), cache=self.folder / "cache")
        elif kind == "weights":
            file.write_bytes(content)
            extractors.build_extractor(
                "inception", self.dataset, weights=str(file), cache=self.folder / "cache"
            )
        elif kind == "checkpoint":
            TrialFolder(_checkpoint(self.folder / "trial", content, "state")).restore()
        elif kind == "best":
            best_generator(_checkpoint(paths.trial(0), content, "best"))
        else:
            self._read_sweep(kind, content, paths)

    def _read_sweep(self, kind: str, content: bytes, paths: SweepPaths) -> None:
        """Read one of the files that a sweep's folder holds."""
        trial = paths.trial(0)
        targets = {"summary": paths.summary, "sweep.toml": paths.config, "spool": paths.event_log}
        targets |= {"records": trial / "records.jsonl", "failures": trial / "failures.jsonl"}
        good = {name: files[0] for name, files in self.good.items() if name in targets}
        for name, target in targets.items():
            target.write_bytes(content if name == kind else good[name])
        if kind == "sweep.toml":
            read_manifest(paths)
        elif kind == "spool":
            EventLog(paths.event_log).close()
        elif kind == "summary":
            summary = read_summary(paths.summary)
            if summary:
                text_table(summary)
        else:
            read_records(trial)
            read_failures(trial)
        history.read_history(paths.root)
        console = Console(file=io.StringIO())
        snapshot = SweepSnapshot(paths, console)
        if snapshot.refresh():
            console.print(snapshot.render())


def _image(name: str) -> bytes:
    return _bytes_of(
        lambda b: Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(b, format=name)
    )


def _best() -> dict[str, object]:
    """The checkpoint of a trial's best generator, as small as possible."""
    config = TrialConfig(architecture="mlp", width_g=4, width_d=4, z_dim=2)
    generator, _ = build_networks(config, ImageShape(8, 1))
    state = {"config": config.to_dict(), "shape": vars(ImageShape(8, 1)), "ema": generator.state_dict()}
    return {"format": 1, "kimg": 10, "record": {}, **state}


def _summary() -> dict[str, object]:
    at = {"trial": 0, "fid": 3.0, "balance": 0.5, "kimg": 10, "params": {"lr_g": 1e-3}}
    row = {
        **at,
        "state": "complete",
        "auc": 0.6,
        "last_kimg": 10,
        "verdict": "healthy",
        "stability": 1.0,
        "cause": "",
    }
    final = {
        "best": {**at, "search_fid": 3.1},
        "measurement": {"fid_low": 2.0, "fid_high": 4.0, "n": 9, "verdicts": []},
    }
    return {
        "name": "s", "state": "finished", "wall_seconds": 1.0, "kimg_total": 10, "best": at,
        "trials": {"complete": 1, "pruned": 0, "failed": 0, "running": 0}, "running": [],
        "leaderboard": [row], "finalists": [final],
        "images_per_sec": 0.0, "time_budget_sec": 0.0, "trials_asked": 1, "registered": None, "reason": "",
    }  # fmt: skip


_WORDS = st.sampled_from(
    [b"", b"\0", b"\xff\xfe", b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b"true", b'""',
     b"9" * 400, b"[" * 3000, b'{"a":' * 500, b"\n", b"=", b"'", b"inf",
     b"nan", b"../../x", b"<script>", b"[bold]", b"\x1b[2J", b"0.5", b"1979-05-27"]
)  # fmt: skip
_HOW = ("cut", "insert", "replace", "flip", "double")
_EDIT = st.tuples(
    st.sampled_from(_HOW),
    st.floats(0, 1), st.floats(0, 0.3), st.one_of(_WORDS, st.binary(max_size=24)),
)  # fmt: skip


def _edited(content: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    for how, at, length, word in edits:
        begin = int(at * len(content))
        end = min(len(content), begin + 1 + int(length * len(content)))
        if how == "cut":
            content = content[:begin]
        elif how == "insert":
            content = content[:begin] + word + content[begin:]
        elif how == "replace":
            content = content[:begin] + word + content[end if length > 0.1 else begin + len(word) :]
        elif how == "flip" and content[begin : begin + 1]:
            content = content[:begin] + bytes([content[begin] ^ (1 << len(word) % 8)]) + content[begin + 1 :]
        elif len(content) < 1_000_000:
            content = content[:end] + content[begin:end] + content[end:]
    return content


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    """Raise TimeoutError inside after `seconds`."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"a hang: {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_process(folder: Path, times: int, rng: random.Random) -> Result:
    """Give `times` hostile files to the readers, in this process."""
    result, found, outcomes = Result("hostile files, in process"), Counter[str](), Counter[str]()
    corpus = Corpus(folder)
    warnings.simplefilter("ignore")  # torch, Pillow and zipfile warn about many of them

    @seed(rng.randrange(2**32))
    @settings(max_examples=times, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(sorted(corpus.good)), st.integers(0, 9), st.lists(_EDIT, min_size=1, max_size=5))
    def attack(kind: str, index: int, edits: list[tuple[str, float, float, bytes]]) -> None:
        content = _edited(corpus.good[kind][index % len(corpus.good[kind])], edits)
        result.injected += 1
        try:
            with _alarm(HANG_SEC):
                corpus.read(kind, content)
            outcomes["read"] += 1
        except GansweepError:
            outcomes["refused"] += 1
        except Exception as error:
            where = f"{kind}: {type(error).__name__}: {str(error)[:160]!r}"
            if where not in found:
                (Path(tempfile.gettempdir()) / f"hostile-{len(found)}.{kind}").write_bytes(content)
            found[where] += 1

    attack()
    result.broken += [f"{where} ({count} times)" for where, count in found.most_common(20)]
    result.expect(not corpus.canary.exists(), "code in a pickle was executed")
    result.notes += [f"{count} {word}" for word, count in outcomes.items()]
    return result


def through_the_command(folder: Path, times: int, rng: random.Random) -> Result:
    """Give `times` hostile files to the command: exit code 0 or 2, one line, nothing left behind."""
    result = Result("hostile files, through the command")
    corpus = Corpus(folder)
    environment = {**os.environ, "GANSWEEP_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    kinds = ("space", "npz", "image", "weights", "summary", "sweep.toml", "best")
    for index in range(times):
        kind = kinds[index % len(kinds)]
        words = (b"\0", b"NaN", b"[]", b"null", b"9" * 400, rng.randbytes(9))
        edits = [(rng.choice(_HOW), rng.random(), 0.3 * rng.random(), rng.choice(words)) for _ in range(3)]
        content = _edited(rng.choice(corpus.good[kind]), edits)
        corpus.restore()
        with contextlib.suppress(Exception):
            corpus.read(kind, content)  # writes it to its path
        out = folder / f"out{index}"
        begun = time.monotonic()
        try:
            done = subprocess.run(
                [*COMMAND, *_arguments(corpus, kind, out)],
                capture_output=True,
                text=True,
                timeout=120,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            result.broken.append(f"{kind}: a hang")
            continue
        result.injected += 1
        result.times.append(time.monotonic() - begun)
        lines = done.stderr.strip().splitlines()
        good = done.returncode == 0 or (done.returncode == 2 and lines and lines[-1].startswith("error: "))
        result.expect(bool(good), f"{kind}: exit {done.returncode}: {' / '.join(lines[-2:])[:300]}")
        result.expect("Traceback" not in done.stderr, f"{kind}: a traceback")
        result.expect(not out.exists(), f"{kind}: something was left behind")
    result.expect(not corpus.canary.exists(), "code in a pickle was executed")
    return result


def _arguments(corpus: Corpus, kind: str, out: Path) -> list[str]:
    file, sweep = corpus.folder / f"hostile.{kind}", str(corpus.folder / "sweep")
    dry = ["run", "--space", "smoke", "--dry-run", "--second-extractor", "none", "--out", str(out)]
    return {
        "space": ["validate", str(corpus.folder / "hostile.toml")],
        "npz": [*dry, "--data", f"npz:{file}", "--extractor", "pixels"],
        "image": [*dry, "--data", f"folder:{corpus.digits}", "--extractor", "pixels"],
        "weights": [*dry, "--data", "digits", "--extractor", "inception", "--extractor-weights", str(file)],
        "summary": ["watch", sweep, "--once"],
        "sweep.toml": ["sync", sweep],
        "best": ["sample", sweep, "-n", "4", "--out", str(out.with_suffix(".png"))],
    }[kind]
