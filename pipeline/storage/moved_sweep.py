"""The addresses in sweep.toml: written relative where they lie beside the sweep, found again where it moved.

Each of them has two places: as it lies from the sweep's folder now, and where it was when the sweep was last
run (`folder` in the table [registry] says where the sweep lay then).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shlex
import sqlite3
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.config import SweepConfig, SweepPaths, names_file
from pipeline.errors import DataError, EvaluatorError, SweepError
from pipeline.storage.addresses import Address, absolute_path, parse_source, parse_sqlite
from pipeline.storage.files import read_json

log = logging.getLogger(__name__)

_HUB = "hf:"
Tables = dict[str, Any]
"""The tables of sweep.toml."""


@dataclass(frozen=True)
class _Row:
    """One address in sweep.toml. store: whether gansweep writes there."""

    table: str
    key: str
    what: str
    parse: Callable[[str], Address | None]
    store: bool = False


def _parse_data(text: str) -> Address | None:
    """A name on the hub stays one, whatever lies in the current folder."""
    address = parse_source(text)
    name = address is not None and address.prefix == _HUB and not address.path.startswith(("/", "./", "../"))
    return None if name else address


def _exists(address: Address) -> bool:
    """Whether it is there; of `hf:PATH:CONFIG`, whether PATH is."""
    path = address.path
    return os.path.exists(path) or (address.prefix == _HUB and os.path.exists(path.rpartition(":")[0]))


def _parse_file(text: str) -> Address | None:
    return Address(text) if text else None


def _parse_classes(text: str) -> Address | None:
    """A file on this disk; one that lies among the images is named from there."""
    outside = os.path.isabs(text) or text.startswith("..")
    return Address(text) if names_file(text) and outside else None


_ROWS = (
    _Row("sweep", "data", "the images", _parse_data),
    _Row("data", "source", "", _parse_data),
    _Row("sweep", "classes", "the file of classes", _parse_classes),
    _Row("sweep", "extractor_weights", "the extractor's weights", _parse_file),
    _Row("registry", "tracking_uri", "the tracking store", parse_sqlite, store=True),
    _Row("registry", "storage", "the study's database", parse_sqlite, store=True),
)


def with_relative_addresses(tables: Mapping[str, Any], folder: Path) -> Tables:
    """The tables with what lies below the parent of the sweep's `folder` relative to that folder."""
    return _mapped(tables, lambda row, address: address.at(relative_path(address.path, folder)))


def read_sweep_toml(paths: SweepPaths) -> Tables:
    """The tables of sweep.toml with absolute addresses, as they are from where the sweep lies now.

    Raises:
        SweepError: it cannot be read, or is damaged.
    """
    tables = _load(paths.config)
    lay, root = _lay(tables), paths.root.resolve()

    def find(row: _Row, address: Address) -> Address:
        places = _places(row, address.path, root, lay)
        there = [place for place in places if _exists(address.at(place))]
        known = [place for place in there if len(there) > 1 and _knows(row, place, paths, tables)]
        found = (known or there or places)[0]
        if there and len(places) > 1 and row.what:
            _say(f"the sweep was moved; {row.what}: {found}")
        return address.at(found)

    return _mapped(tables, find)


def store_places(paths: SweepPaths, key: str) -> list[Path]:
    """Where the sqlite store under `key` in [registry] may lie; nowhere where it is of another kind."""
    tables = _load(paths.config)
    row = next(row for row in _ROWS if row.key == key)
    address = row.parse(tables.get(row.table, {}).get(key, ""))
    root = paths.root.resolve()
    return [Path(place) for place in _places(row, address.path, root, _lay(tables))] if address else []


def either(places: Iterable[Path]) -> str:
    """`A or B`."""
    return " or ".join(map(str, places))


