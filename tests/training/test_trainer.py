"""The training loop against plain loops, its repeatability, its order of steps, its penalties, diverging."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from trainers import optimizer_steps, same, snapshot, state_of, weights

from pipeline.data.dataset import Dataset, Sampler, to_float
from pipeline.tables import LOSSES, PENALTIES
from pipeline.training.networks.blocks import Ema, ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.sampling import draw_latents
from pipeline.training.seeds import derive_seed
from pipeline.training.tensor_chunks import gradient_norm
from pipeline.training.trainer import Trainer

Make = Callable[..., Trainer]

CONFIGS: dict[str, dict[str, Any]] = {
    "batch norm, conditional": {"norm_g": "batch", "norm_d": "batch", "conditional": True},
    "resnet": {"architecture": "resnet", "penalty": "r1r2", "gamma": 0.1},
    "r3gan": {"architecture": "r3gan", "penalty": "r1r2", "gamma": 0.1, "conditional": True},
    "fastgan": {"architecture": "fastgan", "loss": "hinge", "norm_d": "spectral", "conditional": True},
    "spectral norm": {"norm_d": "spectral", "loss": "hinge", "conditional": True},
    "lazy r1, two critics": {"n_critic": 2, "penalty": "r1", "penalty_interval": 3, "batch_size": 40},
    "relativistic": {"loss": "relativistic", "penalty": "r1r2", "conditional": True, "norm_d": "layer"},
    "dragan, mlp": {"architecture": "mlp", "penalty": "dragan", "loss": "minimax"},
    "gp, warm-up": {"loss": "wasserstein", "penalty": "gp", "n_critic": 3, "d_warmup_kimg": 1.2},
    "bfloat16": {"precision": "bfloat16", "penalty": "r1"},
    "mirrored": {"mirror": True, "conditional": True},
}


# ---- Against plain loops


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architecture": "mlp", "conditional": True},
        {"loss": "relativistic", "conditional": True},
        {"n_critic": 2, "norm_d": "batch", "conditional": True},
    ],
    ids=str,
)
def test_steps_equal_those_of_a_plain_loop(
    make_trainer: Make, dataset: Dataset, changes: dict[str, Any]
) -> None:
    """200 steps of a straightforward loop: the same weights to the last bit, and the same average."""
    trainer = make_trainer(**changes, seed=5)
    trainer.advance(7, should_stop=lambda: trainer.d_steps == 200)

    config = trainer.config
    relativistic, n_critic = config.loss == "relativistic", config.n_critic
    torch.manual_seed(derive_seed(5, "init"))
    G, D = (net.to(memory_format=torch.channels_last) for net in build_networks(config, ImageShape(8, 1, 3)))
    ema = Ema(G, config.ema_halflife_kimg)
    opt_g, opt_d = (
        torch.optim.Adam(n.parameters(), float(np.float32(1e-3)), betas=(0.5, 0.999), fused=True)
        for n in (G, D)
    )
    order = Sampler(len(dataset.train), derive_seed(5, "reals"))
    rng = torch.Generator().manual_seed(derive_seed(5, "steps", 0))
    images, every_label = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    for step in range(200):
        rows = torch.from_numpy(order.take(step * 32, 32))
        real, labels = to_float(images[rows]), every_label[rows]
        fake = G(torch.randn(32, 8, generator=rng), labels)
        if config.norm_d == "batch":
            r, f = D(real, labels), D(fake.detach(), labels)
        else:
            r, f = D(torch.cat([real, fake.detach()]), torch.cat([labels, labels])).split(32)
        opt_d.zero_grad()
        (softplus(f - r).mean() if relativistic else softplus(-r).mean() + softplus(f).mean()).backward()
        opt_d.step()
        if (step + 1) % n_critic:
            continue
        f = D(fake, labels)
        opt_g.zero_grad()
        (softplus(D(real, labels).detach() - f) if relativistic else softplus(-f)).mean().backward()
        opt_g.step()
        ema.update(32 * n_critic, step * 32 + 32)

    assert (optimizer_steps(opt_d), optimizer_steps(opt_g)) == (200, 200 // n_critic)
    assert same(G.state_dict(), trainer.G.state_dict())
    assert same(D.state_dict(), trainer.D.state_dict())
    assert same(ema.generator.state_dict(), trainer.ema.generator.state_dict())


@pytest.mark.parametrize("penalty", ["none", "r1", "r1r2"])
@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_steps_equal_those_of_a_textbook_loop_up_to_rounding(
    make_trainer: Make, dataset: Dataset, penalty: str, grad_accum_steps: int
) -> None:
    """Binary cross-entropy, a pass of D for each term, contiguous memory, plain Adam, whole batches."""
    trainer = make_trainer(seed=2, norm_g="none", beta2=0.99, penalty=penalty, gamma=0.5)
    trainer.grad_accum_steps = grad_accum_steps
    trainer.advance(1)

    torch.manual_seed(derive_seed(2, "init"))
    G, D = build_networks(trainer.config, ImageShape(8, 1))
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), 1e-3, betas=(0.5, 0.99), foreach=False) for n in (G, D))
    order = Sampler(len(dataset.train), derive_seed(2, "reals"))
    rng = torch.Generator().manual_seed(derive_seed(2, "steps", 0))
    ones, zeros = torch.ones(32), torch.zeros(32)
    for nimg in range(0, 1000, 32):
        real = to_float(torch.from_numpy(dataset.train[order.take(nimg, 32)])).contiguous()
        z = torch.cat(
            [torch.randn(32 // grad_accum_steps, 8, generator=rng) for _ in range(grad_accum_steps)]
        )
        fake = G(z).detach()
        opt_d.zero_grad()
        bce = binary_cross_entropy_with_logits
        loss = bce(D(real), ones) + bce(D(fake), zeros)
        if penalty != "none":
            loss = loss + 0.5 * PENALTIES.load(penalty)(D, real, fake, real)
        loss.backward()
        opt_d.step()
        opt_g.zero_grad()
        if grad_accum_steps > 1:  # with gradient accumulation G's update generates new fakes
            z = torch.cat(
                [torch.randn(32 // grad_accum_steps, 8, generator=rng) for _ in range(grad_accum_steps)]
            )
        bce(D(G(z)), ones).backward()
        opt_g.step()
    torch.testing.assert_close(weights(G), weights(trainer.G), atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(weights(D), weights(trainer.D), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"conditional": True, "penalty": "r1"}], ids=str)
def test_mirror_trains_like_the_images_stored_beside_their_mirror_images(
    make_trainer: Make, dataset: Dataset, changes: dict[str, Any]
) -> None:
    """Bit for bit, over several epochs of 320 images; without it, training is another."""
    mirrored = make_trainer(mirror=True, **changes)
    images = torch.from_numpy(np.concatenate([dataset.train, dataset.train[:, :, ::-1]]))
    labels = torch.from_numpy(np.tile(dataset.train_labels, 2))
    config = make_trainer(**changes).config
    doubled = Trainer(config, images, labels if config.conditional else None, 3)
    plain = make_trainer(**changes)
    for trainer in (mirrored, doubled, plain):
        trainer.advance(2)
    assert same(state_of(mirrored), state_of(doubled))
    assert not same(state_of(mirrored), state_of(plain))


# ---- Repeatability


@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_equals_uninterrupted(make_trainer: Make, name: str) -> None:
    """Bit for bit, through a file, into a trainer that has already been trained."""
    whole, resumed = make_trainer(**CONFIGS[name]), make_trainer(**CONFIGS[name])
    whole.advance(1)
    whole.metrics.read()
    resumed.advance(1, should_stop=lambda: resumed.d_steps >= 5)
    resumed.metrics.read()
    resumed.load_state_dict(snapshot(whole))
    for trainer in (whole, resumed):
        trainer.advance(2)
    assert same(state_of(whole), state_of(resumed))
    assert whole.metrics.read() == resumed.metrics.read()
    assert resumed.nimg >= 2000
    assert optimizer_steps(resumed.opt_d) == resumed.d_steps


def test_another_seed_gives_other_weights(make_trainer: Make) -> None:
    a, b, c = (make_trainer(seed=seed) for seed in (1, 1, 2))
    for trainer in (a, b, c):
        trainer.advance(1)
    assert same(a.state_dict(), b.state_dict())
    assert not same(a.state_dict(), c.state_dict())


def test_the_global_random_state_is_not_used(make_trainer: Make) -> None:
    a, b = make_trainer(penalty="dragan"), make_trainer(penalty="dragan")
    a.advance(1)
    torch.manual_seed(99)
    torch.rand(7)
    b.advance(1)
    assert same(a.state_dict(), b.state_dict())


# ---- The order of steps


@pytest.mark.parametrize(("n_critic", "batch"), [(1, 32), (2, 32), (5, 50)])
def test_g_is_updated_once_in_n_critic_updates_of_d(make_trainer: Make, n_critic: int, batch: int) -> None:
    trainer = make_trainer(n_critic=n_critic, batch_size=batch)
    trainer.advance(2)
    d_steps = -(-2000 // batch)
    assert (trainer.d_steps, optimizer_steps(trainer.opt_d), trainer.nimg) == (
        d_steps,
        d_steps,
        d_steps * batch,
    )
    assert optimizer_steps(trainer.opt_g) == d_steps // n_critic


def test_g_s_update_computes_no_gradient_of_d_s_weights(make_trainer: Make) -> None:
    """D is frozen in G's update; its gradients would cost a third of it."""
    trainer = make_trainer()
    calls: list[Tensor] = []
    next(trainer.D.parameters()).register_post_accumulate_grad_hook(calls.append)
    trainer.advance(1)
    assert len(calls) == trainer.d_steps == optimizer_steps(trainer.opt_g)


