"""Nearest neighbours and the metrics from them: constructed sets, the definitions, blocks."""

from __future__ import annotations

import pytest
import torch

from pipeline.metrics import prdc


def gaussian(n, d, seed=0, *, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double() * scale + shift


def test_manifold_of_constructed_sets():
    line = torch.arange(10.0)[:, None]  # k-th neighbours at most k away
    same = prdc.manifold(line, line)
    assert same[:2] == (1.0, 1.0)
    assert same.coverage == 1.0
    assert prdc.manifold(line, line + 100) == (0.0, 0.0, 0.0, 0.0)
    half = prdc.manifold(torch.cat([line, line + 100]), torch.cat([line, line + 0.1]))
    assert half.precision == 1.0
    assert half.recall == half.coverage == 0.5
    stray = prdc.manifold(line, torch.cat([line[:5], line[:5] + 1000]))
    assert stray.precision == 0.5


def test_density_of_constructed_sets():
    real = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    # k=1: balls of radius 1, 1, 1 and 48; a sample at 1.0 is in the first three, 49 from the last
    assert prdc.manifold(real, torch.tensor([[1.0], [1.0]]), k=1, k_density=1).density == 3.0


def test_manifold_by_the_definitions():
    x, y = gaussian(40, 3), gaussian(30, 3, 1, scale=1.5, shift=0.7)

    def radius(points, k):
        return torch.cdist(points, points).sort(1).values[:, k]  # column 0 is the point itself

    across = torch.cdist(y, x)
    near = across <= radius(x, 5)
    found = prdc.manifold(x, y)
    assert found.precision == pytest.approx(float((across <= radius(x, 3)).any(1).double().mean()))
    assert found.recall == pytest.approx(float((across <= radius(y, 3)[:, None]).any(0).double().mean()))
    assert found.density == pytest.approx(float(near.sum()) / (5 * 30))
    assert found.coverage == pytest.approx(float(near.any(0).double().mean()))
    assert 0 < found.recall < 1
    assert 0 < found.precision < 1


def test_results_do_not_depend_on_the_blocks(monkeypatch):
    x, y = gaussian(37, 4), gaussian(23, 4, 1)
    whole = prdc.manifold(x, y), prdc.nearest_to(y, x, 3), prdc.nearest_within(x, 2)
    monkeypatch.setattr(prdc, "_BLOCK", 5)
    assert prdc.manifold(x, y) == whole[0]
    for found, expected in zip(prdc.nearest_to(y, x, 3), whole[1], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(prdc.nearest_within(x, 2), whole[2], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole[1][0], torch.cdist(y, x).topk(3, largest=False).values)


def test_nearest_within_finds_duplicates_but_not_the_point_itself():
    points = torch.tensor([[7, 7], [7, 7], [7, 11]], dtype=torch.uint8)
    assert prdc.nearest_within(points, 1).flatten().tolist() == [0.0, 0.0, 4.0]
