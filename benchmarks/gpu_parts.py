"""Correctness on a GPU: three questions with a yes or no, each a part of `gpu_check.py`.

- equality: after 200 steps with cuDNN's deterministic algorithms, are the weights trained by CUDA graphs
  equal to those of eager steps, bit for bit; and does an interrupted trial end like an uninterrupted one;
- fid: do the GPU and the CPU give the same images the same fid, by the classifier and by networks of 1,280
  and 2,048 features (random weights);
- memory: how much torch and the whole GPU hold after 5 and after 50 trials of one process.

    python benchmarks/gpu_parts.py equality --device cuda --json out.json
    python benchmarks/gpu_parts.py fid --device cpu --count 60
    python benchmarks/gpu_parts.py memory --device cpu --count 6
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_tools import write_json
from torch import Tensor, nn
from torch.nn import functional
from trials import Work, load_data

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, to_float
from pipeline.data.preparing.prepared import fingerprint
from pipeline.metrics import extractors, frechet
from pipeline.tables import EXTRACTORS
from pipeline.training import trial
from pipeline.training.checkpoint import TrialFolder
from pipeline.training.cuda_graphs import SWITCH
from pipeline.training.events import TrialEvent
from pipeline.training.trainer import Trainer

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lazy R1": {"penalty": "r1", "penalty_interval": 4},
    "spectral norm": {"norm_d": "spectral", "loss": "hinge"},
    "gradient penalty": {"loss": "wasserstein", "penalty": "gp"},
    "R1 + R2, relativistic": {"loss": "relativistic", "penalty": "r1r2", "norm_g": "none"},
    "augmented": {"augment": "diffaugment", "augment_p": 0.5, "penalty": "r1", "penalty_interval": 4},
    "conditional": {"conditional": True, "penalty": "r1", "penalty_interval": 8},
}
PRECISIONS = ("float32", "bfloat16")
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"width_g": 32, "width_d": 32},
    {"architecture": "resnet", "penalty": "r1"},
)

Report = Callable[[dict[str, Any]], None]
"""Takes all results so far."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("part", choices=("equality", "fid", "memory"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--count", type=int, help="steps (200), images (2000) or trials (50)")
    parser.add_argument("--data", default="mnist5k", help="labelled images for fid")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    os.environ[SWITCH] = "1"

    def report(found: dict[str, Any]) -> None:
        write_json(args.json, found)

    if args.part == "equality":
        equality(args.device, args.count or 200, report)
    elif args.part == "fid":
        fids(args.device, args.count or 2000, args.data, report)
    else:
        memory(args.device, args.count or 50, report)


# --- Graph = eager, resumed = uninterrupted ------------------------------------------------------


def equality(device: str, steps: int, report: Report) -> None:
    """Every configuration in both precisions; where graph and eager differ, also two eager runs."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    dataset = noise(28, 2000, classes=10)
    found: dict[str, Any] = {"steps": steps, "configs": {}, "resumed": {}}
    for name, changes in CONFIGS.items():
        for precision in PRECISIONS:
            config = TrialConfig(**SMALL, precision=precision, **changes)
            key = f"{name}, {precision}"
            found["configs"][key] = compare(config, dataset, device, steps)
            print(f"{key}: {found['configs'][key]}", flush=True)
            report(found)
    for precision in PRECISIONS:
        found["resumed"][precision] = resumed(device, precision)
        print(f"resumed, {precision}: {found['resumed'][precision]}", flush=True)
        report(found)


SMALL: dict[str, Any] = {"width_g": 16, "width_d": 16, "batch_size": 32, "lr_g": 1e-3, "lr_d": 1e-3}


def compare(config: TrialConfig, dataset: Dataset, device: str, steps: int) -> dict[str, Any]:
    graph, reason = train(config, dataset, device, steps, graphs=True)
    eager, _ = train(config, dataset, device, steps, graphs=False)
    found = {"graphs": reason or "yes", **difference(graph, eager)}
    if not found["equal"]:
        found["eager again"] = difference(train(config, dataset, device, steps, graphs=False)[0], eager)
    return found


def train(
    config: TrialConfig, dataset: Dataset, device: str, steps: int, graphs: bool
) -> tuple[dict[str, Tensor], str]:
    """The state and the metrics after so many steps; and why there were no graphs, "" = there were."""
    os.environ[SWITCH] = str(int(graphs))
    events: list[TrialEvent] = []
    images = torch.from_numpy(dataset.train).to(device)
    labels = torch.from_numpy(dataset.train_labels).to(device) if config.conditional else None
    trainer = Trainer(config, images, labels, len(dataset.classes), on_event=events.append)
    end = steps * config.batch_size
    trainer.advance(10**6, should_stop=lambda: trainer.nimg >= end)
    means = trainer.metrics.read()
    graphed = trainer._graphed_step
    reason = "" if graphed is not None and graphed.graphs.graph_count else "none were captured"
    state = flat(trainer.state_dict()) | {f"mean {name}": torch.tensor(v) for name, v in means.items()}
    return state, "; ".join(event.text for event in events) or reason


def flat(state: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of a nested state by their path in it, on the CPU."""
    if isinstance(state, Tensor):
        return {name: state.detach().cpu().clone()}
    found: dict[str, Tensor] = {}
    if isinstance(state, dict | list | tuple):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in pairs:
            found |= flat(value, f"{name}.{key}" if name else str(key))
    return found


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Any]:
    """Whether all tensors are equal bit for bit; else where the largest difference is, and how large."""
    if ours.keys() != theirs.keys():
        return {"equal": False, "most": float("nan"), "where": "not the same tensors"}
    differences = {
        name: float((ours[name].double() - theirs[name].double()).abs().max())
        for name in ours
        if not torch.equal(ours[name], theirs[name])
    }
    where = max(differences, key=lambda name: differences[name], default="")
    return {
        "equal": not differences,
        "most": differences.get(where, 0.0),
        "where": where,
        "tensors": len(ours),
    }