def check_inputs_remain(config: SweepConfig, location: str) -> None:
    """Check that the images and the extractor's weights of a sweep that exists lie where it says.

    location: the sweep's folder or address.

    Raises:
        DataError, EvaluatorError: they do not.
    """
    source, weights = parse_source(config.data), config.extractor_weights
    again = f"move them back, or say where they are: gansweep resume {shlex.quote(location)}"
    if source and not _exists(source):
        fix = f"{again} --data {source.prefix}PATH"
        raise DataError("the images of this sweep have gone from {seen}", seen=source.path, fix=fix)
    classes = config.classes
    if names_file(classes) and os.path.isabs(classes) and not os.path.exists(classes):
        fix = f"{again} --classes FILE"
        raise DataError("the classes of this sweep have gone from {seen}", seen=classes, fix=fix)
    if weights and not os.path.exists(weights):
        fix = f"{again} --extractor-weights PATH"
        raise EvaluatorError("the extractor's weights have gone from {seen}", seen=weights, fix=fix)


def damaged(path: Path, error: Exception) -> SweepError:
    """The error for a sweep.toml that cannot be read."""
    return SweepError(
        "sweep.toml cannot be read",
        rule="it must be as gansweep wrote it",
        seen=f"{path}: {error}",
        fix="begin a new sweep with another --name",
    )


def _load(path: Path) -> Tables:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def recorded_folder(paths: SweepPaths) -> Path | None:
    """Where a sweep lay when it was last run; None where that is not known, or there is none."""
    return _lay(_load(paths.config)) if paths.config.is_file() else None


def _lay(tables: Tables) -> Path | None:
    """Where the sweep lay when it was last run; None where an earlier version wrote the file."""
    registry = tables.get("registry")
    folder = registry.get("folder") if isinstance(registry, Mapping) else None
    return Path(folder) if isinstance(folder, str) and folder else None


def _mapped(tables: Mapping[str, Any], change: Callable[[_Row, Address], Address]) -> Tables:
    """The tables with every address in them changed."""
    changed = {name: dict(table) if isinstance(table, Mapping) else table for name, table in tables.items()}
    for row in _ROWS:
        table = changed.get(row.table)
        text = table.get(row.key) if isinstance(table, dict) else None
        address = row.parse(text) if isinstance(text, str) else None
        if address is not None and isinstance(table, dict):
            table[row.key] = str(change(row, address))
    return changed


def relative_path(path: str, folder: Path) -> str:
    """A path as seen from the sweep's folder, if it lies below the parent of that; else as it is."""
    for full in (path, os.path.realpath(path)):
        if Path(full).is_relative_to(folder.parent):
            return os.path.relpath(full, folder)
    return path


def _places(row: _Row, path: str, root: Path, lay: Path | None) -> list[str]:
    """Where it may lie, the likeliest first, each place once."""
    if lay is None:  # of an earlier version, which wrote addresses as they were typed
        typed = absolute_path(path)
        beside_sweep = [str(root.parent / Path(path).name)] if row.store and not os.path.exists(typed) else []
        return list(dict.fromkeys([*beside_sweep, typed]))
    beside = os.path.relpath(path, lay) if os.path.isabs(path) else path
    now, then = os.path.abspath(root / beside), os.path.abspath(lay / path)
    # Images that did not lie beside the sweep did not move with it.
    return list(dict.fromkeys((then, now) if os.path.isabs(path) and not row.store else (now, then)))


def _knows(row: _Row, place: str, paths: SweepPaths, tables: Tables) -> bool:
    """Whether a store holds this sweep; of images it is known when they are read."""
    if row.key == "tracking_uri":
        run = str(read_json(paths.export_cursor).get("parent", ""))
        return holds_row(Path(place), "runs", "run_uuid", run)
    return row.key != "storage" or holds_row(Path(place), "studies", "study_name", tables["sweep"]["name"])


def holds_row(path: Path, table: str, column: str, value: str) -> bool:
    """Whether the sqlite file at `path` has a row with this value."""
    uri = f"file:{quote(str(path))}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        found = database.execute(f'select 1 from "{table}" where "{column}" = ? limit 1', (value,))
        return found.fetchone() is not None
    return False


@functools.cache
def _say(text: str) -> None:
    """Log it once: a command reads sweep.toml more than once."""
    log.info(text)
