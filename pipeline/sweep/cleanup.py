"""What is kept of a sweep: its cleaning up, and what MLflow has still to hear of it.

Owns: which files in a sweep's folder are a sweep's. Refuses: touching MLflow's runs, registered models, a
study in a database, or a file that no sweep has written.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import RegistryError, SweepError
from pipeline.search.space.parser import space_from_tables
from pipeline.storage.files import read_json, size_of
from pipeline.storage.lock import sweep_lock
from pipeline.sweep.manifest import read_manifest
from pipeline.tracking.cursor import unexported
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.sweep_export import start_exporter
from pipeline.tracking.tracking_uri import check_server

log = logging.getLogger(__name__)

_TRIALS = ("trials", "finals")
_KEPT_OF_A_TRIAL = re.compile(r"best-.*\.pt|records\.jsonl|failures\.jsonl")
_SPARE = ("ray", "reruns", "stop")
_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}-.*")
_PATIENCE_SEC = 30.0


@dataclass(frozen=True)
class Removal:
    """What `remove` would delete or has deleted.

    paths: files and folders. strangers: what else lies in the folder, and stays.
    """

    paths: tuple[Path, ...]
    bytes: int
    trials: int
    unfinished: int
    strangers: tuple[str, ...]


def check_sweep_dir(root: Path) -> SweepPaths:
    """The paths of the sweep in `root`.

    Raises:
        SweepError: the folder is no sweep's.
    """
    paths = SweepPaths(root.resolve())
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if paths.config.read_text(encoding="utf-8").startswith("# Written by gansweep"):
            return paths
    rule, fix = "a sweep's folder holds a sweep.toml", "name the folder that `run` made"
    raise SweepError(rule, seen=str(root), fix=fix)


def plan_removal(root: Path, *, keep_best: bool) -> Removal:
    """What `remove` would delete, and how much that is.

    Raises:
        SweepError: the folder is no sweep's.
    """
    paths = check_sweep_dir(root)
    owned = {path.name: path for path in paths.root.iterdir() if _is_ours(paths, path.name)}
    doomed = list(_spare(paths, owned.values())) if keep_best else list(owned.values())
    strangers = [] if keep_best else sorted({path.name for path in paths.root.iterdir()} - owned.keys())
    trials = read_json(paths.summary).get("trials")
    counts = {s: n for s, n in trials.items() if isinstance(n, int)} if isinstance(trials, dict) else {}
    size = sum(map(size_of, doomed))
    return Removal(tuple(doomed), size, sum(counts.values()), counts.get("running", 0), tuple(strangers))


def remove_sweep(root: Path, *, keep_best: bool) -> Removal:
    """Delete a sweep; with `keep_best` only what nobody needs who keeps its result.

    Kept are then summary, report, study and spool, the packed champion, and of every trial its records and
    best generator: it can be reported, sampled from, registered, even resumed. Deleted are checkpoints,
    sample grids and reruns.

    Raises:
        SweepError: the folder is no sweep's, or a process works on it.
    """
    paths = check_sweep_dir(root)
    with sweep_lock(paths):
        removal = plan_removal(paths.root, keep_best=keep_best)
        for path in removal.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if not keep_best and not removal.strangers:
        paths.root.rmdir()
    return removal


def sync_mlflow(root: Path, tracking_uri: str = "") -> Counter[str]:
    """Send to MLflow what the spool of the sweep in `root` has still for it: events by kind.

    What was sent before is not sent again; a record that arrives twice changes nothing.

    Raises:
        SweepError: no sweep, or a running one, which does this by itself.
        RegistryError: the tracking store does not answer, or stopped answering.
    """
    paths = check_sweep_dir(root)
    stored = read_manifest(paths)
    assert stored is not None
    uri = tracking_uri or str(stored["registry"].get("tracking_uri", ""))
    if "***" in uri or not uri:
        seen = f"{uri or 'none'} in sweep.toml (passwords are written nowhere)"
        raise RegistryError("the tracking address is known", seen=seen, fix="give --tracking-uri")
    with sweep_lock(paths), contextlib.closing(EventLog(paths.spool)) as spool:
        waiting = unexported(paths.root, spool, uri)
        check_server(uri)
        facts = {str(t): stored[t] for t in ("data", "evaluator", "code") if t in stored}
        config = SweepConfig.from_dict(stored["sweep"])
        space = space_from_tables(stored["space"], "sweep.toml")
        shipper = start_exporter(paths, config, spool, uri, facts, space.hash)
        while not shipper.flush(_PATIENCE_SEC) and not shipper.status.error:
            log.info(f"MLflow is {shipper.status}")
        status = shipper.status
        shipper.close(0.0)
    if status.behind:
        raise RegistryError("the tracking server answers to the end", seen=str(status), fix="run sync again")
    return waiting


def _is_ours(paths: SweepPaths, name: str) -> bool:
    """Whether a file or folder of this name in a sweep's folder is one that gansweep writes there."""
    properties = [key for key, value in vars(SweepPaths).items() if isinstance(value, property)]
    ours = {getattr(paths, key).name for key in properties} | {*_TRIALS, *_SPARE, f"{paths.study.name}.lock"}
    return name in ours or _TEMPORARY.fullmatch(name) is not None


def _spare(paths: SweepPaths, owned: Iterable[Path]) -> Iterator[Path]:
    """What can go where the results stay."""
    yield from (path for path in owned if path.name in _SPARE or _TEMPORARY.fullmatch(path.name))
    for folder in _TRIALS:
        for path in sorted((paths.root / folder).glob("*/*")):
            if not _KEPT_OF_A_TRIAL.fullmatch(path.name):
                yield path