def resumed(device: str, precision: str) -> dict[str, Any]:
    """Three ticks without an interruption, against two and then the third from a checkpoint."""
    os.environ[SWITCH] = "1"
    dataset = noise(16, 1000, classes=10)
    penalty = {"penalty": "r1", "penalty_interval": 4, "conditional": True}
    config = TrialConfig(**SMALL, precision=precision, kimg=6, tick_kimg=2, **penalty)
    with tempfile.TemporaryDirectory(prefix="resumed") as folder:
        evaluator = evaluator_of(dataset, Path(folder), device)
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        for _ in trial.run_trial(config, dataset, evaluator, whole, trial.TrialSettings(device=device)):
            pass
        ticks = trial.run_trial(config, dataset, evaluator, broken, trial.TrialSettings(device=device))
        next(ticks)
        next(ticks)
        ticks.close()
        for _ in trial.run_trial(config, dataset, evaluator, broken, trial.TrialSettings(device=device)):
            pass
        states = [TrialFolder(root).restore() for root in (whole, broken)]
    if None in states:
        return {"equal": False, "most": float("nan"), "where": "no checkpoint"}
    return difference(*(flat(state["trainer"]) for state in states if state is not None))


def noise(size: int, count: int, classes: int) -> Dataset:
    """Grey noise with labels, a tenth of it held out."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 1), np.uint8)
    labels = rng.integers(0, classes, count)
    held = count // 10
    parts = (images[held:], images[:held], labels[held:], labels[:held])
    return Dataset("noise", *parts, tuple(map(str, range(classes))), fingerprint(*parts))


def evaluator_of(dataset: Dataset, cache: Path, device: str) -> frechet.Evaluator:
    """Pixels and 100 samples: a fid in milliseconds."""
    return frechet.build_evaluator(dataset, extractors.build_extractor("pixels", dataset), 100, cache).to(
        device
    )


# --- fid on the GPU = fid on the CPU -------------------------------------------------------------


def fids(device: str, count: int, source: str, report: Report) -> None:
    """The same images, by several extractors."""
    torch.set_num_threads(max(1, min(8, (os.cpu_count() or 2) // 2)))
    dataset, evaluator = load_data(Work(source, samples=count), "cpu")
    found: dict[str, Any] = {"count": count, "extractors": {}, "left_out": []}
    images = blurred(dataset, count)
    found["extractors"]["classifier, 64 features"] = both(evaluator, images, device)
    report(found)
    if not importlib.util.find_spec("torchvision"):
        found["left_out"].append("networks of 1,280 and 2,048 features: no torchvision")
        report(found)
    else:
        with tempfile.TemporaryDirectory(prefix="fid") as folder:
            for name, extractor, most in large_extractors(dataset):
                few = min(count, most)
                part = replace(dataset, train=dataset.train[: few + few // 4], fingerprint=f"{few} of it")
                evaluator = frechet.build_evaluator(part, extractor, few, Path(folder))
                found["extractors"][name] = both(evaluator, images[:few], device)
                report(found)
    for name, one in found["extractors"].items():
        print(f"{name}: {one}")


def blurred(dataset: Dataset, count: int) -> Tensor:
    """`count` blurred images uint8 (N,H,W,C) of the data."""
    rows = np.arange(count) % len(dataset.train)
    images = torch.from_numpy(dataset.train[rows]).permute(0, 3, 1, 2).float()
    soft = functional.avg_pool2d(images, 3, 1, 1)
    return soft.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def both(evaluator: frechet.Evaluator, images: Tensor, device: str) -> dict[str, Any]:
    """`Evaluator.score` and `frechet_of` on the device and on the CPU."""
    scores, distances, seconds = [], [], []
    for where in (device, "cpu"):
        placed, moved = evaluator.to(where), images.to(where)
        parts = iter(moved.split(500))
        began = time.perf_counter()
        scores.append(placed.score(lambda size, parts=parts: next(parts)))
        seconds.append(time.perf_counter() - began)
        distances.append(frechet.frechet_of(placed.real, placed.extractor(moved)))
    pairs = [pair for pair in (scores, distances) if None not in pair]
    relative = [abs(a - b) / abs(b) for a, b in pairs if b]
    return {
        "samples": evaluator.samples,
        device: scores[0],
        "cpu": scores[1],
        "frechet": distances,
        "relative": max(relative) if len(relative) == 2 else None,
        "seconds": seconds,
    }


def large_extractors(dataset: Dataset) -> Iterator[tuple[str, Any, int]]:
    """Networks of torchvision with random weights, each with the most images to give it."""
    from torchvision import models

    torch.manual_seed(0)
    net = models.efficientnet_b0(weights=None)
    body = nn.Sequential(net.features, net.avgpool, nn.Flatten())
    yield "EfficientNet, 1,280 features", extractor_of("efficientnet", body, 1280, 64, dataset), 2000
    torch.manual_seed(0)
    body = models.inception_v3(weights=None, init_weights=False, aux_logits=False, transform_input=False)
    body.fc = nn.Identity()
    yield "Inception, 2,048 features", extractor_of("inception", body, 2048, 80, dataset), 1000


def extractor_of(name: str, body: nn.Module, dim: int, side: int, dataset: Dataset) -> Any:
    """An extractor of `body`; its batch norms get statistics of real images: activations stay in range."""
    net = _Enlarged(body, side)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.from_numpy(dataset.train[:100]))
    row = replace(EXTRACTORS.get(name, EXTRACTORS["classifier"]), version=f"gpu-check-{name}")
    return extractors.NetExtractor(name, net, dim, row)


class _Enlarged(nn.Module):
    """Features of a network for colour images, from uint8 (N,H,W,C) of any size."""

    def __init__(self, body: nn.Module, side: int) -> None:
        super().__init__()
        self.body, self.side = body, side

    def forward(self, images: Tensor) -> Tensor:
        colour = to_float(images).expand(-1, 3, -1, -1)
        large = functional.interpolate(colour, size=self.side, mode="bilinear", align_corners=False)
        found: Tensor = self.body(large)
        return found


# --- Memory --------------------------------------------------------------------------------------


def memory(device: str, count: int, report: Report) -> None:
    """MiB after each of many small trials of three kinds in turn."""
    dataset = noise(8, 200, classes=3)
    held: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="memory") as folder:
        evaluator = evaluator_of(dataset, Path(folder), device)
        for number in range(count):
            changes = {**SMALL, "width_g": 8, "width_d": 8, **KINDS[number % 3]}
            config = TrialConfig(**changes, kimg=2, tick_kimg=1, seed=number)
            for _ in trial.run_trial(
                config, dataset, evaluator, Path(folder) / str(number), trial.TrialSettings(device=device)
            ):
                pass
            held.append(mebibytes(device))
            report(memory_growth(held))
    print(memory_growth(held))


def mebibytes(device: str) -> dict[str, float]:
    if device != "cuda":
        return {"allocated": 0.0, "reserved": 0.0, "whole GPU": 0.0}
    gc.collect()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    numbers = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), total - free)
    return dict(zip(("allocated", "reserved", "whole GPU"), (n / 2**20 for n in numbers), strict=True))


def memory_growth(held: list[dict[str, float]]) -> dict[str, Any]:
    """The memory after the fifth trial and after the last, and its growth between them."""
    early, last = held[min(4, len(held) - 1)], held[-1]
    growth = {name: last[name] - early[name] for name in last}
    return {"trials": len(held), "after 5": early, "after the last": last, "grown_mib": growth}


if __name__ == "__main__":
    main()