def test_warm_up_updates_only_d(make_trainer: Make) -> None:
    trainer = make_trainer(d_warmup_kimg=1.0, batch_size=50)
    before_g, before_d = copy.deepcopy(trainer.G.state_dict()), weights(trainer.D)
    before_ema = weights(trainer.ema.generator)
    trainer.advance(1)
    assert torch.equal(weights(trainer.G), torch.cat([p.flatten() for p in _parameters(trainer, before_g)]))
    assert torch.equal(weights(trainer.ema.generator), before_ema)
    assert not torch.equal(weights(trainer.D), before_d)
    assert (optimizer_steps(trainer.opt_d), optimizer_steps(trainer.opt_g)) == (20, 0)
    trainer.metrics.read()
    trainer.advance(2)
    assert (optimizer_steps(trainer.opt_d), optimizer_steps(trainer.opt_g)) == (40, 20)


def _parameters(trainer: Trainer, state: dict[str, Tensor]) -> list[Tensor]:
    return [state[name] for name, _ in trainer.G.named_parameters()]


@pytest.mark.parametrize(("frozen", "moving"), [("G", "D"), ("D", "G")])
def test_each_network_has_its_own_learning_rate(make_trainer: Make, frozen: str, moving: str) -> None:
    trainer = make_trainer(**{f"lr_{frozen.lower()}": 1e-7, f"lr_{moving.lower()}": 1e-2})
    before = {name: weights(getattr(trainer, name)) for name in "GD"}
    trainer.advance(1)
    moved = {name: (weights(getattr(trainer, name)) - before[name]).abs().max().item() for name in "GD"}
    assert moved[frozen] <= 32 * 1.01e-7 * 3.2  # Adam moves by at most about lr / (1 - beta1) a step
    assert moved[moving] > 1e-2


