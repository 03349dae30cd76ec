"""Trainers that diverge, balance readings, and what adapts: schedules, augmentation, ADA, the controller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import trainers
from torch import Tensor
from trainers import optimizer_steps, same, snapshot, state_of, weights

from pipeline.data.dataset import Dataset, to_float
from pipeline.training import trainer as trainer_module
from pipeline.training.balance import BalanceReading, verdict
from pipeline.training.networks.build import to_uint8
from pipeline.training.schedules import step_schedule
from pipeline.training.trainer import Trainer

Make = Callable[..., Trainer]


# ---- Diverging


@pytest.mark.parametrize("network", ["G", "D"])
def test_a_nan_in_the_weights_gives_the_verdict_diverged(
    make_trainer: Make, dataset: Dataset, network: str
) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        next(getattr(trainer, network).parameters())[0] = math.nan
    trainer.advance(1)
    means = trainer.metrics.read()
    reading = trainer.read_balance(torch.from_numpy(dataset.held), None)
    assert math.isnan(means["loss_d"])
    assert verdict(reading, list(means.values())) == "diverged"


def test_exploding_training_gives_the_verdict_diverged(make_trainer: Make, dataset: Dataset) -> None:
    wild = {"architecture": "mlp", "depth_d": 8, "depth_g": 8, "width_d": 64, "loss": "lsgan"}
    trainer = make_trainer(**wild, lr_g=1.0, lr_d=1.0)
    trainer.advance(2)
    means = trainer.metrics.read()
    reading = trainer.read_balance(torch.from_numpy(dataset.held), None)
    assert verdict(reading, list(means.values())) == "diverged"


# ---- The reading


@pytest.mark.parametrize("name", trainers.CONFIGS)
def test_a_balance_reading_does_not_change_training(make_trainer: Make, dataset: Dataset, name: str) -> None:
    """Two trainers, one with readings: the same weights (except for the counters of batch norm)."""
    read, unread = make_trainer(**trainers.CONFIGS[name]), make_trainer(**trainers.CONFIGS[name])
    held, labels = torch.from_numpy(dataset.held), torch.from_numpy(dataset.held_labels)
    readings = []
    for steps in (6, 12):
        read.advance(1, should_stop=lambda: read.d_steps >= steps)  # noqa: B023
        readings = [read.read_balance(held, labels) for _ in range(2)]
        unread.advance(1, should_stop=lambda: unread.d_steps >= steps)  # noqa: B023
    assert readings[0] == readings[1]
    for name in ("G", "D"):
        ours, theirs = (getattr(trainer, name).state_dict() for trainer in (read, unread))
        for key in ours:
            assert key.endswith("num_batches_tracked") or torch.equal(ours[key], theirs[key]), key
    assert 0 <= readings[0].auc <= 1


def test_a_balance_reading_gives_d_the_labels_of_the_images(make_trainer: Make, dataset: Dataset) -> None:
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


def test_with_mirror_every_second_real_of_a_balance_reading_is_mirrored(
    make_trainer: Make, dataset: Dataset
) -> None:
    """Of both splits; the images, their labels and the fakes are those of a reading without it."""
    seen: dict[bool, list[tuple[Tensor, Tensor]]] = {False: [], True: []}
    held, labels = torch.from_numpy(dataset.held), torch.from_numpy(dataset.held_labels)
    for mirror, inputs in seen.items():
        trainer = make_trainer(conditional=True, mirror=mirror)
        trainer.D.register_forward_pre_hook(lambda module, given: inputs.append(given))  # noqa: B023
        trainer.read_balance(held, labels)
    assert torch.equal(held, torch.from_numpy(dataset.held))
    for plain, mirrored in zip(seen[False][:2], seen[True][:2], strict=True):
        assert torch.equal(plain[0][::2], mirrored[0][::2])
        assert torch.equal(plain[0][1::2].flip(3), mirrored[0][1::2])
        assert torch.equal(plain[1], mirrored[1])
    assert torch.equal(seen[False][2][0], seen[True][2][0])


def test_the_auc_of_a_d_that_trains_alone_is_near_1(make_trainer: Make, dataset: Dataset) -> None:
    """G hardly learns, so D wins; but it has not memorised the training reals."""
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
ADAPTIVE: dict[str, Any] = {"augment": "ada", "augment_kimg": 2.0, "augment_start": 0.5}


def balance_reading(auc: float = 0.75, overfit: float = 0.5) -> BalanceReading:
    return BalanceReading(0.5, auc, overfit, 0.0, 0.0, 0.5, 0.5, 1.0)


@pytest.mark.parametrize("controller", ["skip", "lr_ratio"])
@pytest.mark.parametrize(
    "changes", [{}, {"loss": "relativistic", "n_critic": 2, "conditional": True}], ids=str
)
def test_resumed_equals_uninterrupted_with_schedules_ada_and_controller(
    make_trainer: Make, changes: dict[str, Any], controller: str
) -> None:
    """The state of ADA and of the controller is in the checkpoint; schedules are functions of nimg."""
    config = {**SCHEDULED, **ADAPTIVE, **changes, "controller": controller}
    whole = make_trainer(**config)
    state = snapshot(whole)
    for tick, reading in enumerate(
        [balance_reading(1.0, 0.8), balance_reading(0.98, 0.9), balance_reading(0.2, 0.65)], start=1
    ):
        resumed = make_trainer(**config)
        resumed.load_state_dict(state)
        for trainer in (whole, resumed):
            trainer.advance(tick)
            trainer.adapt(reading)
        assert same(state_of(whole), state_of(resumed)), tick
        assert whole.adaptive_settings() == resumed.adaptive_settings()
        assert all(whole.adaptive_settings().values())
        state = snapshot(whole)


def test_a_checkpoint_from_before_the_controller_can_be_read(make_trainer: Make) -> None:
    trainer = make_trainer(controller="skip")
    trainer.control = 0.5
    state = {name: part for name, part in snapshot(trainer).items() if name not in ("control", "ada_p")}
    trainer.load_state_dict(state)
    assert trainer.adaptive_settings() == {"augment_p": 0.0, "control": 0.0}


@pytest.mark.parametrize(
    "changes", [{"augment": "ada"}, {"augment": "diffaugment", "augment_p": 0.0}], ids=str
)
def test_neutral_settings_change_no_bit(make_trainer: Make, changes: dict[str, Any]) -> None:
    plain, neutral = make_trainer(), make_trainer(**changes, schedule="cosine", controller="skip")
    for trainer in (plain, neutral):
        trainer.advance(1)
    assert same(state_of(plain), state_of(neutral))


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


def test_learning_rates_and_penalty_can_end_at_zero(make_trainer: Make) -> None:
    changes = {**SCHEDULED, "burn_in_kimg": 1.0, "lr_final": 0.0, "gamma_final": 0.0}
    trainer = make_trainer(**changes, batch_size=40)
    trainer.advance(1)
    assert trainer.metrics.read()["penalty"] > 0
    before = weights(trainer.G), weights(trainer.D)
    trainer.advance(2)
    assert torch.equal(weights(trainer.G), before[0])
    assert torch.equal(weights(trainer.D), before[1])
    assert trainer.metrics.read()["penalty"] == 0


def test_d_sees_augmented_images_only(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reals and fakes, in the updates of D and G and in the penalty."""
    made: list[Tensor] = []
    given: list[tuple[Tensor, float]] = []
    seen: list[Tensor] = []

    def negative(images: Tensor, p: float, rng: torch.Generator) -> Tensor:
        given.append((images.detach(), p))
        return -images

    monkeypatch.setattr(trainer_module, "diffaugment", negative)
    trainer = make_trainer(loss="relativistic", penalty="r1r2", augment="diffaugment", augment_p=0.4)
    trainer.G.register_forward_hook(lambda module, inputs, images: made.append(images.detach()))
    trainer.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    trainer._prefetcher.load(0)
    real = trainer._prefetcher.reals()
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 1)
    (fake,) = made
    assert [p for _, p in given] == [0.4] * 3
    assert all(torch.equal(a, b) for (a, _), b in zip(given, (real, fake, fake), strict=True))
    expected = [torch.cat([-real, -fake]), -fake, -real]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_augmentation_changes_g_s_updates_repeatably(make_trainer: Make) -> None:
    trained = [make_trainer(augment="diffaugment", augment_p=p) for p in (0.0, 0.8, 0.8)]
    for trainer in trained:
        trainer.advance(1)
    assert same(state_of(trained[1]), state_of(trained[2]))
    assert not torch.equal(weights(trained[0].G), weights(trained[1].G))
    assert all(map(math.isfinite, trained[1].metrics.read().values()))


