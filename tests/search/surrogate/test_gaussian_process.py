"""The Gaussian process: its gradient, its posterior, and the relevance of parameters."""

from __future__ import annotations

import numpy as np
from scipy.optimize import check_grad

from pipeline.search.surrogate import gaussian_process as gp

COLUMNS = [slice(0, 1), slice(1, 2), slice(2, 4)]
PRIOR = gp.Prior(np.full(3, -0.7), 2.0)


def points(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 4))


def fitted(x: np.ndarray, y: np.ndarray, noise: np.ndarray | None = None) -> gp.GaussianProcess:
    noise = np.zeros(len(y)) if noise is None else noise
    return gp.GaussianProcess(x, y, noise, COLUMNS, gp.fit_scales(x, y, noise, COLUMNS, PRIOR))


def test_gradient_is_that_of_the_likelihood() -> None:
    x = points(12)
    apart = np.stack([gp._squared_distances(x[:, c], x[:, c]) for c in COLUMNS]).reshape(3, -1)
    target, noise = np.sin(5 * x[:, 0]) + x[:, 2], np.linspace(0, 0.2, 12)

    def value(theta: np.ndarray) -> float:
        return gp._negative_log_likelihood(theta, apart, target, noise)[0]

    def gradient(theta: np.ndarray) -> np.ndarray:
        return gp._negative_log_likelihood(theta, apart, target, noise)[1]

    for seed in range(3):
        theta = np.random.default_rng(seed).normal(-0.5, 0.7, 5)
        assert check_grad(value, gradient, theta) < 1e-4 * (1 + np.abs(gradient(theta)).max())


def test_predicts_points_that_it_has_not_seen() -> None:
    x, new = points(80), points(200, seed=1)

    def truth(at: np.ndarray) -> np.ndarray:
        return 3 + np.sin(4 * at[:, 0]) + at[:, 1] ** 2

    mean, deviation = fitted(x, truth(x)).predict(new)
    errors = np.abs(mean - truth(new))
    assert errors.mean() < 0.1
    assert (errors < 3 * deviation + 0.05).mean() > 0.9


def test_what_does_not_matter_gets_a_small_relevance() -> None:
    x = points(60)
    scales = gp.fit_scales(x, np.sin(6 * x[:, 0]), np.zeros(60), COLUMNS, PRIOR)
    assert scales.relevances[0] > scales.relevances[1:].max() + 1.0


def test_a_noisy_value_counts_less() -> None:
    x = np.concatenate([points(20), points(20)])
    y = np.concatenate([np.zeros(20), np.ones(20)])  # each point twice: 0, and 1 with much noise
    y[0] = 0.01  # values of no variance at all say nothing about scales
    noise = np.concatenate([np.full(20, 1e-4), np.full(20, 4.0)])
    mean, _ = fitted(x, y, noise).predict(points(20))
    assert mean.mean() < 0.2


def test_far_from_all_points_it_knows_less() -> None:
    x = points(30) * 0.3
    process = fitted(x, np.sin(9 * x[:, 0]))
    near, far = process.predict(x)[1].mean(), process.predict(np.full((1, 4), 3.0))[1][0]
    assert far > 3 * near


def test_equal_points_and_equal_values_are_no_trouble() -> None:
    x = np.zeros((10, 4))
    mean, deviation = fitted(x, np.full(10, 2.5)).predict(x)
    assert np.allclose(mean, 2.5)
    assert np.isfinite(deviation).all()