def test_advance_stops_when_should_stop_is_true(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.advance(2, should_stop=lambda: trainer.d_steps >= 7)
    assert (trainer.d_steps, trainer.nimg) == (7, 7 * 32)
    trainer.advance(2, should_stop=lambda: True)
    assert trainer.d_steps == 7


def test_advance_to_a_reached_kimg_trains_nothing(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.advance(1)
    before = snapshot(trainer)
    trainer.advance(1)
    assert same(before, trainer.state_dict())


def test_every_real_is_shown_once_per_epoch(make_trainer: Make, dataset: Dataset) -> None:
    """160 images, batches of 32: five batches are the data set, in another order."""
    trainer = make_trainer()
    shown = []
    for _ in range(5):
        trainer._prefetcher.load(trainer.nimg)
        shown.append(trainer._prefetcher.reals())
        trainer.nimg += 32
    ours = sorted(image.numpy().tobytes() for image in torch.cat(shown).contiguous())
    theirs = to_float(torch.from_numpy(dataset.train)).contiguous()
    assert ours == sorted(image.numpy().tobytes() for image in theirs)


def test_fakes_have_the_classes_of_the_reals(make_trainer: Make) -> None:
    """A relativistic pair and a mix of real and fake images each have one label."""
    trainer = make_trainer(conditional=True)
    seen: list[tuple[str, Tensor]] = []
    for name in ("G", "D"):
        network = getattr(trainer, name)
        network.register_forward_pre_hook(lambda module, inputs, name=name: seen.append((name, inputs[1])))
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 1)
    reals = trainer.labels[torch.from_numpy(trainer.sampler.take(0, 32))]
    assert [name for name, _ in seen] == ["G", "D", "D"]  # G's update uses the fakes that D was shown
    for name, labels in seen:
        assert torch.equal(labels.view(-1, 32)[0], reals), name
        assert torch.equal(labels.view(-1, 32)[-1], reals), name


def test_no_latent_is_used_in_two_ticks(make_trainer: Make) -> None:
    """Each tick begins with a seed of its own."""
    trainer = make_trainer()
    seen: list[Tensor] = []
    trainer.G.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    trainer.advance(1)
    trainer.advance(2)
    assert len(seen) == 63
    assert len(torch.cat(seen).unique(dim=0)) == 32 * len(seen)


def test_latents_follow_the_frequencies_of_the_data(make_trainer: Make, dataset: Dataset) -> None:
    trainer = make_trainer(conditional=True)
    z, labels = draw_latents(trainer.G, 4000, torch.Generator().manual_seed(0), trainer.labels)
    assert z.shape == (4000, 8)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    ours, theirs = (torch.bincount(x, minlength=3) / len(x) for x in (labels, trainer.labels))
    torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0)
    assert draw_latents(make_trainer().G, 3, torch.Generator(), trainer.labels)[1] is None


