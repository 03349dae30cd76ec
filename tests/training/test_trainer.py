"""The loop against a plain one, its repeatability, its schedule, its penalties, and how it fails."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from pipeline.data.dataset import Dataset, Sampler, to_float
from pipeline.training import losses
from pipeline.training import trainer as trainer_room
from pipeline.training.balance import BalanceReading, verdict
from pipeline.training.networks.blocks import Ema, ImageShape
from pipeline.training.networks.build import build_networks, to_uint8
from pipeline.training.schedules import step_schedule
from pipeline.training.seeds import derive_seed
from pipeline.training.trainer import Trainer, gradient_norm

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


def everything(trainer: Trainer) -> list[Any]:
    """All that moves, asked from the parts themselves."""
    parts = (trainer.G, trainer.D, trainer.ema.generator, trainer.opt_g, trainer.opt_d)
    return [trainer.nimg, trainer.d_steps, *(part.state_dict() for part in parts)]


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    return int(next(iter(optimizer.state.values()))["step"]) if optimizer.state else 0


# ---- Against plain loops


@pytest.mark.parametrize(
    "game",
    [
        {},
        {"architecture": "mlp", "conditional": True},
        {"loss": "relativistic", "conditional": True},
        {"n_critic": 2, "norm_d": "batch", "conditional": True},
    ],
    ids=str,
)
def test_a_plain_loop_gives_the_same_bits(make_trainer: Make, dataset: Dataset, game: dict[str, Any]) -> None:
    """200 steps of what anybody would write: the same weights to the last bit, and the same average."""
    trainer = make_trainer(**game, seed=5)
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
    rng = torch.Generator().manual_seed(derive_seed(5, "game", 0))
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

    assert (steps_of(opt_d), steps_of(opt_g)) == (200, 200 // n_critic)
    assert same(G.state_dict(), trainer.G.state_dict())
    assert same(D.state_dict(), trainer.D.state_dict())
    assert same(ema.generator.state_dict(), trainer.ema.generator.state_dict())


@pytest.mark.parametrize("penalty", ["none", "r1", "r1r2"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_the_textbook_gives_the_same_to_rounding(
    make_trainer: Make, dataset: Dataset, penalty: str, pieces: int
) -> None:
    """Binary cross-entropy, a pass of D for every purpose, contiguous memory, plain Adam, whole batches."""
    trainer = make_trainer(seed=2, norm_g="none", beta2=0.99, penalty=penalty, gamma=0.5)
    trainer.pieces = pieces
    trainer.advance(1)

    torch.manual_seed(derive_seed(2, "init"))
    G, D = build_networks(trainer.config, ImageShape(8, 1))
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), 1e-3, betas=(0.5, 0.99), foreach=False) for n in (G, D))
    order = Sampler(len(dataset.train), derive_seed(2, "reals"))
    rng = torch.Generator().manual_seed(derive_seed(2, "game", 0))
    ones, zeros = torch.ones(32), torch.zeros(32)
    for nimg in range(0, 1000, 32):
        real = to_float(torch.from_numpy(dataset.train[order.take(nimg, 32)])).contiguous()
        z = torch.cat([torch.randn(32 // pieces, 8, generator=rng) for _ in range(pieces)])
        fake = G(z).detach()
        opt_d.zero_grad()
        judge = binary_cross_entropy_with_logits
        loss = judge(D(real), ones) + judge(D(fake), zeros)
        if penalty != "none":
            loss = loss + 0.5 * losses.PENALTIES[penalty](D, real, fake, real)
        loss.backward()
        opt_d.step()
        opt_g.zero_grad()
        if pieces > 1:  # where memory is short G draws its own
            z = torch.cat([torch.randn(32 // pieces, 8, generator=rng) for _ in range(pieces)])
        judge(D(G(z)), ones).backward()
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
    assert same(everything(whole), everything(resumed))
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


def test_g_learns_through_a_d_that_stands_still(make_trainer: Make) -> None:
    """G's step computes no gradient of D's weights, which would cost a third of it."""
    trainer = make_trainer()
    calls: list[Tensor] = []
    next(trainer.D.parameters()).register_post_accumulate_grad_hook(calls.append)
    trainer.advance(1)
    assert len(calls) == trainer.d_steps == steps_of(trainer.opt_g)


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
        real, _labels = trainer._reals(trainer.nimg)
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
    assert [name for name, _ in seen] == ["G", "D", "D"]  # G learns from the fakes that D was shown
    for name, labels in seen:
        assert torch.equal(labels.view(-1, 32)[0], reals), name
        assert torch.equal(labels.view(-1, 32)[-1], reals), name


def test_every_tick_has_draws_of_its_own(make_trainer: Make) -> None:
    """Though each begins with a seed, which is what makes it restartable."""
    trainer = make_trainer()
    seen: list[Tensor] = []
    trainer.G.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    trainer.advance(1)
    trainer.advance(2)
    assert len(seen) == 63
    assert len(torch.cat(seen).unique(dim=0)) == 32 * len(seen)


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

    def add(name: str, *values: Tensor) -> None:
        if name == "loss_g":
            seen.append(values[0].detach())
        record(name, *values)

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


def test_a_reading_asks_d_with_the_labels_of_the_images(make_trainer: Make, dataset: Dataset) -> None:
    trainer = make_trainer(conditional=True)
    seen: list[tuple[Tensor, Tensor]] = []
    trainer.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    trainer.read_balance(torch.from_numpy(dataset.held), torch.from_numpy(dataset.held_labels))
    (held, held_labels), (train, train_labels), (fake, fake_labels) = seen
    assert torch.equal(held, to_float(torch.from_numpy(dataset.held)))
    assert held_labels.tolist() == dataset.held_labels.tolist()
    label_of = {
        image.tobytes(): label for image, label in zip(dataset.train, dataset.train_labels, strict=True)
    }
    assert [label_of[image.numpy().tobytes()] for image in to_uint8(train)] == train_labels.tolist()
    assert len(held) == len(train) == len(fake) == len(fake_labels) == 40


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


# ---- Schedules, augmentation, controller

SCHEDULED: dict[str, Any] = {
    "schedule": "cosine", "burn_in_kimg": 2.5, "lr_final": 0.25, "beta2_final": 0.9,
    "penalty": "r1r2", "gamma_final": 0.1, "ema_start": 0.0, "kimg": 4,
}  # fmt: skip
ANSWERING: dict[str, Any] = {"augment": "ada", "augment_kimg": 2.0, "augment_start": 0.5}


def told(auc: float = 0.75, overfit: float = 0.5) -> BalanceReading:
    return BalanceReading(0.5, auc, overfit, 0.0, 0.0, 0.5, 0.5, 1.0)


@pytest.mark.parametrize("controller", ["skip", "lr_ratio"])
@pytest.mark.parametrize("game", [{}, {"loss": "relativistic", "n_critic": 2, "conditional": True}], ids=str)
def test_resumed_equals_uninterrupted_with_all_that_answers(
    make_trainer: Make, game: dict[str, Any], controller: str
) -> None:
    """Schedules, ADA and the controller: their state is in the checkpoint, all else follows from nimg."""
    changes = {**SCHEDULED, **ANSWERING, **game, "controller": controller}
    whole = make_trainer(**changes)
    state = snapshot(whole)
    for tick, reading in enumerate([told(1.0, 0.8), told(0.98, 0.9), told(0.2, 0.65)], start=1):
        resumed = make_trainer(**changes)
        resumed.load_state_dict(state)
        for trainer in (whole, resumed):
            trainer.advance(tick)
            trainer.react(reading)
        assert same(everything(whole), everything(resumed)), tick
        assert whole.settings() == resumed.settings()
        assert all(whole.settings().values())
        state = snapshot(whole)


def test_a_checkpoint_from_before_the_controller_can_be_read(make_trainer: Make) -> None:
    trainer = make_trainer(controller="skip")
    trainer.control = 0.5
    state = {name: part for name, part in snapshot(trainer).items() if name not in ("control", "ada_p")}
    trainer.load_state_dict(state)
    assert trainer.settings() == {"augment_p": 0.0, "control": 0.0}


@pytest.mark.parametrize(
    "changes", [{"augment": "ada"}, {"augment": "diffaugment", "augment_p": 0.0}], ids=str
)
def test_what_is_at_rest_changes_no_bit(make_trainer: Make, changes: dict[str, Any]) -> None:
    plain, still = make_trainer(), make_trainer(**changes, schedule="cosine", controller="skip")
    for trainer in (plain, still):
        trainer.advance(1)
    assert same(everything(plain), everything(still))


def test_optimizers_and_average_follow_the_schedule(make_trainer: Make) -> None:
    trainer = make_trainer(**SCHEDULED, beta1=0.1, controller="lr_ratio")
    trainer.control = 0.5
    trainer.advance(2)
    now = step_schedule(trainer.config, trainer.nimg - 32, 0.5, 0.0)
    assert 0.25e-3 < now.lr_g < 0.5e-3
    assert trainer.opt_g.param_groups[0]["lr"] == now.lr_g
    assert trainer.opt_d.param_groups[0]["lr"] == now.lr_d == pytest.approx(now.lr_g / 8**0.5)
    for optimizer in (trainer.opt_g, trainer.opt_d):
        assert optimizer.param_groups[0]["betas"] == (0.1, now.beta2)
    assert trainer.ema.halflife_nimg == now.ema_halflife_nimg


def test_rates_and_penalty_that_end_at_zero_end(make_trainer: Make) -> None:
    changes = {**SCHEDULED, "burn_in_kimg": 1.0, "lr_final": 0.0, "gamma_final": 0.0}
    trainer = make_trainer(**changes, batch_size=40)
    trainer.advance(1)
    assert trainer.tally.read()["penalty"] > 0
    before = weights(trainer.G), weights(trainer.D)
    trainer.advance(2)
    assert torch.equal(weights(trainer.G), before[0])
    assert torch.equal(weights(trainer.D), before[1])
    assert trainer.tally.read()["penalty"] == 0


def test_d_sees_augmented_images_only(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reals and fakes, in both players' steps and in the penalty; each drawn for by itself."""
    made: list[Tensor] = []
    given: list[tuple[Tensor, float]] = []
    seen: list[Tensor] = []

    def negative(images: Tensor, p: float, rng: torch.Generator) -> Tensor:
        given.append((images.detach(), p))
        return -images

    monkeypatch.setattr(trainer_room, "diffaugment", negative)
    trainer = make_trainer(loss="relativistic", penalty="r1r2", augment="diffaugment", augment_p=0.4)
    trainer.G.register_forward_hook(lambda module, inputs, images: made.append(images.detach()))
    trainer.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    real, _ = trainer._reals(0)
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 1)
    (fake,) = made
    assert [p for _, p in given] == [0.4] * 3
    assert all(torch.equal(a, b) for (a, _), b in zip(given, (real, fake, fake), strict=True))
    expected = [torch.cat([-real, -fake]), -fake, -real]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_augmentation_reaches_g_and_is_repeatable(make_trainer: Make) -> None:
    games = [make_trainer(augment="diffaugment", augment_p=p) for p in (0.0, 0.8, 0.8)]
    for trainer in games:
        trainer.advance(1)
    assert same(everything(games[1]), everything(games[2]))
    assert not torch.equal(weights(games[0].G), weights(games[1].G))
    assert all(map(math.isfinite, games[1].tally.read().values()))


