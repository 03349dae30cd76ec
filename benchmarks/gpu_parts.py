"""Is it right on a GPU? Three questions with a yes or no, each a part of `gpu_check.py`.

- equality: after 200 steps under cuDNN's deterministic algorithms, are the weights that graphs have trained
  those of eager steps, bit for bit; and does a trial that was interrupted end where an unbroken one does;
- fid: do the GPU and the CPU give the same images the same fid, by the classifier and by networks of 1,280
  and 2,048 features (random weights);
- memory: what torch and the whole GPU hold after 5 and after 50 trials of one process.

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
from trials import Work, material

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, fingerprint, to_float
from pipeline.metrics import extractors, frechet
from pipeline.training import trial
from pipeline.training.checkpoint import TrialFolder
from pipeline.training.cuda_graphs import SWITCH
from pipeline.training.trainer import Trainer

GAMES: dict[str, dict[str, Any]] = {
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

Tell = Callable[[dict[str, Any]], None]
"""Takes all that is known so far."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("part", choices=("equality", "fid", "memory"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--count", type=int, help="steps (200), images (2000) or trials (50)")
    parser.add_argument("--data", default="mnist5k", help="labelled images for fid")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    os.environ[SWITCH] = "1"

    def tell(found: dict[str, Any]) -> None:
        write_json(args.json, found)

    if args.part == "equality":
        equality(args.device, args.count or 200, tell)
    elif args.part == "fid":
        fids(args.device, args.count or 2000, args.data, tell)
    else:
        memory(args.device, args.count or 50, tell)


# --- Graph = eager, broken off = unbroken --------------------------------------------------------


def equality(device: str, steps: int, tell: Tell) -> None:
    """Every game in both precisions; where they differ, two eager runs are compared, too."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    dataset = noise(28, 2000, classes=10)
    found: dict[str, Any] = {"steps": steps, "games": {}, "resumed": {}}
    for name, changes in GAMES.items():
        for precision in PRECISIONS:
            config = TrialConfig(**SMALL, precision=precision, **changes)
            key = f"{name}, {precision}"
            found["games"][key] = compare(config, dataset, device, steps)
            print(f"{key}: {found['games'][key]}", flush=True)
            tell(found)
    for precision in PRECISIONS:
        found["resumed"][precision] = resumed(device, precision)
        print(f"resumed, {precision}: {found['resumed'][precision]}", flush=True)
        tell(found)


SMALL: dict[str, Any] = {"width_g": 16, "width_d": 16, "batch_size": 32, "lr_g": 1e-3, "lr_d": 1e-3}


def compare(config: TrialConfig, dataset: Dataset, device: str, steps: int) -> dict[str, Any]:
    graph, why = play(config, dataset, device, steps, graphs=True)
    eager, _ = play(config, dataset, device, steps, graphs=False)
    found = {"graphs": why or "yes", **difference(graph, eager)}
    if not found["equal"]:
        found["eager again"] = difference(play(config, dataset, device, steps, graphs=False)[0], eager)
    return found


def play(
    config: TrialConfig, dataset: Dataset, device: str, steps: int, graphs: bool
) -> tuple[dict[str, Tensor], str]:
    """All that training moves, after so many steps; and why it had no graphs, where it was to have them."""
    os.environ[SWITCH] = str(int(graphs))
    said: list[str] = []
    images = torch.from_numpy(dataset.train).to(device)
    labels = torch.from_numpy(dataset.train_labels).to(device) if config.conditional else None
    trainer = Trainer(config, images, labels, len(dataset.classes), say=said.append)
    end = steps * config.batch_size
    trainer.advance(10**6, should_stop=lambda: trainer.nimg >= end)
    means = trainer.metrics.read()
    recorded = getattr(trainer, "_recorded", None)
    why = "" if recorded is not None and recorded.replays.kinds else "none were recorded"
    state = flat(trainer.state_dict()) | {f"mean {name}": torch.tensor(v) for name, v in means.items()}
    return state, "; ".join(said) or why


def flat(state: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of a nested state by their place in it, on the CPU."""
    if isinstance(state, Tensor):
        return {name: state.detach().cpu().clone()}
    found: dict[str, Tensor] = {}
    if isinstance(state, dict | list | tuple):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in pairs:
            found |= flat(value, f"{name}.{key}" if name else str(key))
    return found


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Any]:
    """Whether all is equal to the bit; else where it is farthest apart, and by how much."""
    if ours.keys() != theirs.keys():
        return {"equal": False, "most": float("nan"), "where": "not the same tensors"}
    apart = {
        name: float((ours[name].double() - theirs[name].double()).abs().max())
        for name in ours
        if not torch.equal(ours[name], theirs[name])
    }
    where = max(apart, key=lambda name: apart[name], default="")
    return {"equal": not apart, "most": apart.get(where, 0.0), "where": where, "tensors": len(ours)}


