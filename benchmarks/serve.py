"""How fast a registered generator loads, samples and answers requests.

    python benchmarks/serve.py [MODEL] [--tracking-uri URI]

MODEL is `models:/NAME@ALIAS`; without one a small generator of 28-px images (the size of the default
sweep's) is registered in a temporary store. Prints, each with its limit:

- loading it and the first 64 samples in a fresh process, beyond what `import mlflow.pyfunc, torch` takes;
- the same where nothing but torch, numpy, pandas, mlflow and what they require can be found;
- the rate of 10,000 samples, as a part of the raw forward pass at its best batch size (least time);
- the median round trip of 64 samples: `mlflow models serve` /invocations (JSON), `gansweep serve` /grid.png.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
import torch

from pipeline.config import TrialConfig
from pipeline.serving import models
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator
from pipeline.tracking.registry.promote import register_version
from pipeline.tracking.registry.registered_model import PackedGenerator
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks

LOAD = """
import time
begin = time.perf_counter()
import mlflow.pyfunc, torch
imported = time.perf_counter()
import sys, json
images = mlflow.pyfunc.load_model(sys.argv[1]).predict([0], params={"n": 64})
assert images.shape[0] == 64
print(json.dumps([imported - begin, time.perf_counter() - imported]))
"""
MODEL_PACKAGES = ("torch", "numpy", "pandas", "mlflow")
ABSENT = ("pipeline", "ray", "optuna", "torchvision")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI", ""))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        uri = arguments.tracking_uri or f"sqlite:///{folder}/mlflow.db"
        model = arguments.model or registered(Path(folder), uri)
        with models.open_packed(model, uri) as packed:
            generator = PackedGenerator(packed)
        print(f"{model}: {generator.size} px, {generator.channels} channels, {generator.classes} classes")
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        }
        imports, more = loading(sys.executable, model, environment)
        print(f"load and first 64 samples   {more:6.2f} s beyond the imports' {imports:.2f} s (at most 8 s)")
        python = bare(Path(folder))
        imports, more = loading(str(python), model, environment)
        print(f"  with {', '.join(MODEL_PACKAGES)} only   {more:6.2f} s beyond {imports:.2f} s")
        part, rate, raw = throughput(generator)
        print(f"10,000 samples              {rate:6.0f}/s, {part:.0%} of the raw {raw:.0f}/s (at least 80 %)")
        print(
            f"/invocations, 64 samples    {1000 * invocations(model, environment):6.0f} ms (less than 150 ms)"
        )
        print(
            f"/grid.png, 64 samples       {1000 * page(model, uri, environment):6.0f} ms (less than 150 ms)"
        )


def registered(folder: Path, uri: str) -> str:
    """The URI of an untrained DCGAN of 28 px in the registry: the times do not depend on its images."""
    torch.manual_seed(0)
    config = TrialConfig(architecture="dcgan", conditional=True, width_g=16, width_d=2, z_dim=64)
    generator, _ = build_networks(config, ImageShape(28, 1, 10))
    packed = pack_generator(generator, folder / "packed", ModelMetadata())
    return register_version(packed, ModelMetadata(), tracking_uri=uri, name="bench", verify=False).uri


def loading(python: str, model: str, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of the imports and of the rest, medians of three fresh processes."""
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [python, "-c", LOAD, model], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr[-2000:])
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return tuple(statistics.median(column) for column in zip(*runs, strict=True))  # type: ignore[return-value]


def bare(folder: Path) -> Path:
    """The python of a fresh environment with `MODEL_PACKAGES` and what they require, linked from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    for name in required(MODEL_PACKAGES):
        for file in importlib.metadata.distribution(name).files or ():
            top = file.parts[0]
            source, target = Path(str(importlib.metadata.distribution(name).locate_file(top))), site / top
            if top != ".." and source.exists() and not target.exists():
                target.symlink_to(source)
    for name in ABSENT:
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
        subprocess.run([str(folder / "venv/bin/python"), "-I", "-c", code], check=True)
    return folder / "venv" / "bin" / "python"


def required(names: tuple[str, ...]) -> set[str]:
    """These distributions and all that they require and that is installed."""
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            plain = [line for line in requires if "extra ==" not in line]
            queue += [re.match(r"[\w.-]+", line)[0] for line in plain]  # type: ignore[index]
    return found


def throughput(generator: PackedGenerator, n: int = 10_000) -> tuple[float, float, float]:
    """Rate relative to the raw forward pass, and images a second of both, in CPU time."""
    sizes = (32, 64, 128, 256, 512)
    inputs = {}
    for size in sizes:
        z, labels = generator.latents(size, 1)
        inputs[size] = [torch.from_numpy(z)] + ([torch.from_numpy(labels)] if generator.classes else [])
    costs: dict[object, float] = {}

    def timed(key: object, work: Callable[[], object], images: int) -> None:
        begin = time.thread_time()
        work()
        costs[key] = min(costs.get(key, np.inf), (time.thread_time() - begin) / images)

    forward = generator._forward
    with torch.no_grad():
        for _ in range(3):
            for size in sizes:
                count = max(1, 2048 // size)
                timed(
                    size,
                    lambda size=size, count=count: [forward(*inputs[size]) for _ in range(count)],
                    count * size,
                )
            timed("sample", lambda: generator.sample(n, 1), n)
    raw = 1 / min(costs[size] for size in sizes)
    return 1 / costs["sample"] / raw, 1 / costs["sample"], raw


def invocations(model: str, environment: dict[str, str]) -> float:
    port = free_port()
    command = f"-m mlflow models serve -m {model} --env-manager local -h 127.0.0.1 -p {port}".split()
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # where it looks for uvicorn
    request = {"inputs": [0], "params": {"n": 64, "seed": 1}}
    with serving([sys.executable, *command], {**environment, "PATH": path}, f"http://127.0.0.1:{port}/ping"):
        address = f"http://127.0.0.1:{port}/invocations"
        return median(lambda session: session.post(address, json=request, timeout=60).json()["predictions"])


def page(model: str, uri: str, environment: dict[str, str]) -> float:
    port = free_port()
    command = f"-m pipeline serve {model} --port {port} --tracking-uri {uri}".split()
    with serving([sys.executable, *command], environment, f"http://127.0.0.1:{port}/facts"):
        address = f"http://127.0.0.1:{port}/grid.png?n=64&seed="
        return median(lambda session: session.get(f"{address}1", timeout=60).content)


def median(request: Callable[[requests.Session], object], times: int = 30) -> float:
    """Median seconds of a request, after three that do not count."""
    session, seconds = requests.Session(), []
    for _ in range(times + 3):
        begin = time.perf_counter()
        request(session)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[3:])


@contextmanager
def serving(command: list[str], environment: dict[str, str], ready: str) -> Iterator[None]:
    """Run the server `command` within the block, which begins when it answers at `ready`."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(600):
            try:
                requests.get(ready, timeout=5).raise_for_status()
                break
            except requests.RequestException:
                if process.poll() is not None:
                    raise SystemExit(f"{command} ended with {process.returncode}") from None
                time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