def test_ada_follows_the_overfit_and_is_capped(make_trainer: Make) -> None:
    trainer = make_trainer(augment="ada", augment_p=1.0, augment_kimg=5.0)
    path = []
    for overfit in [0.9] * 6 + [math.nan] + [0.5] * 6:
        trainer.react(told(overfit=overfit))
        path.append(trainer.settings()["augment_p"])
    assert path[:7] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])
    assert path[7:] == pytest.approx([0.6, 0.4, 0.2, 0, 0, 0])
    deaf = make_trainer(augment="diffaugment", augment_p=0.3)
    deaf.react(told(overfit=0.9))
    assert deaf.settings()["augment_p"] == 0.3


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
@pytest.mark.parametrize(("control", "g", "d"), [(0.0, 25, 25), (1.0, 25, 7), (-1.0, 7, 25)])
def test_skip_leaves_out_updates_of_the_winner(
    make_trainer: Make, loss: str, control: float, g: int, d: int
) -> None:
    """25 turns, of which the winner leaves out 18; the clock goes on, the lazy penalty keeps D's own time."""
    trainer = make_trainer(loss=loss, controller="skip", batch_size=40, penalty="r1", penalty_interval=4)
    trainer.control = control
    trainer.advance(1)
    assert trainer.nimg == 1000
    assert (steps_of(trainer.opt_g), steps_of(trainer.opt_d)) == (g, d)
    assert trainer.d_steps == d
    assert trainer.tally._counts["penalty"] == -(-d // 4)
    assert all(map(math.isfinite, trainer.tally.read().values()))


def test_the_controller_waits_for_the_warm_up(make_trainer: Make) -> None:
    """While D trains alone it wins, and that is no fault of it."""
    trainer = make_trainer(controller="skip", d_warmup_kimg=1.0, batch_size=50)
    controls = []
    for tick in (1, 2):
        trainer.advance(tick)
        trainer.react(told(auc=1.0))
        controls.append(trainer.settings()["control"])
    assert controls == pytest.approx([0.0, 0.5])


@pytest.mark.parametrize("controller", ["skip", "lr_ratio"])
def test_a_controller_narrows_the_gap(make_trainer: Make, dataset: Dataset, controller: str) -> None:
    """D learns ten times as fast as G and wins; held back it wins by less."""
    auc = {}
    for name in ("none", controller):
        trainer = make_trainer(controller=name, lr_g=3e-4, lr_d=3e-3, kimg=8)
        readings = []
        for tick in range(1, 9):
            trainer.advance(tick)
            readings.append(trainer.read_balance(torch.from_numpy(dataset.held), None))
            trainer.react(readings[-1])
        auc[name] = sum(reading.auc for reading in readings[-4:]) / 4
        if name != "none":
            assert trainer.settings()["control"] != 0
    assert auc[controller] < auc["none"]
