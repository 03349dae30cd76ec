"""The training loop of one GAN: alternating updates of D and G, with the state that they change.

Progress is counted in real images shown to D (`nimg`). At the start of every tick the random generator is
seeded from (seed, purpose, nimg), the reals come from a stream that can be entered at any position, and the
step's hyper-parameters are a function of nimg: a trainer restored at a tick continues exactly like one that
was never interrupted. A mid-tick checkpoint also holds the state of the random generator.

On a GPU a step becomes a CUDA graph after a few eager steps (`pipeline.training.cuda_graphs`,
GANSWEEP_CUDA_GRAPHS): the same kernels, and checkpoints that work either way. The precision of float32 is
torch's default: TF32 in cuDNN's convolutions, full float32 in matrix products.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.config import TrialConfig
from pipeline.data.dataset import Sampler, to_float
from pipeline.tables import PENALTIES
from pipeline.training.augmentation import diffaugment, next_augment_p
from pipeline.training.balance import (
    BalanceReading,
    MetricAccumulator,
    read_scores,
    scoring_mode,
    spread_ratio,
    update_controller,
)
from pipeline.training.cuda_graphs import graph_backend
from pipeline.training.events import OnEvent, log_event
from pipeline.training.graphed_step import (
    BackendFactory,
    GraphedStep,
    StepHyperparams,
    StepKind,
    step_hyperparams,
    step_kind,
)
from pipeline.training.losses import Penalty, gradient_penalty_from_logits, load_loss, penalty_inputs
from pipeline.training.networks.blocks import Ema, ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.casting import CastParameters
from pipeline.training.prefetch import Prefetcher, every_second_mirrored
from pipeline.training.sampling import draw_latents
from pipeline.training.schedules import StepSchedule, step_schedule
from pipeline.training.seeds import derive_seed
from pipeline.training.states import TrainerState
from pipeline.training.tensor_chunks import gradient_norm

_BALANCE_IMAGES = 512  # of each kind (held-out reals, training reals, fakes) per balance reading

MicroBatches = list[tuple[Tensor, Tensor | None]]
"""The reals of a step with their labels: the whole batch, or `grad_accum_steps` parts of it."""


class Trainer:
    """G, D, their optimizers and the moving average (EMA) of G.

    Args:
        images: uint8 (N,H,W,C), the training split; on the host where the device has no room for it.
        labels: int64 (N,) on the device, or None. classes: their number, 0 = unlabelled.
        device: to train on; None = where the images are.
        backend_factory: makes what captures steps; by default CUDA graphs on a GPU, and None on a CPU.
        on_event: receives one event if CUDA graphs have to be disabled.
    """

    def __init__(
        self,
        config: TrialConfig,
        images: Tensor,
        labels: Tensor | None,
        classes: int,
        device: torch.device | None = None,
        backend_factory: BackendFactory = graph_backend,
        on_event: OnEvent = log_event,
    ) -> None:
        self.config, self.images, self.labels = config, images, labels
        self.loss = load_loss(config.loss)
        if config.penalty != "none":
            self._penalty_at: Penalty = PENALTIES.load(config.penalty)
        self.device = torch.empty(0, device=device or images.device).device  # "cuda" is "cuda:0" from here on
        self.shape = ImageShape(images.shape[1], images.shape[3], classes)
        torch.manual_seed(derive_seed(config.seed, "init"))
        generator, discriminator = build_networks(config, self.shape)
        # One call of `to` each: the fake device of tests/training/test_devices.py allows no second one.
        self.G = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.D = discriminator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Ema(self.G, config.ema_halflife_kimg)
        betas = (config.beta1, config.beta2)
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=config.lr_g, betas=betas, fused=True)
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=config.lr_d, betas=betas, fused=True)
        items = 2 * len(images) if config.mirror else len(images)  # N + i is image i, mirrored
        self.sampler = Sampler(items, derive_seed(config.seed, "reals"))
        self.rng = torch.Generator(self.device)
        self.metrics = MetricAccumulator(self.device)
        self.nimg = self.d_steps = 0
        self.control = self.ada_p = 0.0  # of the balance controller and of ADA
        self.grad_accum_steps = 1  # more where memory is short
        self._mid_tick = False  # whether the next call of `advance` continues a tick
        self._d_inputs = list(self.D.parameters())  # no loss needs its gradient in a penalty's images
        # With batch norm, reals and fakes need separate passes: each has its own batch statistics.
        self._concat_real_fake = config.norm_d != "batch"
        self._autocast = functools.partial(
            torch.autocast, self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
        )
        self._forward_g, self._forward_d = (
            CastParameters(net, config.precision == "bfloat16") for net in (self.G, self.D)
        )
        backend = backend_factory(self.device, lambda: self.rng)
        self._prefetcher = Prefetcher(images, labels, self.sampler, config.batch_size, self.device)
        self._graphed_step = GraphedStep(self, self._prefetcher, backend, on_event) if backend else None

    def advance(self, until_kimg: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Train until D has seen `until_kimg` thousand reals, or until `should_stop`, asked before each step.

        After a stop the next call continues within the same tick.
        """
        batch = self.config.batch_size
        if not self._mid_tick:
            self.rng.manual_seed(derive_seed(self.config.seed, "steps", self.nimg))
        self._mid_tick = False
        if self._graphed_step is not None:
            self._graphed_step.prepare_optimizers()
        while self.nimg < until_kimg * 1000 and not should_stop():
            # nimg advances even if an update is skipped.
            schedule, position = self._apply_schedule(), self.nimg
            self.nimg += batch
            kind = step_kind(self.config, schedule, self.nimg, self.d_steps, self.grad_accum_steps)
            hyperparams = step_hyperparams(self.config, schedule)
            self._prefetcher.load(position)
            if self._graphed_step is not None:
                self._graphed_step.run(kind, hyperparams, self._train_step)
            else:
                self._train_step(kind, hyperparams, self._prefetcher.reals(), self._prefetcher.labels)
            self.d_steps += kind.updates_d

            if kind.g_is_due:
                self.ema.update(batch * self.config.n_critic, self.nimg)
        self._mid_tick = self.nimg < until_kimg * 1000

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether steps are replayed as CUDA graphs after the first few of their kind."""
        return self._graphed_step is not None and not self._graphed_step.graphs.disabled

    def _train_step(
        self, kind: StepKind, hyperparams: StepHyperparams, real: Tensor, labels: Tensor | None
    ) -> None:
        """One step on reals (N,C,H,W): D's update, then G's; either may be skipped."""
        for forward in (self._forward_g, self._forward_d):
            forward.begin(graphed=hyperparams.is_graphed)
        batches = self._micro_batches(real, labels, hyperparams.augment_p)
        fake = self._update_d(kind, hyperparams, batches) if kind.updates_d else None
        if kind.updates_g:
            self._update_g(hyperparams, batches, fake)
        for forward in (self._forward_g, self._forward_d):
            forward.end()

    def _update_d(self, kind: StepKind, hyperparams: StepHyperparams, batches: MicroBatches) -> Tensor | None:
        """Update D. Returns the fakes that it was shown where G's update is to use the same ones."""
        reuse_fakes = kind.updates_g and self.grad_accum_steps == 1
        at_real, at_fake = penalty_inputs(self.config.penalty) if kind.has_penalty else (False, False)
        self.D.requires_grad_(True)
        self.opt_d.zero_grad(set_to_none=True)
        self._forward_d.refresh()
        with torch.set_grad_enabled(reuse_fakes):
            self._forward_g.refresh()
        for real, labels in batches:
            # The fakes have the labels of the reals: a pair of both, or a mix, has one label.
            with torch.set_grad_enabled(reuse_fakes), self._autocast():
                generated = self._forward_g(self._noise(len(real)), labels)
            fake = diffaugment(generated.detach().float(), hyperparams.augment_p, self.rng)
            real, fake = real.requires_grad_(at_real), fake.requires_grad_(at_fake)
            with self._autocast():
                logits, reconstruction = self._judge(real, fake, labels)
            loss_d = self.loss.d(*logits.float().chunk(2))
            total = loss_d if reconstruction is None else loss_d + reconstruction

            # Lazy regularization (Karras et al. 2020): every k-th step with k times the weight.
            if kind.has_penalty:
                penalty = self._penalty(real, fake, labels, logits)
                total = total + hyperparams.penalty * penalty
                self.metrics.add("penalty", penalty)
            torch.autograd.backward(_scaled(total, len(batches)), inputs=self._d_inputs)
            self.metrics.add("loss_d", loss_d, logits.detach().float().sign().view(2, -1).mean(1))
        hyperparams.step(self.opt_d, hyperparams.lr_d)
        self.metrics.add("grad_norm_d", gradient_norm(self.D))
        return generated if reuse_fakes else None

    def _update_g(self, hyperparams: StepHyperparams, batches: MicroBatches, fakes: Tensor | None) -> None:
        """Update G through a frozen D, from `fakes` or, where None, from newly generated ones."""
        self.D.requires_grad_(False)
        self.opt_g.zero_grad(set_to_none=True)
        self._forward_d.refresh()
        if fakes is None:
            self._forward_g.refresh()
        for real, labels in batches:
            with self._autocast():
                fake = self._forward_g(self._noise(len(real)), labels) if fakes is None else fakes
                logits_fake = self._forward_d(diffaugment(fake, hyperparams.augment_p, self.rng), labels)
                logits_real = logits_fake
                if self.loss.relative:
                    with torch.no_grad():
                        logits_real = self._forward_d(real, labels)
            loss_g = self.loss.g(logits_real.detach().float(), logits_fake.float())
            torch.autograd.backward(_scaled(loss_g, len(batches)))
            self.metrics.add("loss_g", loss_g)
        hyperparams.step(self.opt_g, hyperparams.lr_g)
        self.metrics.add("grad_norm_g", gradient_norm(self.G))

    def adapt(self, reading: BalanceReading) -> None:
        """Set the balance controller and ADA's probability for the next tick from this tick's reading."""
        config = self.config
        if config.controller != "none" and self.nimg > config.d_warmup_kimg * 1000:
            self.control = update_controller(self.control, reading.auc, config.auc_low, config.auc_high)
        if config.augment == "ada":
            step = config.tick_kimg / config.augment_kimg
            self.ada_p = next_augment_p(
                self.ada_p, reading.overfit, config.augment_target, step, config.augment_p
            )

    def adaptive_settings(self) -> dict[str, float]:
        """What `adapt` has set; the names are those of `TrialRecord`."""
        return {"augment_p": self._schedule().augment_p, "control": self.control}

    def read_balance(self, held: Tensor, held_labels: Tensor | None) -> BalanceReading:
        """Measure D on held-out reals uint8 (M,H,W,C), as many training reals, and fakes of the raw G.

        With `mirror` every second real of both kinds is mirrored: D and G are judged on what they train on,
        and nothing but the split tells the two kinds apart.
        """
        count = min(_BALANCE_IMAGES, len(held))
        rng = torch.Generator(self.device).manual_seed(derive_seed(self.config.seed, "balance", self.nimg))
        z, fake_labels = draw_latents(self.G, count, rng, self.labels)
        rows = torch.randint(len(self.images), (count,), generator=rng, device=self.device)
        train = self.images[rows.to(self.images.device)]
        train_labels = None if self.labels is None else self.labels[rows]
        held = held[:count].to(self.device)  # they may lie on the host, as the images may
        held_labels = None if held_labels is None else held_labels[:count]
        if self.config.mirror:
            train, held = every_second_mirrored(train), every_second_mirrored(held)
        with scoring_mode(self.G, self.D):
            fake, real = self.G(z, fake_labels), to_float(held)
            return read_scores(
                self.D(real, held_labels),
                self.D(to_float(train.to(self.device)), train_labels),
                self.D(fake, fake_labels),
                spread_ratio(fake, real),
            )

    def state_dict(self, mid_tick: bool = False) -> TrainerState:
        """Everything that training changes. mid_tick: also what changes within a tick."""
        state: TrainerState = {
            "nimg": self.nimg,
            "d_steps": self.d_steps,
            "control": self.control,
            "ada_p": self.ada_p,
            "pieces": self.grad_accum_steps,
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "ema": self.ema.generator.state_dict(),
            "opt_g": self.opt_g.state_dict(),
            "opt_d": self.opt_d.state_dict(),
        }
        if mid_tick:
            state["rng"], state["tally"] = self.rng.get_state(), self.metrics.state_dict()
        return state

    def load_state_dict(self, state: TrainerState) -> None:
        """Continue from the result of `state_dict` as if there had been no interruption."""
        self.nimg, self.d_steps = state["nimg"], state["d_steps"]
        self.control, self.ada_p = state.get("control", 0.0), state.get("ada_p", 0.0)
        self.grad_accum_steps = state.get("pieces", 1)
        self.G.load_state_dict(state["G"])
        self.D.load_state_dict(state["D"])
        self.ema.generator.load_state_dict(state["ema"])
        self.opt_g.load_state_dict(state["opt_g"])
        self.opt_d.load_state_dict(state["opt_d"])
        self.drop_graphs()
        self._mid_tick = False
        if "tally" in state:
            self.metrics.load_state_dict(state["tally"])
            # The generators of a CPU and of a GPU have states of different lengths.
            self._mid_tick = len(state["rng"]) == len(self.rng.get_state())
            if self._mid_tick:
                self.rng.set_state(state["rng"])

    def drop_graphs(self) -> None:
        """Free the CUDA graphs, which hold most of a GPU's memory; later steps are captured again."""
        if self._graphed_step is not None:
            self._graphed_step.graphs.clear()

    def _schedule(self) -> StepSchedule:
        return step_schedule(self.config, self.nimg, self.control, self.ada_p)

    def _apply_schedule(self) -> StepSchedule:
        """Set the optimizers and the average for the next step; the caller applies the rest."""
        schedule = self._schedule()
        for optimizer, lr in ((self.opt_g, schedule.lr_g), (self.opt_d, schedule.lr_d)):
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = lr, (self.config.beta1, schedule.beta2)
        self.ema.halflife_nimg = schedule.ema_halflife_nimg
        return schedule

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.config.z_dim, generator=self.rng, device=self.device)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.rng, device=self.device)

    def _micro_batches(self, real: Tensor, labels: Tensor | None, p: float | Tensor) -> MicroBatches:
        """The reals, augmented with probability p, with their labels, in `grad_accum_steps` parts."""
        real = diffaugment(real, p, self.rng)
        if self.grad_accum_steps == 1:
            return [(real, labels)]
        parts = real.chunk(self.grad_accum_steps)
        label_parts = [None] * len(parts) if labels is None else labels.chunk(self.grad_accum_steps)
        return list(zip(parts, label_parts, strict=True))

    def _judge(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """D's logits (2N,), of reals, then of fakes; its error of reconstructing the reals, or None."""
        draws = (self._uniform(len(real), 2),) if self.D.reconstructs else ()
        # Separate passes for batch norm, or where the penalty needs gradients at one kind only.
        if not self._concat_real_fake or real.requires_grad != fake.requires_grad:
            judged, of_fake = self._forward_d(real, labels, *draws), self._forward_d(fake, labels)
            of_real, error = judged if draws else (judged, None)
            return torch.cat([of_real, of_fake]), error
        both = None if labels is None else torch.cat([labels, labels])
        judged = self._forward_d(torch.cat([real, fake]), both, *draws)
        return judged if draws else (judged, None)

    def _penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None, logits: Tensor) -> Tensor:
        """The gradient penalty: from the pass that gave `logits` where possible, else from another one."""
        inputs = [images for images in (real, fake) if images.requires_grad]
        if inputs:
            return gradient_penalty_from_logits(logits, inputs)
        self._forward_d.refresh()  # gradients of the two passes are added in float32
        with self._autocast():
            mix = self._uniform(*real.shape)
            return self._penalty_at(lambda images: self._forward_d(images, labels), real, fake, mix)


def _scaled(loss: Tensor, micro_batches: int) -> Tensor:
    """What one micro-batch adds to the loss of its batch."""
    return loss if micro_batches == 1 else loss / micro_batches
