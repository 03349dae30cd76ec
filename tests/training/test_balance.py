"""The balance against brute force, scikit-learn and the theory of two Gaussians; verdicts, controller."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import factories
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from pipeline.records import PENALTY, VERDICTS, TrialRecord
from pipeline.training.balance import (
    COLLAPSED,
    CONTROL_WIDTH,
    MAX_LR_RATIO,
    MAX_SKIPPED,
    ONE_SIDED,
    PATIENCE,
    BalanceReading,
    MetricAccumulator,
    auc,
    balance_from_auc,
    hopeless,
    lr_factors,
    read_scores,
    scoring_mode,
    skips_step,
    spread_ratio,
    update_controller,
    verdict,
)
from pipeline.training.losses import RELATIVISTIC, load_loss
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks

# ---- AUC


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_auc_against_brute_force_and_sklearn(levels: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    positive, negative = (torch.randint(levels, (n,), generator=rng).float() for n in (37, 53))
    pairs = [(p > n) + 0.5 * (p == n) for p in positive.tolist() for n in negative.tolist()]
    truth = [1] * len(positive) + [0] * len(negative)
    ours = auc(positive, negative).item()
    assert ours == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert ours == pytest.approx(roc_auc_score(truth, torch.cat([positive, negative]).numpy()), abs=1e-12)


def test_auc_is_a_rank_statistic() -> None:
    positive, negative = torch.randn(50).double() + 1, torch.randn(40).double()
    value = auc(positive, negative)
    assert auc(positive.exp(), negative.exp()) == value
    assert auc(negative, positive).item() == pytest.approx(1 - value.item(), abs=1e-12)
    assert auc(positive, positive).item() == 0.5


@pytest.mark.parametrize(("value", "balance"), [(0.0, 0), (0.25, 0.5), (0.5, 1), (0.75, 0.5), (1.0, 0)])
def test_balance_from_auc(value: float, balance: float) -> None:
    assert balance_from_auc(value) == balance


# ---- readings


def test_the_fields_of_a_reading() -> None:
    held, train = torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([5.0, 0.5])
    fake = torch.tensor([-2.0, 2.5])
    reading = read_scores(held, train, fake, torch.tensor(0.25))
    assert reading.auc == 5 / 8
    assert reading.balance == 0.75
    assert reading.overfit == 5 / 8
    assert (reading.score_real, reading.score_fake) == (1.25, 0.25)
    assert (reading.accuracy_real, reading.accuracy_fake, reading.diversity) == (0.75, 0.5, 0.25)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["held", "train", "fake", "diversity"])
def test_a_score_that_is_not_finite_makes_the_reading_nan(where: str, bad: float) -> None:
    tensors = {"held": torch.randn(4), "train": torch.randn(4), "fake": torch.randn(4)}
    tensors["diversity"] = torch.ones(1)
    tensors[where][0] = bad
    tensors["diversity"] = tensors["diversity"][0]
    reading = read_scores(**tensors)
    assert all(math.isnan(value) for value in vars(reading).values())
    assert verdict(reading, []) == "diverged"


def test_spread_ratio() -> None:
    real = torch.randn(200, 1, 4, 4)
    assert spread_ratio(real, real).item() == pytest.approx(1)
    assert spread_ratio(0.5 * real + 3, real).item() == pytest.approx(0.25, rel=1e-5)
    assert spread_ratio(real[:1].expand_as(real), real).item() == 0
    assert spread_ratio(real, torch.zeros_like(real)).isfinite()


# ---- two Gaussians: real N(0, 1), fake N(mu, 1)


def quantiles(mean: float, spread: float = 1.0, count: int = 2001) -> Tensor:
    """Equally likely points of N(mean, spread^2): means over them are integrals, without randomness."""
    probabilities = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return mean + spread * torch.special.ndtri(probabilities)


def minimise(parameters: list[Tensor], loss: Callable[[], Tensor]) -> float:
    options = {"line_search_fn": "strong_wolfe", "tolerance_change": 1e-12}
    optimizer = torch.optim.LBFGS(parameters, max_iter=300, **options)

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        torch.autograd.backward(value)
        return value.item()

    optimizer.step(closure)
    return loss().item()


@pytest.mark.parametrize("mu", [0.0, 0.5, -1.5])
@pytest.mark.parametrize("name", ["nonsaturating", "minimax"])
def test_d_converges_to_the_ratio_of_densities(name: str, mu: float) -> None:
    """log p/q = -mu x + mu^2 / 2: linear in x, so logistic regression holds the optimal D."""
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    real, fake = quantiles(0), quantiles(mu)
    minimum = minimise(
        [weight], lambda: load_loss(name).d(weight[0] * real + weight[1], weight[0] * fake + weight[1])
    )
    assert weight[0].item() == pytest.approx(-mu, abs=5e-3)
    assert weight[1].item() == pytest.approx(mu**2 / 2, abs=5e-3)
    if mu == 0:  # D is at chance level: its loss is log 4
        assert minimum == pytest.approx(math.log(4), abs=1e-9)
    else:
        assert minimum < math.log(4)


def test_relativistic_d_learns_the_ratio_up_to_a_constant() -> None:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    shuffle = torch.randperm(2001, generator=torch.Generator().manual_seed(0))
    real, fake = quantiles(0), quantiles(1.2)[shuffle]
    minimise([weight], lambda: RELATIVISTIC.d(weight * real, weight * fake))
    assert weight.item() == pytest.approx(-1.2, abs=0.1)


@pytest.mark.parametrize("spread", [1.0, 1.7])
@pytest.mark.parametrize(("name", "probability"), [("nonsaturating", torch.sigmoid), ("lsgan", lambda d: d)])
def test_a_network_converges_to_the_optimal_d(name: str, probability: Any, spread: float) -> None:
    """D* = p / (p + q) (Goodfellow et al. 2014; for lsgan D itself: Mao et al. 2017)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    real, fake = quantiles(0, count=601)[:, None], quantiles(1, spread, count=601)[:, None]
    minimise(list(network.parameters()), lambda: load_loss(name).d(network(real), network(fake)))
    x = torch.linspace(-1.5, 2, 50, dtype=torch.float64)[:, None]
    normal = torch.distributions.Normal
    p, q = normal(0.0, 1.0).log_prob(x).exp(), normal(1.0, spread).log_prob(x).exp()
    torch.testing.assert_close(probability(network(x)).detach(), p / (p + q), atol=0.03, rtol=0)


