"""The alternating game of G and D.

Owns: the loop, `Trainer.advance`, its step, and the state they move. Refuses: FID, files, Ray, MLflow.

Progress counts real images shown to D (nimg). Randomness is drawn anew from (seed, purpose, nimg) at the
start of every advance, the reals come from an index-restartable stream and rates are a function of nimg,
so a trainer restored at a tick goes on exactly as one that was never interrupted; within one it takes its
dice along.

On a GPU a step becomes a CUDA graph after a few turns (`pipeline.training.cuda_graphs`, GANSWEEP_CUDA_GRAPHS): the same
kernels, and states that either way of training can take over. float32 stays torch's: TF32 in convolutions, as
cuDNN has it by default, and not in other products of matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import TrialConfig
from pipeline.data.dataset import Sampler, to_float
from pipeline.training.augmentation import diffaugment, next_augment_p
from pipeline.training.balance import (
    BalanceReading,
    MetricAccumulator,
    as_displayed_scores,
    read_scores,
    spread_ratio,
    update_controller,
)
from pipeline.training.cuda_graphs import recorder_for
from pipeline.training.events import OnEvent, log_event
from pipeline.training.graphed_step import (
    GraphedStep,
    Recording,
    StepHyperparams,
    StepKind,
    step_hyperparams,
    step_kind,
)
from pipeline.training.losses import LOSSES, PENALTIES, PENALTY_INPUTS, gradient_penalty_from_logits
from pipeline.training.networks.blocks import Ema, ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.casting import CastParameters
from pipeline.training.prefetch import Prefetcher
from pipeline.training.schedules import StepSchedule, step_schedule
from pipeline.training.seeds import derive_seed
from pipeline.training.tensor_chunks import in_chunks

_READ_IMAGES = 512  # of each kind, at each reading of the balance

Shown = list[tuple[Tensor, Tensor | None]]
"""What D sees of the reals in a step, with their labels: the batch, or pieces of it."""


class Trainer:
    """G, D, their optimizers and G's average, trained on images that lie on the device.

    Args:
        config: the trial's hyper-parameters.
        images: uint8 (N,H,W,C), the training split; on the host where the device has no room for it.
        labels: int64 (N,) on the device, or None.
        classes: number of classes, 0 = unlabelled.
        device: to train on; None = where the images are.
        recording: makes what records steps; by default CUDA graphs on a GPU, and nothing on a CPU.
        on_event: hears, once, why steps are not recorded.
    """

    def __init__(
        self,
        config: TrialConfig,
        images: Tensor,
        labels: Tensor | None,
        classes: int,
        device: torch.device | None = None,
        recording: Recording = recorder_for,
        on_event: OnEvent = log_event,
    ) -> None:
        self.config, self.images, self.labels = config, images, labels
        self.device = torch.empty(0, device=device or images.device).device  # "cuda" is "cuda:0" from here on
        self.shape = ImageShape(images.shape[1], images.shape[3], classes)
        torch.manual_seed(derive_seed(config.seed, "init"))
        generator, discriminator = build_networks(config, self.shape)
        # In one move each: a pretended device (tests/test_devices.py) allows no second one.
        self.G = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.D = discriminator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Ema(self.G, config.ema_halflife_kimg)
        betas = (config.beta1, config.beta2)
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=config.lr_g, betas=betas, fused=True)
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=config.lr_d, betas=betas, fused=True)
        self.sampler = Sampler(len(images), derive_seed(config.seed, "reals"))
        self.rng = torch.Generator(self.device)
        self.tally = MetricAccumulator(self.device)
        self.nimg = 0
        self.d_steps = 0
        self.control = 0.0  # of the balance controller
        self.ada_p = 0.0
        self.pieces = 1  # in which a batch goes through the networks: more where memory is short
        self._midway = False  # the next advance goes on within a tick
        # Weights alone: nobody wants a loss's gradient by a penalty's images. On a CPU `strided` would
        # compute what autograd's `inputs` leave out.
        self._d_inputs = list(self.D.parameters()) if self.device.type == "cuda" else None
        self._together = config.norm_d != "batch"  # else reals and fakes have batch statistics of their own
        self._autocast = functools.partial(
            torch.autocast, self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
        )
        self._pass_g, self._pass_d = (
            CastParameters(net, config.precision == "bfloat16") for net in (self.G, self.D)
        )
        recorder = recording(self.device, lambda: self.rng)
        fed = self.device.type == "cuda" or recorder is not None  # else images are fetched when wanted
        self._feed = Prefetcher(images, labels, self.sampler, config.batch_size, self.device) if fed else None
        self._recorded: GraphedStep | None = None
        if self._feed and recorder:
            self._recorded = GraphedStep(self, self._feed, recorder, on_event)

    def advance(self, until_kimg: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Train until D has seen `until_kimg` thousand reals, or until told to stop: then go on next time."""
        batch = self.config.batch_size
        if not self._midway:
            self.rng.manual_seed(derive_seed(self.config.seed, "game", self.nimg))
        self._midway = False

        if self._recorded is not None:
            self._recorded.start()

        while self.nimg < until_kimg * 1000 and not should_stop():
            # The clock goes on whoever plays.
            now, position = self._set_pace(), self.nimg
            self.nimg += batch
            turn = step_kind(self.config, now, self.nimg, self.d_steps, self.pieces)
            rates = step_hyperparams(self.config, now)
            if self._recorded is not None:
                self._recorded.take(turn, rates, self._play, position)
            else:
                self._play(turn, rates, *self._reals(position))
            self.d_steps += turn.d_plays

            # Average G.
            if turn.g_is_due:
                self.ema.update(batch * self.config.n_critic, self.nimg)
        self._midway = self.nimg < until_kimg * 1000

    @property
    def records_steps(self) -> bool:
        """Whether steps are replayed after the first few of their kind."""
        return self._recorded is not None and not self._recorded.replays.given_up

    def _play(self, turn: StepKind, rates: StepHyperparams, real: Tensor, labels: Tensor | None) -> None:
        """One step of the game on reals (N,C,H,W): D's update, then G's; either may sit out."""
        for each in (self._pass_g, self._pass_d):
            each.begin(at_once=rates.recorded)
        shown = self._shown(real, labels, rates)
        drawn = self._update_d(turn, rates, shown) if turn.d_plays else None
        if turn.g_plays:
            self._update_g(rates, shown, drawn)
        for each in (self._pass_g, self._pass_d):
            each.end()

    def _update_d(self, turn: StepKind, rates: StepHyperparams, shown: Shown) -> Tensor | None:
        """D learns to tell. Returns the fakes that it was shown, if G is to learn from the same ones."""
        config, loss = self.config, LOSSES[self.config.loss]
        together = turn.g_plays and self.pieces == 1
        at_real, at_fake = PENALTY_INPUTS.get(config.penalty, (False, False)) if turn.due else (False, False)
        self.D.requires_grad_(True)
        self.opt_d.zero_grad(set_to_none=True)
        self._pass_d.renew()
        with torch.set_grad_enabled(together):
            self._pass_g.renew()
        for real, labels in shown:
            # Show D the reals and as many fakes: a pair, or a mix, has one label.
            with torch.set_grad_enabled(together), self._autocast():
                drawn = self._pass_g(self._noise(len(real), self.rng), labels)
            fake = diffaugment(drawn.detach().float(), rates.augment_p, self.rng)
            real, fake = real.requires_grad_(at_real), fake.requires_grad_(at_fake)
            with self._autocast():
                scores = self._judge(real, fake, labels)
            loss_d = loss.d(*scores.float().chunk(2))
            total = loss_d

            # Keep D smooth where it looks: every k-th step with k times the weight.
            if turn.due:
                slope = self._slope(real, fake, labels, scores)
                total = loss_d + rates.penalty * slope
                self.tally.add("penalty", slope)
            torch.autograd.backward(_share(total, len(shown)), inputs=self._d_inputs)
            self.tally.add("loss_d", loss_d, scores.detach().float().sign().view(2, -1).mean(1))
        rates.step(self.opt_d, rates.lr_d)
        self.tally.add("grad_norm_d", gradient_norm(self.D))
        return drawn if together else None

    def _update_g(self, rates: StepHyperparams, shown: Shown, drawn: Tensor | None) -> None:
        """G learns through a D that stands still, from the fakes `drawn` or, without them, from its own."""
        loss = LOSSES[self.config.loss]
        self.D.requires_grad_(False)
        self.opt_g.zero_grad(set_to_none=True)
        self._pass_d.renew()
        if drawn is None:
            self._pass_g.renew()
        for real, labels in shown:
            with self._autocast():
                fake = self._pass_g(self._noise(len(real), self.rng), labels) if drawn is None else drawn
                scores_fake = self._pass_d(diffaugment(fake, rates.augment_p, self.rng), labels)
                scores_real = self._judge_reals(real, labels) if loss.relative else scores_fake
            loss_g = loss.g(scores_real.detach().float(), scores_fake.float())
            torch.autograd.backward(_share(loss_g, len(shown)))
            self.tally.add("loss_g", loss_g)
        rates.step(self.opt_g, rates.lr_g)
        self.tally.add("grad_norm_g", gradient_norm(self.G))

    def react(self, reading: BalanceReading) -> None:
        """Answer a tick's reading for the next tick: steer the controller, move ADA's probability."""
        config = self.config
        if config.controller != "none" and self.nimg > config.d_warmup_kimg * 1000:
            self.control = update_controller(self.control, reading.auc, config.auc_low, config.auc_high)
        if config.augment == "ada":
            step = config.tick_kimg / config.augment_kimg
            self.ada_p = next_augment_p(
                self.ada_p, reading.overfit, config.augment_target, step, config.augment_p
            )

    def settings(self) -> dict[str, float]:
        """What answers to readings, as it is now; the names are those of `TrialRecord`."""
        return {"augment_p": self._pace().augment_p, "control": self.control}

    def read_balance(self, held: Tensor, held_labels: Tensor | None) -> BalanceReading:
        """Measure D against the raw G: held-out reals uint8 (M,H,W,C), as many training reals and fakes."""
        count = min(_READ_IMAGES, len(held))
        rng = torch.Generator(self.device).manual_seed(derive_seed(self.config.seed, "reading", self.nimg))
        z, fake_labels = self.latents(count, rng)
        rows = torch.randint(len(self.images), (count,), generator=rng, device=self.device)
        train = self.images[rows.to(self.images.device)]
        train_labels = None if self.labels is None else self.labels[rows]
        held, held_labels = held[:count], None if held_labels is None else held_labels[:count]
        with as_displayed_scores(self.G, self.D):
            fake, real = self.G(z, fake_labels), to_float(held)
            return read_scores(
                self.D(real, held_labels),
                self.D(to_float(train.to(self.device)), train_labels),
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

    def state_dict(self, midway: bool = False) -> dict[str, Any]:
        """Everything that a later `load_state_dict` needs to go on as if nothing had happened.

        midway: within a tick, whose dice go on to fall where they would have, and whose means have begun.
        """
        begun = {"rng": self.rng.get_state(), "tally": self.tally.state_dict()} if midway else {}
        return {
            **begun,
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
        self.release()
        self._midway = False
        if "tally" in state:
            self.tally.load_state_dict(state["tally"])
            # The dice of another kind of device are of no use here.
            self._midway = len(state["rng"]) == len(self.rng.get_state())
            if self._midway:
                self.rng.set_state(state["rng"])

    def release(self) -> None:
        """Drop the recorded steps, which hold most of a GPU's memory; a later step is recorded anew."""
        if self._recorded is not None:
            self._recorded.replays.forget()

    def _parts(self) -> dict[str, Any]:
        return {
            "G": self.G,
            "D": self.D,
            "ema": self.ema.generator,
            "opt_g": self.opt_g,
            "opt_d": self.opt_d,
        }

    def _pace(self) -> StepSchedule:
        return step_schedule(self.config, self.nimg, self.control, self.ada_p)

    def _set_pace(self) -> StepSchedule:
        """Set the optimizers and the average to the present pace; the rest of it is for the loop."""
        now = self._pace()
        for optimizer, lr in ((self.opt_g, now.lr_g), (self.opt_d, now.lr_d)):
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = lr, (self.config.beta1, now.beta2)
        self.ema.halflife_nimg = now.ema_halflife_nimg
        return now

    def _noise(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, self.config.z_dim, generator=rng, device=self.device)

    def _reals(self, position: int) -> tuple[Tensor, Tensor | None]:
        """The batch at `position` of the stream, float32 (N,C,H,W), and its labels."""
        if self._feed is not None:
            self._feed.load(position)
            return self._feed.reals(), self._feed.labels
        rows = torch.from_numpy(self.sampler.take(position, self.config.batch_size))
        return to_float(self.images[rows]), None if self.labels is None else self.labels[rows]

    def _shown(self, real: Tensor, labels: Tensor | None, rates: StepHyperparams) -> Shown:
        """The reals as D sees them, with their labels, in `pieces` parts."""
        real = diffaugment(real, rates.augment_p, self.rng)
        if self.pieces == 1:
            return [(real, labels)]
        parts = real.chunk(self.pieces)
        return list(
            zip(parts, [None] * len(parts) if labels is None else labels.chunk(self.pieces), strict=True)
        )

    def _judge(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """Scores (2N,) of reals, then of fakes."""
        # In one pass, unless each has batch statistics of its own, or a slope is wanted of one kind only.
        if not self._together or real.requires_grad != fake.requires_grad:
            return torch.cat([self._pass_d(real, labels), self._pass_d(fake, labels)])
        both = None if labels is None else torch.cat([labels, labels])
        return self._pass_d(torch.cat([real, fake]), both)

    def _judge_reals(self, real: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad():
            return self._pass_d(real, labels)

    def _slope(self, real: Tensor, fake: Tensor, labels: Tensor | None, scores: Tensor) -> Tensor:
        """The penalty: from D's own pass where it is taken at what D has judged, else from another pass."""
        judged = [images for images in (real, fake) if images.requires_grad]
        if judged:
            return gradient_penalty_from_logits(scores, judged)
        mix = torch.rand(real.shape, generator=self.rng, device=self.device)
        self._pass_d.renew()  # gradients of the two passes are added in float32
        with self._autocast():
            return PENALTIES[self.config.penalty](
                lambda images: self._pass_d(images, labels), real, fake, mix
            )


def _share(loss: Tensor, parts: int) -> Tensor:
    """What one part of a batch adds to the batch's loss."""
    return loss if parts == 1 else loss / parts


def gradient_norm(network: nn.Module) -> Tensor:
    """L2 norm of the network's present gradient: a scalar on its device."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    (pieces,) = in_chunks(gradients)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(pieces)))
    return norm
