"""The loop against a plain one, its repeatability, its schedule, its penalties, and how it fails."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from pipeline import losses
from pipeline.balance import verdict
from pipeline.data import Dataset, Sampler, to_float
from pipeline.networks import Ema, ImageShape, build
from pipeline.trainer import Trainer, derive_seed, gradient_norm

Make = Callable[..., Trainer]

GAMES: dict[str, dict[str, Any]] = {
    "batch norm, conditional": {"norm_g": "batch", "norm_d": "batch", "conditional": True},
    "resnet": {"architecture": "resnet", "penalty": "r1r2", "gamma": 0.1},
    "spectral norm": {"norm_d": "spectral", "loss": "hinge", "conditional": True},
    "lazy r1, two critics": {"n_critic": 2, "penalty": "r1", "penalty_interval": 3, "batch_size": 40},
    "relativistic": {"loss": "relativistic", "penalty": "r1r2", "conditional": True, "norm_d": "layer"},
    "dragan, mlp": {"architecture": "mlp", "penalty": "dragan", "loss": "minimax"},
    "gp, warm-up": {"loss": "wasserstein", "penalty": "gp", "n_critic": 3, "d_warmup_kimg": 1.2},
    "bfloat16": {"precision": "bfloat16", "penalty": "r1"},
}


def snapshot(trainer: Trainer) -> dict[str, Any]:
    """A state as a file would hold it."""
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Any] = torch.load(buffer, weights_only=True)
    return state


def flat(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in flat(tree[key])]
    return [leaf for item in tree for leaf in flat(item)] if isinstance(tree, list | tuple) else [tree]


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    left, right = flat(a), flat(b)
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(left, right, strict=True)
    )


def weights(network: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    return int(next(iter(optimizer.state.values()))["step"]) if optimizer.state else 0


# ---- Against plain loops


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("architecture", ["dcgan", "mlp"])
def test_a_plain_loop_gives_the_same_bits(
    make_trainer: Make, dataset: Dataset, architecture: str, conditional: bool
) -> None:
    """63 steps of what anybody would write: the same weights to the last bit, and the same average."""
    trainer = make_trainer(architecture=architecture, conditional=conditional, seed=5)
    trainer.advance(2)

    config = trainer.config
    torch.manual_seed(derive_seed(5, "init"))
    nets = build(config, ImageShape(8, 1, 3))
    G, D = (net.to(memory_format=torch.channels_last) for net in nets)
    ema = Ema(G, config.ema_halflife_kimg)
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), 1e-3, betas=(0.5, 0.999), fused=True) for n in (G, D))
    order = Sampler(len(dataset.train), derive_seed(5, "reals"))
    rng = torch.Generator().manual_seed(derive_seed(5, "game", 0))
    images, every_label = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    for nimg in range(0, 2000, 32):
        rows = torch.from_numpy(order.take(nimg, 32))
        real, labels = to_float(images[rows]), every_label[rows]
        fake = G(torch.randn(32, 8, generator=rng), labels).detach()
        scores = D(torch.cat([real, fake]), torch.cat([labels, labels]))
        opt_d.zero_grad()
        (softplus(-scores[:32]).mean() + softplus(scores[32:]).mean()).backward()
        opt_d.step()
        opt_g.zero_grad()
        softplus(-D(G(torch.randn(32, 8, generator=rng), labels), labels)).mean().backward()
        opt_g.step()
        ema.update(32, nimg + 32)

    assert steps_of(opt_d) == 63
    assert same(G.state_dict(), trainer.G.state_dict())
    assert same(D.state_dict(), trainer.D.state_dict())
    assert same(ema.generator.state_dict(), trainer.ema.generator.state_dict())


def test_the_textbook_gives_the_same_to_rounding(make_trainer: Make, dataset: Dataset) -> None:
    """Binary cross-entropy, two passes of D, contiguous memory, plain Adam."""
    trainer = make_trainer(seed=2, norm_g="none", beta2=0.99)
    trainer.advance(1)

    torch.manual_seed(derive_seed(2, "init"))
    G, D = build(trainer.config, ImageShape(8, 1))
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), 1e-3, betas=(0.5, 0.99), foreach=False) for n in (G, D))
    order = Sampler(len(dataset.train), derive_seed(2, "reals"))
    rng = torch.Generator().manual_seed(derive_seed(2, "game", 0))
    ones, zeros = torch.ones(32), torch.zeros(32)
    for nimg in range(0, 1000, 32):
        real = to_float(torch.from_numpy(dataset.train[order.take(nimg, 32)])).contiguous()
        fake = G(torch.randn(32, 8, generator=rng)).detach()
        opt_d.zero_grad()
        judge = binary_cross_entropy_with_logits
        (judge(D(real), ones) + judge(D(fake), zeros)).backward()
        opt_d.step()
        opt_g.zero_grad()
        judge(D(G(torch.randn(32, 8, generator=rng))), ones).backward()
        opt_g.step()
    torch.testing.assert_close(weights(G), weights(trainer.G), atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(weights(D), weights(trainer.D), atol=2e-4, rtol=1e-3)


# ---- The same again


@pytest.mark.parametrize("game", GAMES)
def test_resumed_equals_uninterrupted(make_trainer: Make, game: str) -> None:
    """Bit for bit, through a file, into a trainer that has a past of its own."""
    whole, resumed = make_trainer(**GAMES[game]), make_trainer(**GAMES[game])
    whole.advance(1)
    whole.tally.read()
    resumed.advance(1, should_stop=lambda: resumed.d_steps >= 5)
    resumed.tally.read()
    resumed.load_state_dict(snapshot(whole))
    for trainer in (whole, resumed):
        trainer.advance(2)
    assert same(whole.state_dict(), resumed.state_dict())
    assert whole.tally.read() == resumed.tally.read()
    assert resumed.nimg >= 2000
    assert steps_of(resumed.opt_d) == resumed.d_steps


def test_another_seed_is_another_game(make_trainer: Make) -> None:
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


def test_seeds_differ_by_purpose_and_position() -> None:
    purposes = ("init", "reals", "game", "reading")
    keys = list(itertools.product((0, 1, 2**63 - 1), purposes, (0, 1000)))
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


# ---- The schedule


@pytest.mark.parametrize(("n_critic", "batch"), [(1, 32), (2, 32), (5, 50)])
def test_n_critic(make_trainer: Make, n_critic: int, batch: int) -> None:
    trainer = make_trainer(n_critic=n_critic, batch_size=batch)
    trainer.advance(2)
    d_steps = -(-2000 // batch)
    assert (trainer.d_steps, steps_of(trainer.opt_d), trainer.nimg) == (d_steps, d_steps, d_steps * batch)
    assert steps_of(trainer.opt_g) == d_steps // n_critic


def test_warm_up_leaves_g_alone(make_trainer: Make) -> None:
    trainer = make_trainer(d_warmup_kimg=1.0, batch_size=50)
    before_g, before_d = copy.deepcopy(trainer.G.state_dict()), weights(trainer.D)
    before_ema = weights(trainer.ema.generator)
    trainer.advance(1)
    assert torch.equal(weights(trainer.G), torch.cat([p.flatten() for p in _parameters(trainer, before_g)]))
    assert torch.equal(weights(trainer.ema.generator), before_ema)
    assert not torch.equal(weights(trainer.D), before_d)
    assert (steps_of(trainer.opt_d), steps_of(trainer.opt_g)) == (20, 0)
    trainer.tally.read()
    trainer.advance(2)
    assert (steps_of(trainer.opt_d), steps_of(trainer.opt_g)) == (40, 20)


def _parameters(trainer: Trainer, state: dict[str, Tensor]) -> list[Tensor]:
    return [state[name] for name, _ in trainer.G.named_parameters()]


@pytest.mark.parametrize(("still", "moving"), [("G", "D"), ("D", "G")])
def test_each_network_has_its_own_learning_rate(make_trainer: Make, still: str, moving: str) -> None:
    trainer = make_trainer(**{f"lr_{still.lower()}": 1e-7, f"lr_{moving.lower()}": 1e-2})
    before = {name: weights(getattr(trainer, name)) for name in "GD"}
    trainer.advance(1)
    moved = {name: (weights(getattr(trainer, name)) - before[name]).abs().max().item() for name in "GD"}
    assert moved[still] <= 32 * 1.01e-7 * 3.2  # Adam moves by at most about lr / (1 - beta1) a step
    assert moved[moving] > 1e-2


def test_advance_stops_when_told_to(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.advance(2, should_stop=lambda: trainer.d_steps >= 7)
    assert (trainer.d_steps, trainer.nimg) == (7, 7 * 32)
    trainer.advance(2, should_stop=lambda: True)
    assert trainer.d_steps == 7


def test_a_tick_that_is_over_trains_nothing(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.advance(1)
    before = snapshot(trainer)
    trainer.advance(1)
    assert same(before, trainer.state_dict())


def test_every_real_is_shown_once_per_epoch(make_trainer: Make, dataset: Dataset) -> None:
    """160 images, batches of 32: five batches are the data set, in an order of their own."""
    trainer = make_trainer()
    shown = []
    for _ in range(5):
        real, _labels = trainer._reals(32)
        shown.append(real)
        trainer.nimg += 32
    ours = sorted(image.numpy().tobytes() for image in torch.cat(shown).contiguous())
    theirs = to_float(torch.from_numpy(dataset.train)).contiguous()
    assert ours == sorted(image.numpy().tobytes() for image in theirs)


def test_fakes_have_the_classes_of_the_reals(make_trainer: Make) -> None:
    """So that a relativistic pair, a mix of gp and R2 each have one label."""
    trainer = make_trainer(conditional=True)
    seen: list[tuple[str, Tensor]] = []
    for name in ("G", "D"):
        network = getattr(trainer, name)
        network.register_forward_pre_hook(lambda module, inputs, name=name: seen.append((name, inputs[1])))
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 1)
    reals = trainer.labels[torch.from_numpy(trainer.sampler.take(0, 32))]
    assert [name for name, _ in seen] == ["G", "D", "G", "D"]
    for name, labels in seen:
        assert torch.equal(labels.view(-1, 32)[0], reals), name
        assert torch.equal(labels.view(-1, 32)[-1], reals), name


def test_latents_follow_the_frequencies_of_the_data(make_trainer: Make, dataset: Dataset) -> None:
    trainer = make_trainer(conditional=True)
    z, labels = trainer.latents(4000, torch.Generator().manual_seed(0))
    assert z.shape == (4000, 8)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    ours, theirs = (torch.bincount(x, minlength=3) / len(x) for x in (labels, trainer.labels))
    torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0)
    assert make_trainer().latents(3, torch.Generator())[1] is None


# ---- Penalties and numerics


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("penalty", losses.PENALTIES)
def test_every_penalty_runs_with_every_loss(make_trainer: Make, name: str, penalty: str) -> None:
    trainer = make_trainer(loss=name, penalty=penalty, gamma=0.5, penalty_interval=2, conditional=True)
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 4)
    means = trainer.tally.read()
    assert all(map(math.isfinite, means.values()))
    assert means["penalty"] > 0
    assert means["grad_norm_d"] > 0
    assert means["grad_norm_g"] > 0


@pytest.mark.parametrize("penalty", ["r1", "r1r2", "gp"])
def test_a_strong_penalty_keeps_d_smooth(make_trainer: Make, penalty: str) -> None:
    slopes = {}
    for gamma in (1e-3, 30.0):
        trainer = make_trainer(penalty=penalty, gamma=gamma, norm_g="none", lr_d=3e-3)
        trainer.advance(1)
        trainer.tally.read()
        trainer.advance(2)
        slopes[gamma] = trainer.tally.read()["penalty"]
    assert slopes[30.0] < 0.7 * slopes[1e-3]


def gradients_of(trainer: Trainer, steps: int) -> Tensor:
    """The sum of D's gradients over `steps` in which nothing moves and every batch is the same."""
    total = torch.zeros_like(weights(trainer.D))

    def add() -> None:
        total.add_(torch.cat([p.grad.flatten() for p in trainer.D.parameters()]))

    trainer.images = torch.full_like(trainer.images, 30)
    with torch.no_grad():
        for parameter in trainer.G.parameters():
            parameter.zero_()  # every fake is grey, whatever z
    trainer.opt_d.step = add  # type: ignore[assignment, method-assign]
    trainer.opt_g.step = lambda: None  # type: ignore[assignment, method-assign]
    trainer.advance(1, should_stop=lambda: trainer.d_steps == steps)
    return total