@pytest.mark.parametrize("mu", [0.0, 0.3, -1.0, 2.0])
def test_auc_of_the_optimal_d_of_two_gaussians(mu: float) -> None:
    """P(D(real) > D(fake)) = Phi(|mu| / sqrt 2), and the balance is 1 where the two agree."""
    real, fake = quantiles(0), quantiles(mu)
    reading = read_scores(-mu * real, -mu * real, -mu * fake, torch.ones(()))
    expected = 0.5 * (1 + math.erf(abs(mu) / 2))
    assert reading.auc == pytest.approx(expected, abs=1e-3)
    assert reading.balance == pytest.approx(2 - 2 * expected, abs=2e-3)
    assert reading.overfit == 0.5
    if mu == 0:
        assert reading.balance == 1.0


# ---- verdicts


def reading(**changes: float) -> BalanceReading:
    values = {"balance": 0.5, "auc": 0.75, "overfit": 0.5, "score_real": 0.0, "score_fake": 0.0}
    values |= {"accuracy_real": 0.5, "accuracy_fake": 0.5, "diversity": 1.0}
    return BalanceReading(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "losses", "word"),
    [
        ({}, [0.1, 0.2], "healthy"),
        ({"balance": 1.0, "auc": 0.5}, [], "healthy"),
        ({"balance": ONE_SIDED, "auc": 0.975}, [], "healthy"),
        ({"balance": 0.04, "auc": 0.98}, [], "d_wins"),
        ({"balance": 0.0, "auc": 1.0}, [], "d_wins"),
        ({"balance": 0.04, "auc": 0.02}, [], "g_wins"),
        ({"balance": 0.0, "auc": 0.0}, [], "g_wins"),
        ({"diversity": COLLAPSED}, [], "healthy"),
        ({"diversity": 0.04}, [], "collapsed"),
        ({"diversity": 0.04, "balance": 0.0, "auc": 1.0}, [], "collapsed"),
        ({"diversity": 0.0}, [math.nan], "diverged"),
        ({}, [0.1, math.inf], "diverged"),
        ({}, [0.1, -math.inf], "diverged"),
        ({"auc": math.nan}, [0.1], "diverged"),
    ],
)
def test_verdict(changes: dict[str, float], losses: list[float], word: str) -> None:
    assert verdict(reading(**changes), losses) == word
    assert word in VERDICTS


