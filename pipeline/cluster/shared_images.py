"""The images of a sweep on every node: one memory-mapped file, which all processes of the node share.

Workers on the driver's node open the file that the driver prepared. The first worker of another node copies
it into that node's cache, a piece at a time, and the others wait for it: no node holds all images in memory.
Images that the driver could not keep on its disk go through Ray's object store.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.data.dataset import Dataset, as_dataset
from pipeline.data.preparing.prepared_cache import copy_prepared, open_prepared
from pipeline.storage.files import cache_root
from pipeline.storage.home import private_folder
from pipeline.storage.readable import readable_memory

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SharedFolder:
    """Prepared images in `folder` of the node `node`. source: of the data set."""

    folder: Path
    node: str
    source: str
    fingerprint: str


def share_images(dataset: Dataset) -> Any:
    """What workers get the images by: a `SharedFolder`, or a reference into the object store."""
    if dataset.folder is None:
        return ray.put(dataset)
    node = ray.get_runtime_context().get_node_id()
    return SharedFolder(dataset.folder, node, dataset.source, dataset.fingerprint)


def open_images(shared: SharedFolder) -> Dataset:
    """The images on this node, which are copied here if they are not there yet.

    They go to the cache, or below the temporary folder where the cache is full.

    Raises:
        OSError: this node's disks have no room for them, or the driver's cache was deleted. RayError: its
            node has gone.
    """
    cache = cache_root() / "data" / shared.folder.name
    for folder in (shared.folder, cache):
        found = _open(folder, shared)
        if found is not None:
            return found
    try:
        return _copy(shared, cache)
    except OSError as error:
        log.info(f"the images cannot be copied to {cache}: {error}")
        return _copy(shared, private_folder() / "data" / shared.folder.name)


def _copy(shared: SharedFolder, here: Path) -> Dataset:
    log.info(f"the images are copied to this node: {here}")
    copied = copy_prepared(here, shared.fingerprint, lambda file: _remote_pieces(shared, file))
    log.info(f"images on this node: {readable_memory(copied.images.nbytes)} in {here}")
    return as_dataset(copied, shared.source, here)


def _open(folder: Path, shared: SharedFolder) -> Dataset | None:
    prepared = open_prepared(folder)
    if prepared is None or prepared.fingerprint != shared.fingerprint:
        return None
    return as_dataset(prepared, shared.source, folder)


def _remote_pieces(shared: SharedFolder, file: str) -> Any:
    """The content of a file of the shared folder, in pieces; nothing where there is no such file."""
    there = NodeAffinitySchedulingStrategy(shared.node, soft=False)
    task = ray.remote(read_piece).options(num_cpus=0, scheduling_strategy=there)
    path, offset = str(shared.folder / file), 0
    pending = task.remote(path, offset)
    while piece := ray.get(pending):
        offset += len(piece)
        pending = task.remote(path, offset)  # read while this piece is written
        yield piece


def read_piece(path: str, offset: int) -> bytes:
    """At most `PIECE_BYTES` of a file from `offset` on; nothing behind its end, or where there is none."""
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(PIECE_BYTES)