# ---- Penalties and numerics


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "none"])
def test_every_penalty_runs_with_every_loss(make_trainer: Make, name: str, penalty: str) -> None:
    trainer = make_trainer(loss=name, penalty=penalty, gamma=0.5, penalty_interval=2, conditional=True)
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 4)
    means = trainer.metrics.read()
    assert all(map(math.isfinite, means.values()))
    assert means["penalty"] > 0
    assert means["grad_norm_d"] > 0
    assert means["grad_norm_g"] > 0


@pytest.mark.parametrize("penalty", ["r1", "r1r2", "gp"])
def test_a_strong_penalty_keeps_d_smooth(make_trainer: Make, penalty: str) -> None:
    penalties = {}
    for gamma in (1e-3, 30.0):
        trainer = make_trainer(penalty=penalty, gamma=gamma, norm_g="none", lr_d=3e-3)
        trainer.advance(1)
        trainer.metrics.read()
        trainer.advance(2)
        penalties[gamma] = trainer.metrics.read()["penalty"]
    assert penalties[30.0] < 0.7 * penalties[1e-3]


def gradients_of(trainer: Trainer, steps: int) -> Tensor:
    """The sum of D's gradients over `steps` without any update, on the same batch each time."""
    total = torch.zeros_like(weights(trainer.D))

    def add() -> None:
        total.add_(torch.cat([p.grad.flatten() for p in trainer.D.parameters()]))

    trainer._prefetcher._images = torch.full_like(trainer.images, 30)
    with torch.no_grad():
        for parameter in trainer.G.parameters():
            parameter.zero_()  # every fake is grey for any z
    trainer.opt_d.step = add  # type: ignore[assignment, method-assign]
    trainer.opt_g.step = lambda: None  # type: ignore[assignment, method-assign]
    trainer.advance(1, should_stop=lambda: trainer.d_steps == steps)
    return total


@pytest.mark.parametrize("penalty", ["r1", "r1r2"])
@pytest.mark.parametrize("interval", [2, 4, 8])
def test_lazy_regularisation_has_the_gradient_of_the_dense_one(
    make_trainer: Make, penalty: str, interval: int
) -> None:
    base = {"penalty": penalty, "gamma": 3.0, "norm_g": "none"}
    dense, lazy, free = (
        gradients_of(make_trainer(**{**base, **changes}), steps=8)
        for changes in ({}, {"penalty_interval": interval}, {"gamma": 0.0})
    )
    torch.testing.assert_close(lazy, dense, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(free, dense, rtol=1e-2)


def test_gamma_zero_is_no_penalty(make_trainer: Make) -> None:
    a, b = make_trainer(penalty="r1", gamma=0.0), make_trainer(penalty="none")
    for trainer in (a, b):
        trainer.advance(1)
    assert same(a.state_dict(), b.state_dict())
    assert a.metrics.read()["penalty"] == 0


@pytest.mark.parametrize(
    "name", ["resnet", "r3gan", "fastgan", "spectral norm", "relativistic", "gp, warm-up"]
)
def test_bfloat16_stays_finite_and_near(make_trainer: Make, name: str) -> None:
    means = []
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(**{**CONFIGS[name], "precision": precision, "d_warmup_kimg": 0.0})
        trainer.advance(1)
        assert weights(trainer.G).isfinite().all()
        assert weights(trainer.G).dtype == torch.float32
        means.append(trainer.metrics.read())
    assert all(map(math.isfinite, means[1].values()))
    assert means[1]["loss_d"] == pytest.approx(means[0]["loss_d"], rel=0.2, abs=0.1)


def test_gradient_norm_against_a_flat_vector(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.advance(1)
    flat_gradient = torch.cat([p.grad.flatten() for p in trainer.G.parameters()])
    torch.testing.assert_close(gradient_norm(trainer.G), flat_gradient.norm())


def test_metrics_are_the_means_of_the_single_steps(make_trainer: Make) -> None:
    """G's loss over a tick."""
    whole, single = make_trainer(n_critic=2), make_trainer(n_critic=2)
    whole.advance(1)
    seen: list[Tensor] = []
    original = single.metrics.add

    def add(name: str, *values: Tensor) -> None:
        if name == "loss_g":
            seen.append(values[0].detach())
        original(name, *values)

    single.metrics.add = add  # type: ignore[method-assign]
    single.advance(1)
    assert len(seen) == 16
    assert whole.metrics.read()["loss_g"] == pytest.approx(torch.stack(seen).mean().item(), rel=1e-6)
