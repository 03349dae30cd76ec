"""`gansweep rm` and `gansweep sync`: delete a sweep's files, send MLflow what it has not got yet.

Never touched: MLflow's runs, registered models, a study in a database, files that no sweep has written.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import SWEEP_HEAD, SweepPaths
from pipeline.errors import RegistryError
from pipeline.storage.addresses import absolute_sqlite
from pipeline.storage.files import read_json, size_of
from pipeline.storage.lock import sweep_lock
from pipeline.storage.summary_file import no_sweep
from pipeline.sweep.manifest import read_existing
from pipeline.tracking.cursor import unexported
from pipeline.tracking.event_log import EventLog, has_finished
from pipeline.tracking.mlflow_exporter import start_exporter
from pipeline.tracking.moved_store import check_store_remains, without_gaps
from pipeline.tracking.tracking_uri import check_server

log = logging.getLogger(__name__)

_TRIAL_DIRS = ("trials", "finals")
_RESULT_OF_TRIAL = re.compile(r"best-.*\.pt|records\.jsonl|failures\.jsonl")
_DISPENSABLE = ("ray", "reruns", "stop")
_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}-.*")
_FLUSH_SEC = 30.0


@dataclass(frozen=True)
class Removal:
    """What `remove_sweep` would delete or has deleted.

    unfinished: trials that were running; they begin anew if the sweep is resumed. other_files: names in the
    folder that gansweep did not write; they stay.
    """

    paths: tuple[Path, ...]
    bytes: int
    trials: int
    unfinished: int
    other_files: tuple[str, ...]


def check_sweep_dir(root: Path) -> SweepPaths:
    """The paths of the sweep in `root`; SweepError where there is none."""
    paths = SweepPaths(root.resolve())
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if paths.config.read_text(encoding="utf-8").startswith(SWEEP_HEAD):
            return paths
    raise no_sweep(root, "sweep.toml")


def plan_removal(root: Path, *, keep_best: bool) -> Removal:
    """What `remove_sweep` would delete; SweepError where there is no sweep."""
    paths = check_sweep_dir(root)
    written = {path.name: path for path in paths.root.iterdir() if _is_sweep_file(paths, path.name)}
    doomed = list(_dispensable(paths, written.values())) if keep_best else list(written.values())
    doomed.sort(key=lambda path: path == paths.config)  # last: without it the rest would be no sweep
    other = [] if keep_best else sorted({path.name for path in paths.root.iterdir()} - written.keys())
    trials = read_json(paths.summary).get("trials")
    counts = {s: n for s, n in trials.items() if isinstance(n, int)} if isinstance(trials, dict) else {}
    size = sum(map(size_of, doomed))
    return Removal(tuple(doomed), size, sum(counts.values()), counts.get("running", 0), tuple(other))


def remove_sweep(root: Path, *, keep_best: bool) -> Removal:
    """Delete a sweep; with `keep_best` only checkpoints, sample grids and reruns.

    `keep_best` keeps summary, report, study and event log, the packed champion, and of every trial its
    records and best generator: the sweep can still be reported, sampled from, registered and resumed.

    Raises:
        SweepError: there is no sweep in the folder, or a process works on it.
    """
    paths = check_sweep_dir(root)
    with sweep_lock(paths):
        removal = plan_removal(paths.root, keep_best=keep_best)
        for path in removal.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if not keep_best and not removal.other_files:
        paths.root.rmdir()
    return removal


def sync_mlflow(root: Path, tracking_uri: str = "") -> Counter[str]:
    """Send to MLflow what it has not got yet of a sweep's event log; returns the number of events by kind.

    What was sent before is not sent again; a record that arrives twice changes nothing.

    Raises:
        SweepError: no sweep, or a running one, which sends by itself.
        RegistryError: the tracking server does not answer, or stopped answering.
    """
    paths = check_sweep_dir(root)
    manifest = read_existing(root, paths)
    uri = absolute_sqlite(tracking_uri) or without_gaps(manifest.registry.tracking_uri)
    check_store_remains(paths, uri, f"gansweep sync {shlex.quote(str(root))}")
    with sweep_lock(paths), contextlib.closing(EventLog(paths.event_log)) as event_log:
        waiting = unexported(paths.root, event_log, uri)
        check_server(uri)
        tables = manifest.facts.tables()
        exporter = start_exporter(paths, manifest.config, event_log, uri, tables, manifest.space.hash)
        while not exporter.flush(_FLUSH_SEC) and not exporter.status.error:
            log.info(f"MLflow is {exporter.status}")
        status = exporter.status
        exporter.close(0.0)
    if status.behind:
        raise RegistryError(
            "the tracking server stopped answering before it had everything",
            seen=str(status),
            fix="run sync again",
        )
    if status.refused:
        log.warning(f"MLflow refuses {status.refused} events, and will refuse them again")
    if not has_finished(paths.event_log):
        log.warning(f"the sweep has not finished: gansweep resume {shlex.quote(str(root))} goes on with it")
    return waiting


def _is_sweep_file(paths: SweepPaths, name: str) -> bool:
    """Whether gansweep writes a file or folder of this name into a sweep's folder."""
    properties = [key for key, value in vars(SweepPaths).items() if isinstance(value, property)]
    names = {getattr(paths, key).name for key in properties}
    names |= {*_TRIAL_DIRS, *_DISPENSABLE, f"{paths.study.name}.lock"}
    return name in names or _TEMPORARY.fullmatch(name) is not None


def _dispensable(paths: SweepPaths, written: Iterable[Path]) -> Iterator[Path]:
    """What `keep_best` deletes: everything that is not a result."""
    yield from (path for path in written if path.name in _DISPENSABLE or _TEMPORARY.fullmatch(path.name))
    for folder in _TRIAL_DIRS:
        for path in sorted((paths.root / folder).glob("*/*")):
            if not _RESULT_OF_TRIAL.fullmatch(path.name):
                yield path