@pytest.mark.parametrize("penalty", ["r1", "r1r2"])
@pytest.mark.parametrize("interval", [2, 4, 8])
def test_lazy_regularisation_has_the_gradient_of_the_dense_one(
    make_trainer: Make, penalty: str, interval: int
) -> None:
    game = {"penalty": penalty, "gamma": 3.0, "norm_g": "none"}
    dense, lazy, free = (
        gradients_of(make_trainer(**{**game, **changes}), steps=8)
        for changes in ({}, {"penalty_interval": interval}, {"gamma": 0.0})
    )
    torch.testing.assert_close(lazy, dense, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(free, dense, rtol=1e-2)


def test_gamma_zero_is_no_penalty(make_trainer: Make) -> None:
    a, b = make_trainer(penalty="r1", gamma=0.0), make_trainer(penalty="none")
    for trainer in (a, b):
        trainer.advance(1)
    assert same(a.state_dict(), b.state_dict())
    assert a.tally.read()["penalty"] == 0


@pytest.mark.parametrize("game", ["resnet", "spectral norm", "relativistic", "gp, warm-up"])
def test_bfloat16_stays_finite_and_near(make_trainer: Make, game: str) -> None:
    means = []
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(**{**GAMES[game], "precision": precision, "d_warmup_kimg": 0.0})
        trainer.advance(1)
        assert weights(trainer.G).isfinite().all()
        assert weights(trainer.G).dtype == torch.float32
        means.append(trainer.tally.read())
    assert all(map(math.isfinite, means[1].values()))
    assert means[1]["loss_d"] == pytest.approx(means[0]["loss_d"], rel=0.2, abs=0.1)


def test_gradient_norm_against_a_flat_vector(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.advance(1)
    flat_gradient = torch.cat([p.grad.flatten() for p in trainer.G.parameters()])
    torch.testing.assert_close(gradient_norm(trainer.G), flat_gradient.norm())


def test_the_tally_tells_what_happened(make_trainer: Make) -> None:
    """The mean of G's loss over a tick against the mean of single steps."""
    whole, single = make_trainer(n_critic=2), make_trainer(n_critic=2)
    whole.advance(1)
    seen: list[Tensor] = []
    record = single.tally.add

    def add(name: str, value: Tensor) -> None:
        if name == "loss_g":
            seen.append(value.detach())
        record(name, value)

    single.tally.add = add  # type: ignore[method-assign]
    single.advance(1)
    assert len(seen) == 16
    assert whole.tally.read()["loss_g"] == pytest.approx(torch.stack(seen).mean().item(), rel=1e-6)


# ---- How it fails


@pytest.mark.parametrize("network", ["G", "D"])
def test_a_nan_is_seen_at_the_end_of_the_tick(make_trainer: Make, dataset: Dataset, network: str) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        next(getattr(trainer, network).parameters())[0] = math.nan
    trainer.advance(1)
    means = trainer.tally.read()
    reading = trainer.read_balance(torch.from_numpy(dataset.held), None)
    assert math.isnan(means["loss_d"])
    assert verdict(reading, list(means.values())) == "diverged"


def test_an_explosion_is_seen(make_trainer: Make, dataset: Dataset) -> None:
    wild = {"architecture": "mlp", "depth_d": 8, "depth_g": 8, "width_d": 64, "loss": "lsgan"}
    trainer = make_trainer(**wild, lr_g=1.0, lr_d=1.0)
    trainer.advance(2)
    means = trainer.tally.read()
    reading = trainer.read_balance(torch.from_numpy(dataset.held), None)
    assert verdict(reading, list(means.values())) == "diverged"


# ---- The reading


@pytest.mark.parametrize("game", GAMES)
def test_reading_changes_nothing(make_trainer: Make, dataset: Dataset, game: str) -> None:
    """Two trainers, one read at every tick: the same weights (a batch norm's counter of calls apart)."""
    watched, alone = make_trainer(**GAMES[game]), make_trainer(**GAMES[game])
    held, labels = torch.from_numpy(dataset.held), torch.from_numpy(dataset.held_labels)
    readings = []
    for steps in (6, 12):
        watched.advance(1, should_stop=lambda: watched.d_steps >= steps)  # noqa: B023
        readings = [watched.read_balance(held, labels) for _ in range(2)]
        alone.advance(1, should_stop=lambda: alone.d_steps >= steps)  # noqa: B023
    assert readings[0] == readings[1]
    for name in ("G", "D"):
        ours, theirs = (getattr(trainer, name).state_dict() for trainer in (watched, alone))
        for key in ours:
            assert key.endswith("num_batches_tracked") or torch.equal(ours[key], theirs[key]), key
    assert 0 <= readings[0].auc <= 1


def test_a_d_that_has_won_reads_so(make_trainer: Make, dataset: Dataset) -> None:
    """G stands still: D learns to tell, and the AUC goes to 1; noise for reals tells the overfit apart."""
    trainer = make_trainer(lr_g=1e-7, lr_d=1e-2)
    trainer.advance(2)
    reading = trainer.read_balance(torch.from_numpy(dataset.held), None)
    assert reading.auc > 0.98
    assert reading.score_real > reading.score_fake
    assert reading.accuracy_real > 0.9
    assert reading.accuracy_fake > 0.9
    assert 0.35 < reading.overfit < 0.75
