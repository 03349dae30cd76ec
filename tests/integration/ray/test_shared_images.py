"""The images of a sweep on real nodes: mapped where the driver prepared them, copied once to another node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

SHARE = """
import json, os, sys, time
from pathlib import Path
import numpy as np, ray
from ray._private.internal_api import node_stats
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from pipeline.cluster import shared_images
from pipeline.cluster.shared_images import open_images, share_images
from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.dataset import as_dataset
from pipeline.data.options import AS_FOUND
from pipeline.data.preparing.prepared_cache import prepare_in
from pipeline.data.source_types import RawImages

def created(node):
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
    return stats.store_stats.cumulative_created_bytes

@ray.remote(num_cpus=0, max_retries=0)
def trial(shared, cache, sees_the_drivers_disk):
    os.environ["GANSWEEP_CACHE"] = cache
    if not sees_the_drivers_disk:
        opened = shared_images.open_prepared
        shared_images.open_prepared = lambda folder: None if folder == shared.folder else opened(folder)
    dataset = open_images(shared)
    mapped = [line.split()[-1] for line in open("/proc/self/maps") if line.rstrip().endswith("images.npy")]
    sums = int(dataset.train.sum()), int(dataset.held.sum()), int(dataset.train_labels.sum())
    return str(dataset.folder), sorted(set(mapped)), sums, dataset.understood.exact

def on(node, *arguments, times=1):
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    before = created(node)
    answers = ray.get([trial.options(scheduling_strategy=there).remote(*arguments) for _ in range(times)])
    return {"answers": answers, "created": created(node) - before}

address, here, there = sys.argv[1:]
images = np.random.default_rng(0).integers(0, 256, (6000, 64, 64, 3), np.uint8)
images[1] = images[0]
raw = RawImages(images=ArrayRows(images), labels=np.arange(len(images)) % 10)
prepared, folder = prepare_in(Path(here) / "data", "noise-1", raw, AS_FOUND, "noise")
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
shared = share_images(as_dataset(prepared, "noise", folder))
driver = ray.get_runtime_context().get_node_id()
while len(ray.nodes()) < 2:
    time.sleep(0.1)
near = next(node for node in ray.nodes() if node["NodeID"] == driver)
far = next(node for node in ray.nodes() if node["NodeID"] != driver)
local = on(near, shared, there, True)
print(json.dumps({"size": images.nbytes, "local": local, "far": on(far, shared, there, False, times=2)}))
"""


@pytest.fixture
def cluster() -> Iterator[tuple[machines.RayCluster, Path]]:
    # A path of a Ray socket has at most 107 characters: pytest's folders are too deep.
    with (
        tempfile.TemporaryDirectory(prefix="gs", ignore_cleanup_errors=True) as name,
        machines.ray_cluster(Path(name) / "r", {"PYTHONPATH": str(ROOT)}) as cluster,
    ):
        yield cluster, Path(name)


def test_images_are_mapped_here_and_copied_once_there(cluster: tuple[machines.RayCluster, Path]) -> None:
    nodes, folder = cluster
    address, here, there = f"127.0.0.1:{nodes.port}", folder / "here", folder / "there"
    environment = {**nodes.client, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
    command = [sys.executable, "-c", SHARE, address, str(here), str(there)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(machines.script_lines(done.stdout)[-1])

    prepared, copied = here / "data/noise-1", there / "data/noise-1"
    (first,) = found["local"]["answers"]
    assert first[:2] == [str(prepared), [str(prepared / "images.npy")]]
    assert found["local"]["created"] < 2**20  # nothing of the images went through the object store

    assert found["far"]["answers"] == [[str(copied), [str(copied / "images.npy")], *first[2:]]] * 2
    assert os.listdir(copied.parent) == ["noise-1"]
    files = sorted(os.listdir(prepared))
    assert files == ["groups.npy", "images.npy", "labels.npy", "meta.json"]
    assert sorted(os.listdir(copied)) == files
    for file in files:
        assert (copied / file).read_bytes() == (prepared / file).read_bytes()
    assert found["size"] <= found["far"]["created"] < 1.2 * found["size"]  # once for both