def test_ada_follows_the_overfit_and_is_capped(make_trainer: Make) -> None:
    trainer = make_trainer(augment="ada", augment_p=1.0, augment_kimg=5.0)
    probabilities = []
    for overfit in [0.9] * 6 + [math.nan] + [0.5] * 6:
        trainer.adapt(balance_reading(overfit=overfit))
        probabilities.append(trainer.adaptive_settings()["augment_p"])
    assert probabilities[:7] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])
    assert probabilities[7:] == pytest.approx([0.6, 0.4, 0.2, 0, 0, 0])
    without_ada = make_trainer(augment="diffaugment", augment_p=0.3)
    without_ada.adapt(balance_reading(overfit=0.9))
    assert without_ada.adaptive_settings()["augment_p"] == 0.3


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
@pytest.mark.parametrize(("control", "g", "d"), [(0.0, 25, 25), (1.0, 25, 7), (-1.0, 7, 25)])
def test_skip_skips_updates_of_the_winner(
    make_trainer: Make, loss: str, control: float, g: int, d: int
) -> None:
    """Of 25 updates the winner skips 18. nimg advances; the lazy penalty counts D's updates."""
    trainer = make_trainer(loss=loss, controller="skip", batch_size=40, penalty="r1", penalty_interval=4)
    trainer.control = control
    trainer.advance(1)
    assert trainer.nimg == 1000
    assert (optimizer_steps(trainer.opt_g), optimizer_steps(trainer.opt_d)) == (g, d)
    assert trainer.d_steps == d
    assert trainer.metrics.state_dict()["counts"]["penalty"] == -(-d // 4)
    assert all(map(math.isfinite, trainer.metrics.read().values()))


def test_the_controller_waits_for_the_warm_up(make_trainer: Make) -> None:
    """During the warm-up D trains alone and wins, which is intended."""
    trainer = make_trainer(controller="skip", d_warmup_kimg=1.0, batch_size=50)
    controls = []
    for tick in (1, 2):
        trainer.advance(tick)
        trainer.adapt(balance_reading(auc=1.0))
        controls.append(trainer.adaptive_settings()["control"])
    assert controls == pytest.approx([0.0, 0.5])


@pytest.mark.parametrize("controller", ["skip", "lr_ratio"])
def test_a_controller_brings_the_auc_nearer_to_chance(
    make_trainer: Make, dataset: Dataset, controller: str
) -> None:
    """D has ten times the learning rate of G and wins; the controller reduces its advantage."""
    auc = {}
    for name in ("none", controller):
        trainer = make_trainer(controller=name, lr_g=3e-4, lr_d=3e-3, kimg=8)
        readings = []
        for tick in range(1, 9):
            trainer.advance(tick)
            readings.append(trainer.read_balance(torch.from_numpy(dataset.held), None))
            trainer.adapt(readings[-1])
        auc[name] = sum(reading.auc for reading in readings[-4:]) / 4
        if name != "none":
            assert trainer.adaptive_settings()["control"] != 0
    assert auc[controller] < auc["none"]