def records_of(words: list[str], objectives: list[float]) -> list[TrialRecord]:
    auc_of = {"d_wins": 1.0, "g_wins": 0.0}
    return [
        factories.record(kimg=i + 1, verdict=word, objective=objective, auc=auc_of.get(word, 0.7))
        for i, (word, objective) in enumerate(zip(words, objectives, strict=True))
    ]


@pytest.mark.parametrize(
    ("words", "objectives", "lost"),
    [
        (["d_wins"] * 4, [9.0] * 4, True),
        (["g_wins"] * 4, [9.0] * 4, True),
        (["collapsed"] * 4, [9.0] * 4, True),
        (["collapsed", "d_wins", "g_wins", "d_wins"], [PENALTY] * 4, True),
        (
            ["d_wins"] * 4,
            [1013.0, 800.0, 500.0, 348.0],
            False,
        ),  # with a relativistic loss G may improve at AUC 1
        (["d_wins"] * 4, [9.0, 9.0, 9.0, 8.9], False),
        (["d_wins"] * 6, [20.0, 10.0, 9.0, 9.0, 9.0, 9.0], True),
        (["d_wins", "d_wins", "healthy", "d_wins"], [9.0] * 4, False),
        (["healthy"] * 9, [9.0] * 9, False),
        (["healthy"] + ["d_wins"] * 4, [9.0] * 5, True),
        (["d_wins"] * 4 + ["healthy"], [9.0] * 5, False),
        (["diverged"] * 4, [9.0] * 4, False),  # such a trial has ended already
    ],
)
def test_hopeless(words: list[str], objectives: list[float], lost: bool) -> None:
    assert hopeless(records_of(words, objectives)) is lost


def test_nothing_is_hopeless_in_the_first_ticks() -> None:
    for count in range(PATIENCE):
        assert not hopeless(records_of(["d_wins"] * count, [9.0] * count))


# ---- the controller


def control_path(aucs: list[float], control: float = 0.0) -> list[float]:
    path = []
    for value in aucs:
        control = update_controller(control, value, low=0.6, high=0.9)
        path.append(control)
    return path


@pytest.mark.parametrize(("value", "sign"), [(1.0, 1), (0.5, -1), (0.0, -1)])
def test_a_winner_is_slowed_increasingly_up_to_the_bound(value: float, sign: int) -> None:
    path = [sign * control for control in control_path([value] * 60)]
    assert path[:3] == pytest.approx([0.5, 0.75, 0.875])
    assert path == sorted(path)
    assert path[-1] == pytest.approx(1)
    assert max(path) <= 1


@pytest.mark.parametrize("start", [1.0, 0.3, -0.7, -1.0])
@pytest.mark.parametrize("value", [0.6, 0.75, 0.9])
def test_inside_the_band_control_returns_to_neutral(value: float, start: float) -> None:
    path = [abs(control) for control in control_path([value] * 10, start)]
    assert path == sorted(path, reverse=True)
    assert path[-1] == 0.0


@pytest.mark.parametrize(("outside", "settled"), [(0.2, 0.2), (0.5, 0.5), (1.0, 1.0), (1.9, 1.0)])
def test_control_converges_in_proportion_to_the_distance_from_the_band(
    outside: float, settled: float
) -> None:
    distance = outside * CONTROL_WIDTH
    assert control_path([0.9 + distance] * 40)[-1] == pytest.approx(settled)
    assert control_path([0.6 - distance] * 40)[-1] == pytest.approx(-settled)


def test_control_is_monotone_and_bounded() -> None:
    values, controls = [i / 200 for i in range(201)], [i / 50 - 1 for i in range(101)]
    table = torch.tensor(
        [[update_controller(c, v, 0.6, 0.9) for v in values] for c in controls], dtype=torch.float64
    )
    assert (table.diff(dim=0) >= 0).all()
    assert (table.diff(dim=1) >= 0).all()
    assert (table.min().item(), table.max().item()) == pytest.approx((-1, 1))
    assert table.abs().max() <= 1


def test_a_nan_does_not_change_control() -> None:
    assert len(set(control_path([1.0, math.nan, math.nan]))) == 1


def test_the_auc_is_brought_back_near_its_band() -> None:
    """D leads by 4.5 in logits; each unit of control takes 3 off."""
    control, seen = 0.0, []
    for _ in range(60):
        value = 1 / (1 + math.exp(-(4.5 - 3 * control)))
        seen.append(value)
        control = update_controller(control, value, 0.6, 0.9)
    assert seen[0] > 0.98
    assert all(0.9 < value < 0.96 for value in seen[-10:])
    assert max(seen[-10:]) - min(seen[-10:]) < 0.02  # it does not oscillate


@pytest.mark.parametrize("control", [0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0])
def test_skipped_steps_are_evenly_spaced(control: float) -> None:
    skipped = [skips_step(control, step) for step in range(1000)]
    for window in (1, 7, 100, 1000):
        counts = [sum(skipped[i : i + window]) for i in range(1001 - window)]
        assert all(abs(count - MAX_SKIPPED * control * window) < 1 + 1e-6 for count in counts)
    assert not any(skips_step(-control, step) for step in range(100))


@pytest.mark.parametrize("control", [-1.0, -0.2, 0.0, 0.5, 1.0])
def test_lr_factors_are_bounded_and_slow_only_the_winner(control: float) -> None:
    g, d = lr_factors(control)
    assert max(g, d) == 1.0
    assert d / g == pytest.approx(MAX_LR_RATIO**-control)
    assert 1 / MAX_LR_RATIO <= d / g <= MAX_LR_RATIO


# ---- MetricAccumulator


def test_reading_gives_means_and_resets_them() -> None:
    metrics = MetricAccumulator(torch.device("cpu"))
    for value in (1.0, 2.0, 6.0):
        metrics.add("loss_d", torch.tensor(value, requires_grad=True))
    metrics.add("penalty", torch.tensor(4.0))
    means = metrics.read()
    assert tuple(means) == MetricAccumulator.NAMES
    assert (means["loss_d"], means["penalty"], means["loss_g"]) == (3.0, 4.0, 0.0)
    assert set(metrics.read().values()) == {0.0}
    metrics.add("loss_d", torch.tensor(5.0))
    assert metrics.read()["loss_d"] == 5.0


def test_one_nan_makes_the_mean_nan_and_only_that_one() -> None:
    metrics = MetricAccumulator(torch.device("cpu"))
    for value in (1.0, math.nan, 1.0):
        metrics.add("loss_g", torch.tensor(value))
    metrics.add("loss_d", torch.tensor(1.0))
    means = metrics.read()
    assert math.isnan(means["loss_g"])
    assert means["loss_d"] == 1.0
    assert metrics.read()["loss_g"] == 0.0


# ---- scoring_mode


@pytest.mark.parametrize("norm_d", ["none", "batch", "layer", "spectral"])
def test_scoring_mode_has_no_side_effects(tiny: Any, norm_d: str) -> None:
    networks = build_networks(tiny(norm_d=norm_d, norm_g="batch", conditional=True), ImageShape(16, 1, 3))
    images, labels = torch.randn(6, 1, 16, 16), torch.arange(6) % 3
    networks[1](images, labels)  # changes the running statistics
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    with scoring_mode(*networks):
        networks[1](networks[0](torch.randn(6, 8), labels), labels)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    for network, state in zip(networks, before, strict=True):
        assert all(module.training for module in network.modules())
        for name, value in network.state_dict().items():
            if not name.endswith("num_batches_tracked"):  # still counted, but unused while momentum is set
                assert torch.equal(value, state[name]), name
    momenta = [m.momentum for n in networks for m in n.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(momenta) == {0.1}


def test_scoring_mode_gives_the_outputs_of_training(tiny: Any) -> None:
    """With the statistics of the batch, not the running ones; modes are restored after an error too."""
    generator, _ = build_networks(tiny(norm_g="batch"), ImageShape(8, 1))
    z = torch.randn(16, 8) * 3
    expected = copy.deepcopy(generator)(z).detach()
    with scoring_mode(generator):
        assert torch.equal(generator(z), expected)
    assert not torch.allclose(copy.deepcopy(generator).eval()(z), expected, atol=1e-3)

    def fail() -> None:
        with scoring_mode(generator):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert generator.training