def resumed(device: str, precision: str) -> dict[str, Any]:
    """Three ticks at once against two and, from the files, the third."""
    os.environ[SWITCH] = "1"
    dataset = noise(16, 1000, classes=10)
    penalty = {"penalty": "r1", "penalty_interval": 4, "conditional": True}
    config = TrialConfig(**SMALL, precision=precision, kimg=6, tick_kimg=2, **penalty)
    with tempfile.TemporaryDirectory(prefix="resumed") as folder:
        judge = evaluator_of(dataset, Path(folder), device)
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        for _ in trial.run_trial(config, dataset, judge, whole, device=device):
            pass
        ticks = trial.run_trial(config, dataset, judge, broken, device=device)
        next(ticks)
        next(ticks)
        ticks.close()
        for _ in trial.run_trial(config, dataset, judge, broken, device=device):
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


def fids(device: str, count: int, source: str, tell: Tell) -> None:
    """The same images, by several extractors."""
    torch.set_num_threads(max(1, min(8, (os.cpu_count() or 2) // 2)))
    dataset, judge = material(Work(source, samples=count), "cpu")
    found: dict[str, Any] = {"count": count, "extractors": {}, "left_out": []}
    images = blurred(dataset, count)
    found["extractors"]["classifier, 64 features"] = both(judge, images, device)
    tell(found)
    if not importlib.util.find_spec("torchvision"):
        found["left_out"].append("networks of 1,280 and 2,048 features: no torchvision")
        tell(found)
    else:
        with tempfile.TemporaryDirectory(prefix="fid") as folder:
            for name, extractor, most in large_extractors(dataset):
                few = min(count, most)
                part = replace(dataset, train=dataset.train[: few + few // 4], fingerprint=f"{few} of it")
                judge = frechet.build_evaluator(part, extractor, few, Path(folder))
                found["extractors"][name] = both(judge, images[:few], device)
                tell(found)
    for name, one in found["extractors"].items():
        print(f"{name}: {one}")


def blurred(dataset: Dataset, count: int) -> Tensor:
    """`count` images uint8 (N,H,W,C) that are nearly those of the data."""
    rows = np.arange(count) % len(dataset.train)
    images = torch.from_numpy(dataset.train[rows]).permute(0, 3, 1, 2).float()
    soft = functional.avg_pool2d(images, 3, 1, 1)
    return soft.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def both(judge: frechet.Evaluator, images: Tensor, device: str) -> dict[str, Any]:
    """`Evaluator.score` and `frechet_of` there and here."""
    scores, distances, seconds = [], [], []
    for place in (device, "cpu"):
        there, moved = judge.to(place), images.to(place)
        parts = iter(moved.split(500))
        began = time.perf_counter()
        scores.append(there.score(lambda size, parts=parts: next(parts)))
        seconds.append(time.perf_counter() - began)
        distances.append(frechet.frechet_of(there.real, there.extractor(moved)))
    pairs = [pair for pair in (scores, distances) if None not in pair]
    off = [abs(a - b) / abs(b) for a, b in pairs if b]
    return {
        "samples": judge.samples,
        device: scores[0],
        "cpu": scores[1],
        "frechet": distances,
        "relative": max(off) if len(off) == 2 else None,
        "seconds": seconds,
    }


def large_extractors(dataset: Dataset) -> Iterator[tuple[str, Any, int]]:
    """Networks of torchvision with random weights, and how many images they are to see at most."""
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
    """As `pipeline.metrics.extractors` has its own. Its batch norms have seen images, which keeps signals in size."""
    net = _Enlarged(body, side)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.from_numpy(dataset.train[:100]))
    return extractors._NetExtractor(name, net, f"gpu-check-{name}", dim)


class _Enlarged(nn.Module):
    """uint8 (N,H,W,C) of any size to features of a network for colour images."""

    def __init__(self, body: nn.Module, side: int) -> None:
        super().__init__()
        self.body, self.side = body, side

    def forward(self, images: Tensor) -> Tensor:
        colour = to_float(images).expand(-1, 3, -1, -1)
        large = functional.interpolate(colour, size=self.side, mode="bilinear", align_corners=False)
        found: Tensor = self.body(large)
        return found


# --- Memory --------------------------------------------------------------------------------------


def memory(device: str, count: int, tell: Tell) -> None:
    """MiB after each of many small trials of three kinds in turn."""
    dataset = noise(8, 200, classes=3)
    held: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="memory") as folder:
        judge = evaluator_of(dataset, Path(folder), device)
        for number in range(count):
            changes = {**SMALL, "width_g": 8, "width_d": 8, **KINDS[number % 3]}
            config = TrialConfig(**changes, kimg=2, tick_kimg=1, seed=number)
            for _ in trial.run_trial(config, dataset, judge, Path(folder) / str(number), device=device):
                pass
            held.append(mebibytes(device))
            tell(grown(held))
    print(grown(held))


def mebibytes(device: str) -> dict[str, float]:
    if device != "cuda":
        return {"allocated": 0.0, "reserved": 0.0, "whole GPU": 0.0}
    gc.collect()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    numbers = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), total - free)
    return dict(zip(("allocated", "reserved", "whole GPU"), (n / 2**20 for n in numbers), strict=True))


def grown(held: list[dict[str, float]]) -> dict[str, Any]:
    """What is held after the fifth trial and after the last."""
    early, last = held[min(4, len(held) - 1)], held[-1]
    growth = {name: last[name] - early[name] for name in last}
    return {"trials": len(held), "after 5": early, "after the last": last, "grown_mib": growth}


if __name__ == "__main__":
    main()
