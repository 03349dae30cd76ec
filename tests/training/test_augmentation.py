"""Augmentation: what it changes, its random draws against enumeration, the control of ADA."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.training.augmentation import (
    ADA_CEILING,
    ADA_WIDTH,
    diffaugment,
    next_augment_p,
    random_color,
    random_cutout,
    random_translation,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, channels: int = 3, size: int = 8) -> Tensor:
    """In [-1, 1], channels_last, no two pixels alike."""
    images = torch.rand(count, channels, size, size, generator=rng(9)) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last)


def grid(side: int) -> Tensor:
    """(side^2, 2) draws, evenly spread over the unit square."""
    line = (torch.arange(side) + 0.5) / side
    return torch.cartesian_prod(line, line)


TRANSFORMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "color": (random_color, 3),
    "translation": (random_translation, 2),
    "cutout": (random_cutout, 2),
}


# ---- diffaugment


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 13, 28])
def test_shape_type_and_memory(channels: int, size: int) -> None:
    images = pictures(16, channels, size)
    for given in (images, images.contiguous(), images.bfloat16()):
        out = diffaugment(given, 0.5, rng())
        assert (out.shape, out.dtype) == (images.shape, torch.float32)
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert out.isfinite().all()


def test_p_zero_is_the_identity_and_uses_no_randomness() -> None:
    images, source = pictures(), rng()
    assert diffaugment(images, 0.0, source) is images
    assert torch.equal(source.get_state(), rng().get_state())
    assert torch.equal(diffaugment(images, 1e-12, source), images)  # also if it is computed


@pytest.mark.parametrize("p", [0.2, 0.8, 1.0])
def test_p_is_the_fraction_of_images_that_change(p: float) -> None:
    images = pictures(4000, 1, 4)
    out = diffaugment(images, p, rng(1))
    changed = (out != images).flatten(1).any(1).double().mean().item()
    assert changed == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 4000))


def test_images_are_augmented_independently() -> None:
    out = diffaugment(pictures(1).expand(100, -1, -1, -1), 1.0, rng())
    assert len(out.flatten(1).unique(dim=0)) == 100


def test_the_same_seed_gives_the_same_images() -> None:
    a, b, c = (diffaugment(pictures(), 0.8, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_global_random_state_is_not_used() -> None:
    before = torch.random.get_rng_state()
    diffaugment(pictures(), 0.8, rng())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_of_a_transform_against_finite_differences(name: str, channels: int) -> None:
    transform, count = TRANSFORMS[name]
    draws = torch.rand(2, count, generator=rng(3), dtype=torch.float64)
    images = pictures(2, channels, 5).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: transform(x, draws), images)


def test_gradient_flows_to_every_image_and_is_one_where_unchanged() -> None:
    images = pictures(200, 1, 6).requires_grad_(True)
    out = diffaugment(images, 0.5, rng())
    (gradient,) = torch.autograd.grad(out.sum(), images)
    same = (out == images).flatten(1).all(1)
    assert 50 < same.sum() < 150
    assert torch.equal(gradient[same], torch.ones_like(images[same]))
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    assert not torch.equal(gradient, torch.ones_like(images))


# ---- color, translation, cutout


def test_neutral_draws_change_nothing() -> None:
    """Brightness + 0, saturation x 1, contrast x 1; a shift by 0."""
    images = pictures()
    middle = torch.full((64, 3), 0.5)
    torch.testing.assert_close(random_color(images, middle), images)
    assert torch.equal(random_translation(images, middle[:, :2]), images)


def test_color_against_its_formulas() -> None:
    images = pictures(3)
    draws = torch.tensor([[0.9, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.75]])
    bright, grey, strong = random_color(images, draws)
    torch.testing.assert_close(bright, images[0] + 0.4)
    torch.testing.assert_close(grey, images[1].mean(0, keepdim=True).expand(3, -1, -1))
    torch.testing.assert_close(strong, images[2].mean() + 1.25 * (images[2] - images[2].mean()))


def test_saturation_does_not_change_grey_images() -> None:
    images = pictures(2, 1)
    draws = torch.tensor([[0.6, 0.1, 0.3], [0.6, 0.9, 0.3]])
    out = random_color(images[:1].expand(2, -1, -1, -1), draws)
    assert torch.equal(out[0], out[1])


@pytest.mark.parametrize("size", [8, 13, 28])
def test_translation_draws_all_shifts_equally_often(size: int) -> None:
    """Every shift up to an eighth of the side, against slices; the uncovered area is zero."""
    most = int(size / 8 + 0.5)
    side = 2 * most + 1
    image = pictures(1, 3, size)
    out = random_translation(image.expand(side**2, -1, -1, -1), grid(side))
    for moved, (down, right) in zip(out, itertools.product(range(-most, most + 1), repeat=2), strict=True):
        expected = torch.zeros_like(image[0])
        target = [slice(max(0, s), size + min(0, s)) for s in (down, right)]
        source = [slice(max(0, -s), size + min(0, -s)) for s in (down, right)]
        expected[:, target[0], target[1]] = image[0][:, source[0], source[1]]
        assert torch.equal(moved, expected)


def test_translation_keeps_most_of_an_image() -> None:
    """At most an eighth is lost on two sides: at least (7/8)^2 of a constant image stays."""
    flat = torch.ones(500, 1, 16, 16)
    mass = random_translation(flat, torch.rand(500, 2, generator=rng())).mean(dim=(1, 2, 3))
    assert mass.max() == 1
    assert mass.min() == pytest.approx((14 / 16) ** 2)


@pytest.mark.parametrize("size", [8, 13, 28])
def test_cutout_zeroes_a_square(size: int) -> None:
    """For all centres, against enumeration: a square of half the side that may extend over the edge."""
    length = int(size / 2 + 0.5)
    positions = size + 1 - length % 2
    inside = [
        sum(0 <= first + i < size for i in range(length))
        for first in range(-(length // 2), positions - length // 2)
    ]
    out = random_cutout(torch.ones(positions**2, 1, size, size), grid(positions))
    zeros = (out == 0).flatten(1).sum(1).tolist()
    assert zeros == [a * b for a in inside for b in inside]
    assert max(zeros) == length**2
    assert min(zeros) >= (length // 2) ** 2


@pytest.mark.parametrize("name", ["translation", "cutout"])
def test_draws_at_the_end_of_their_range_stay_within_bounds(name: str) -> None:
    """The largest float below 1 times a count can round up to the count."""
    almost = torch.nextafter(torch.ones(1, 2), torch.zeros(1, 2))
    for size in range(2, 40):
        image = torch.ones(1, 1, size, size)
        top = TRANSFORMS[name][0](image, torch.full((1, 2), 1 - 1e-3))
        assert torch.equal(TRANSFORMS[name][0](image, almost), top)


# ---- ADA


@pytest.mark.parametrize(
    ("p", "overfit", "after"),
    [
        (0.3, 0.6, 0.3),  # on target
        (0.3, 0.6 + ADA_WIDTH / 2, 0.35),
        (0.3, 0.9, 0.4),  # at most a step
        (0.3, 0.5, 0.2),
        (0.05, 0.5, 0.0),
        (0.75, 1.0, ADA_CEILING),
        (0.3, math.nan, 0.3),
    ],
)
def test_next_augment_p(p: float, overfit: float, after: float) -> None:
    assert next_augment_p(p, overfit, target=0.6, step=0.1, ceiling=1.0) == pytest.approx(after)


def test_next_augment_p_is_monotone_in_both_and_bounded() -> None:
    readings, ps = [i / 20 for i in range(21)], [i / 25 for i in range(21)]
    table = torch.tensor(
        [[next_augment_p(p, o, 0.6, 0.25, 0.8) for o in readings] for p in ps], dtype=torch.float64
    )
    assert (table.diff(dim=0) >= 0).all()
    assert (table.diff(dim=1) >= 0).all()
    assert table.min() == 0
    assert table.max() == ADA_CEILING
    assert (table - torch.tensor(ps, dtype=torch.float64)[:, None]).abs().max() <= 0.25 + 1e-12


@pytest.mark.parametrize("ceiling", [0.0, 0.5, 0.8, 1.0])
def test_p_rises_while_d_overfits_and_falls_afterwards(ceiling: float) -> None:
    p, path = 0.0, []
    for overfit in [0.9] * 30 + [0.5] * 30:
        p = next_augment_p(p, overfit, 0.6, 0.05, ceiling)
        path.append(p)
    assert path[:30] == sorted(path[:30])
    assert path[29] == min(ceiling, 0.8)
    assert path[30:] == sorted(path[30:], reverse=True)
    assert path[-1] == 0
