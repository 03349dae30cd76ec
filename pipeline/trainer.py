"""The alternating game of G and D.

Owns: one long function, `Trainer.advance`, and the state it moves. Refuses: FID, files, Ray, MLflow.

Progress counts real images shown to D (nimg). Randomness is drawn anew from (seed, purpose, nimg) at the
start of every advance, the reals come from an index-restartable stream and rates are a function of nimg,
so a trainer restored at a tick goes on exactly as one that was never interrupted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.augment import adapt, diffaugment
from pipeline.balance import Reading, Tally, as_played, read, spread_ratio, steer
from pipeline.config import TrialConfig
from pipeline.data import Sampler, to_float
from pipeline.losses import JUDGED, LOSSES, PENALTIES, judged_slope
from pipeline.networks import Ema, ImageShape, build
from pipeline.schedules import Pace, pace

_PURPOSES = {"init": 0, "reals": 1, "game": 2, "reading": 3}
_READ_IMAGES = 512  # of each kind, at each reading of the balance


class Trainer:
    """G, D, their optimizers and G's average, trained on images that lie on the device.

    Args:
        config: the trial's hyper-parameters.
        images: uint8 (N,H,W,C), the training split; on the host where the device has no room for it.
        labels: int64 (N,) on the device, or None.
        classes: number of classes, 0 = unlabelled.
        device: to train on; None = where the images are.
    """

    def __init__(
        self,
        config: TrialConfig,
        images: Tensor,
        labels: Tensor | None,
        classes: int,
        device: torch.device | None = None,
    ) -> None:
        self.config, self.images, self.labels = config, images, labels
        self.device = device or images.device
        self.shape = ImageShape(images.shape[1], images.shape[3], classes)
        torch.manual_seed(derive_seed(config.seed, "init"))
        generator, discriminator = build(config, self.shape)
        self.G = generator.to(self.device).to(memory_format=torch.channels_last)
        self.D = discriminator.to(self.device).to(memory_format=torch.channels_last)
        self.ema = Ema(self.G, config.ema_halflife_kimg)
        betas = (config.beta1, config.beta2)
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=config.lr_g, betas=betas, fused=True)
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=config.lr_d, betas=betas, fused=True)
        self.sampler = Sampler(len(images), derive_seed(config.seed, "reals"))
        self.rng = torch.Generator(self.device)
        self.tally = Tally(self.device)
        self.nimg = 0
        self.d_steps = 0
        self.control = 0.0  # of the balance controller
        self.ada_p = 0.0
        self.pieces = 1  # in which a batch goes through the networks: more where memory is short
        self._together = config.norm_d != "batch"  # else reals and fakes have batch statistics of their own
        self._autocast = functools.partial(
            torch.autocast, self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
        )

    def advance(self, until_kimg: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Train until D has seen `until_kimg` thousand reals, or until told to stop."""
        config, loss = self.config, LOSSES[self.config.loss]
        batch = config.batch_size
        self.rng.manual_seed(derive_seed(config.seed, "game", self.nimg))

        while self.nimg < until_kimg * 1000 and not should_stop():
            # Draw reals; fakes get their classes: a pair, or a mix, has one label.
            now = self._set_pace()
            shown = self._shown(now.augment_p)
            self.nimg += batch
            g_plays = self._is_turn_of_g() and not now.skip_g

            # Leave D as it is where it is winning and held back; the clock goes on.
            if not now.skip_d:
                self.D.requires_grad_(True)
                self.opt_d.zero_grad(set_to_none=True)
                penalised = config.penalty != "none" and now.gamma > 0
                due = penalised and self.d_steps % config.penalty_interval == 0
                at_real, at_fake = JUDGED.get(config.penalty, (False, False)) if due else (False, False)
                for real, labels in shown:
                    # Show D the reals and as many fakes; G, if it plays next, learns from the same ones.
                    with torch.set_grad_enabled(g_plays and self.pieces == 1), self._autocast():
                        drawn = self.G(self._noise(len(real), self.rng), labels)
                    fake = diffaugment(drawn.detach().float(), now.augment_p, self.rng)
                    real, fake = real.requires_grad_(at_real), fake.requires_grad_(at_fake)
                    with self._autocast():
                        scores_real, scores_fake = self._judge(real, fake, labels)
                    loss_d = loss.d(scores_real.float(), scores_fake.float())
                    total = loss_d

                    # Keep D smooth where it looks: every k-th step with k times the weight.
                    if due:
                        slope = self._slope(real, fake, labels, torch.cat([scores_real, scores_fake]))
                        total = loss_d + now.gamma * config.penalty_interval * slope
                        self.tally.add("penalty", slope)
                    torch.autograd.backward(total / len(shown))
                    self.tally.add("loss_d", loss_d)
                    self.tally.add("sign_real", scores_real.sign().mean())
                    self.tally.add("sign_fake", scores_fake.sign().mean())

                # Update D.
                self.opt_d.step()
                self.d_steps += 1
                self.tally.add("grad_norm_d", gradient_norm(self.D))

            # Let D learn alone first, and n_critic times as often.
            if not self._is_turn_of_g():
                continue

            # Update G through a D that stands still; leave G as it is where it is held back.
            if not now.skip_g:
                self.D.requires_grad_(False)
                self.opt_g.zero_grad(set_to_none=True)
                for real, labels in shown:
                    with self._autocast():
                        if now.skip_d or self.pieces > 1:
                            drawn = self.G(self._noise(len(real), self.rng), labels)
                        scores_fake = self.D(diffaugment(drawn, now.augment_p, self.rng), labels)
                        scores_real = self._judge_reals(real, labels) if loss.relative else scores_fake
                    loss_g = loss.g(scores_real.detach().float(), scores_fake.float())
                    torch.autograd.backward(loss_g / len(shown))
                    self.tally.add("loss_g", loss_g)
                self.opt_g.step()
                self.tally.add("grad_norm_g", gradient_norm(self.G))

            # Average G.
            self.ema.update(batch * config.n_critic, self.nimg)

    def react(self, reading: Reading) -> None:
        """Answer a tick's reading for the next tick: steer the controller, move ADA's probability."""
        config = self.config
        if config.controller != "none" and self.nimg > config.d_warmup_kimg * 1000:
            self.control = steer(self.control, reading.auc, config.auc_low, config.auc_high)
        if config.augment == "ada":
            step = config.tick_kimg / config.augment_kimg
            self.ada_p = adapt(self.ada_p, reading.overfit, config.augment_target, step, config.augment_p)

    def settings(self) -> dict[str, float]:
        """What answers to readings, as it is now; the names are those of `TrialRecord`."""
        return {"augment_p": self._pace().augment_p, "control": self.control}

    def read_balance(self, held: Tensor, held_labels: Tensor | None) -> Reading:
        """Measure D against the raw G: held-out reals uint8 (M,H,W,C), as many training reals and fakes."""
        count = min(_READ_IMAGES, len(held))
        rng = torch.Generator(self.device).manual_seed(derive_seed(self.config.seed, "reading", self.nimg))
        z, fake_labels = self.latents(count, rng)
        rows = torch.randint(len(self.images), (count,), generator=rng, device=self.device)
        train_labels = None if self.labels is None else self.labels[rows]
        held, held_labels = held[:count], None if held_labels is None else held_labels[:count]
        with as_played(self.G, self.D):
            fake, real = self.G(z, fake_labels), to_float(held)
            return read(
                self.D(real, held_labels),
                self.D(self._pick(rows), train_labels),
                self.D(fake, fake_labels),
                spread_ratio(fake, real),
            )

    def latents(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw z (count, Z) ~ N(0, I) and, for a conditional G, labels as frequent as in the data."""
        z = self._noise(count, rng)
        if not self.G.classes or self.labels is None:
            return z, None
        rows = torch.randint(len(self.labels), (count,), generator=rng, device=self.device)
        return z, self.labels[rows]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "nimg": self.nimg,
            "d_steps": self.d_steps,
            "control": self.control,
            "ada_p": self.ada_p,
            "pieces": self.pieces,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.nimg, self.d_steps = state["nimg"], state["d_steps"]
        self.control, self.ada_p = state.get("control", 0.0), state.get("ada_p", 0.0)  # older: without
        self.pieces = state.get("pieces", 1)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "G": self.G,
            "D": self.D,
            "ema": self.ema.generator,
            "opt_g": self.opt_g,
            "opt_d": self.opt_d,
        }

    def _pace(self) -> Pace:
        return pace(self.config, self.nimg, self.control, self.ada_p)

    def _set_pace(self) -> Pace:
        """Set the optimizers and the average to the present pace; the rest of it is for the loop."""
        now = self._pace()
        for optimizer, lr in ((self.opt_g, now.lr_g), (self.opt_d, now.lr_d)):
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = lr, (self.config.beta1, now.beta2)
        self.ema.halflife_nimg = now.ema_halflife_nimg
        return now

    def _noise(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, self.config.z_dim, generator=rng, device=self.device)

    def _reals(self, count: int) -> tuple[Tensor, Tensor | None]:
        rows = torch.from_numpy(self.sampler.take(self.nimg, count))
        return self._pick(rows), None if self.labels is None else self.labels[self._here(rows)]

    def _pick(self, rows: Tensor) -> Tensor:
        """The training images of these rows, on the device: float32 (n,C,H,W)."""
        if self.images.device == self.device:
            return to_float(self.images[self._here(rows)])
        return to_float(self._here(self.images[rows.cpu()].pin_memory()))

    def _here(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)

    def _shown(self, augment_p: float) -> list[tuple[Tensor, Tensor | None]]:
        """The next batch of reals as D sees them, with their labels, in `pieces` parts."""
        real, labels = self._reals(self.config.batch_size)
        real = diffaugment(real, augment_p, self.rng)
        if self.pieces == 1:
            return [(real, labels)]
        parts = real.chunk(self.pieces)
        return list(
            zip(parts, [None] * len(parts) if labels is None else labels.chunk(self.pieces), strict=True)
        )

    def _is_turn_of_g(self) -> bool:
        config = self.config
        warm = self.nimg > config.d_warmup_kimg * 1000
        return warm and self.nimg // config.batch_size % config.n_critic == 0

    def _judge(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        # In one pass, unless each has batch statistics of its own, or a slope is wanted of one kind only.
        if not self._together or real.requires_grad != fake.requires_grad:
            return self.D(real, labels), self.D(fake, labels)
        both = None if labels is None else torch.cat([labels, labels])
        scores = self.D(torch.cat([real, fake]), both)
        return scores[: len(real)], scores[len(real) :]

    def _judge_reals(self, real: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.D(real, labels)
            return scores

    def _slope(self, real: Tensor, fake: Tensor, labels: Tensor | None, scores: Tensor) -> Tensor:
        """The penalty: from D's own pass where it is taken at what D has judged, else from another pass."""
        judged = [images for images in (real, fake) if images.requires_grad]
        if judged:
            return judged_slope(scores, judged)
        mix = torch.rand(real.shape, generator=self.rng, device=self.device)
        with self._autocast():
            return PENALTIES[self.config.penalty](lambda images: self.D(images, labels), real, fake, mix)


def derive_seed(seed: int, purpose: str, position: int = 0) -> int:
    """One of 2^63 seeds from a trial's seed, what it is for, and how far the trial is."""
    words = np.random.SeedSequence((seed, _PURPOSES[purpose], position)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) | (int(words[1]) >> 1)


def gradient_norm(network: nn.Module) -> Tensor:
    """L2 norm of the network's present gradient: a scalar on its device."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm
