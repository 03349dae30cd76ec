"""A straightforward loop for a whole trial, which `trials.py` compares gansweep with.

The same networks, losses, lazy penalty and average as ours, torch's default Adam, no number read in the loop;
at every tick the same balance readings, samples and classifier, the Frechet distance by the eigenvalues of
the product of the covariances, a PNG, `torch.save` of networks and optimizers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_tools import wait
from split import Split, trial_result
from torch import Tensor

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, to_float
from pipeline.data.pictures import image_sheet
from pipeline.metrics import frechet
from pipeline.tables import PENALTIES
from pipeline.training import balance
from pipeline.training.losses import load_loss
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks, to_uint8


def plain_trial(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: frechet.Evaluator,
    folder: Path,
    device: str,
    split: Split,
) -> dict[str, Any]:
    """One trial; `split` counts its seconds."""
    reals = real_statistics(evaluator, dataset)  # a sweep computes them once as well
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
    verdict = "healthy" if math.isfinite(loop.loss()) else "diverged"
    return trial_result(split, config, verdict, best, ticks, [])


class Plain:
    """Networks, optimizers and one batch after another."""

    def __init__(self, config: TrialConfig, dataset: Dataset, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes))
        self.G, self.D = (net.to(device) for net in build_networks(config, shape))
        self.average = build_networks(config, shape)[0].to(device).eval().requires_grad_(False)
        self.average.load_state_dict(self.G.state_dict())
        betas = (config.beta1, config.beta2)
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=config.lr_g, betas=betas)
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=config.lr_d, betas=betas)
        self.reals = to_float(torch.from_numpy(dataset.train).to(device)).contiguous()
        labels = dataset.train_labels if config.conditional else None
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)
        self.seen = self.steps = 0
        self._last = torch.zeros((), device=device)

    def train(self, until: int) -> None:
        """Train until D has seen `until` reals; epochs in a shuffled order."""
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
        config, loss = self.config, load_loss(self.config.loss)
        self.opt_d.zero_grad()
        z = torch.randn(len(real), config.z_dim, device=self.device)
        with self._autocast():
            fake = self.G(z, labels)
            score_real, score_fake = self.D(real, labels), self.D(fake.detach(), labels)
        loss_d = loss.d(score_real.float(), score_fake.float())
        if config.penalty != "none" and self.steps % config.penalty_interval == 0:
            loss_d = loss_d + config.gamma * config.penalty_interval * self.gradient_penalty(
                real, fake, labels
            )
        loss_d.backward()
        self.opt_d.step()
        self.opt_g.zero_grad()
        with self._autocast():
            score_fake = self.D(fake, labels)
        loss_g = loss.g(score_real.detach().float(), score_fake.float())
        loss_g.backward()
        self.opt_g.step()
        self.update_average()
        self.steps += 1
        self._last = loss_d.detach() + loss_g.detach()

    def gradient_penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """The penalty, from a separate pass of D."""
        mix = torch.rand(real.shape, device=self.device)
        with self._autocast():
            critic = functools.partial(self.D, labels=labels)
            penalty: Tensor = PENALTIES.load(self.config.penalty)(critic, real, fake.detach().float(), mix)
            return penalty

    @torch.no_grad()
    def update_average(self) -> None:
        """Update the moving average of G."""
        halflife = min(1000 * self.config.ema_halflife_kimg, 0.05 * max(self.seen, 1))
        keep = 0.5 ** (self.config.batch_size / halflife)
        for ours, live in zip(self.average.parameters(), self.G.parameters(), strict=True):
            ours.lerp_(live, 1 - keep)
        for ours, live in zip(self.average.buffers(), self.G.buffers(), strict=True):
            ours.copy_(live)

    def loss(self) -> float:
        return float(self._last)

    @torch.no_grad()
    def read_balance(self, dataset: Dataset, count: int = 512) -> list[float]:
        """D's scores of held-out reals, of training reals and of fakes: AUC, overfit, spread, means."""
        self.loss()
        held = to_float(torch.from_numpy(dataset.held[:count]).to(self.device))
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
            yield self.generate(min(500, count - start))

    @torch.no_grad()
    def generate(self, count: int) -> Tensor:
        labels = None
        if self.labels is not None:
            labels = self.labels[torch.randint(len(self.labels), (count,), device=self.device)]
        return to_uint8(self.average(torch.randn(count, self.config.z_dim, device=self.device), labels))

    def save(self, folder: Path, kimg: int) -> None:
        """A sample grid and a checkpoint; the newest two checkpoints are kept, as in a sweep."""
        image_sheet(self.generate(50).cpu().numpy(), 10).save(folder / f"{kimg:06d}.png")
        parts = {"G": self.G, "D": self.D, "ema": self.average, "opt_g": self.opt_g, "opt_d": self.opt_d}
        torch.save({name: part.state_dict() for name, part in parts.items()}, folder / f"{kimg:06d}.pt")
        (folder / f"{kimg - 2 * self.config.tick_kimg:06d}.pt").unlink(missing_ok=True)

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


Gaussian = tuple[Tensor, Tensor]
"""Mean (d,) and covariance (d,d) in float64, on the CPU."""


def real_statistics(evaluator: frechet.Evaluator, dataset: Dataset) -> Gaussian:
    return gaussian([evaluator.extractor(torch.from_numpy(b)) for b in np.array_split(dataset.train, 10)])


def gaussian(parts: list[Tensor]) -> Gaussian:
    vectors = torch.cat([part.cpu() for part in parts]).double()
    return vectors.mean(0), torch.cov(vectors.T)


def plain_fid(samples: Iterator[Tensor], evaluator: frechet.Evaluator, reals: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), by the eigenvalues of S1 S2."""
    mean, cov = gaussian([evaluator.extractor(images) for images in samples])
    if not (mean.isfinite().all() and cov.isfinite().all()):
        return math.nan
    root: Callable[[Tensor], Tensor] = torch.linalg.eigvals
    cross = root(reals[1] @ cov).real.clamp(min=0).sqrt().sum()
    return float((reals[0] - mean).square().sum() + reals[1].trace() + cov.trace() - 2 * cross)
