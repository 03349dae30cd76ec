"""A Gaussian process with one length scale per parameter, fitted by its marginal likelihood.

Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning": chapters 2 (regression) and 5 (choice
of the scales). The kernel is Matern's with nu = 5/2; its logarithms of inverse squared length scales
("relevances") have a normal prior, which decides where there are few points. Each point has a noise variance
of its own beside the common one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

_PRIOR_NOISE = math.log(0.1)
_NOISE_SPREAD, _SCALE_SPREAD = 1.5, 1.0
_RELEVANCE_BOUNDS, _SCALE_BOUNDS, _NOISE_BOUNDS = (-8.0, 4.0), (-3.0, 2.0), (-7.0, 1.0)
_JITTER = 1e-8


@dataclass(frozen=True)
class Prior:
    """Of the log relevances: mean (P,) and standard deviation."""

    mean: np.ndarray
    spread: float


@dataclass(frozen=True)
class Scales:
    """The parameters of the kernel, as logarithms. relevances: (P,). For values of variance 1."""

    relevances: np.ndarray
    scale: float = 0.0
    noise: float = _PRIOR_NOISE


class GaussianProcess:
    """The posterior of a function given `values` (N,) at `points` (N, width).

    columns: of each of the P parameters in `points`. noise: variance (N,) of each value beside the common
    one.
    """

    def __init__(
        self, points: np.ndarray, values: np.ndarray, noise: np.ndarray, columns: list[slice], scales: Scales
    ) -> None:
        self.scales = scales
        self._mean, self._deviation = float(values.mean()), float(values.std()) + 1e-9
        self._weights = np.zeros(points.shape[1])
        for column, relevance in zip(columns, scales.relevances, strict=True):
            self._weights[column] = math.exp(relevance / 2)
        self._points = points * self._weights
        kernel = math.exp(scales.scale) * _matern(_squared_distances(self._points, self._points))[0]
        diagonal = math.exp(scales.noise) + noise / self._deviation**2 + _JITTER
        self._factor = np.linalg.cholesky(kernel + np.diag(diagonal))
        self._solved = cho_solve((self._factor, True), (values - self._mean) / self._deviation)

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the common noise, in the unit of the values."""
        return math.exp(self.scales.noise / 2) * self._deviation

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (M,) of the function at points (M, width), without noise."""
        cross = _matern(_squared_distances(points * self._weights, self._points))[0]
        cross *= math.exp(self.scales.scale)
        half = solve_triangular(self._factor, cross.T, lower=True)
        variance = np.maximum(math.exp(self.scales.scale) - (half * half).sum(axis=0), 1e-9)
        return cross @ self._solved * self._deviation + self._mean, np.sqrt(variance) * self._deviation


def fit_scales(
    points: np.ndarray,
    values: np.ndarray,
    noise: np.ndarray,
    columns: list[slice],
    prior: Prior,
    iterations: int = 20,
) -> Scales:
    """The scales with the largest posterior; the shapes are those of `GaussianProcess`."""
    deviation = float(values.std()) + 1e-9
    target, own_noise = (values - values.mean()) / deviation, noise / deviation**2
    apart = np.stack([_squared_distances(points[:, c], points[:, c]) for c in columns])
    flat = apart.reshape(len(columns), -1)
    bounds = [*[_RELEVANCE_BOUNDS] * len(columns), _SCALE_BOUNDS, _NOISE_BOUNDS]
    means = np.concatenate([prior.mean, [0.0, _PRIOR_NOISE]])
    spreads = np.concatenate([np.full(len(columns), prior.spread), [_SCALE_SPREAD, _NOISE_SPREAD]])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        found, gradient = _negative_log_likelihood(theta, flat, target, own_noise)
        off = (theta - means) / spreads
        return found + 0.5 * float(off @ off), gradient + off / spreads

    start = np.clip(means, *np.array(bounds).T)
    options = {"maxiter": iterations}
    theta = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return Scales(theta[:-2], float(theta[-2]), float(theta[-1]))


def _negative_log_likelihood(
    theta: np.ndarray, flat: np.ndarray, target: np.ndarray, own_noise: np.ndarray
) -> tuple[float, np.ndarray]:
    """Of log relevances, scale and noise, with its gradient. flat: squared distances (P, N * N)."""
    count, weights = len(target), np.exp(theta[:-2])
    scale, noise = math.exp(theta[-2]), math.exp(theta[-1])
    matern, slope = _matern((weights @ flat).reshape(count, count))
    try:
        factor = np.linalg.cholesky(scale * matern + np.diag(noise + own_noise + _JITTER))
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    solved = cho_solve((factor, True), target)
    found = 0.5 * float(target @ solved) + float(np.log(np.diag(factor)).sum())
    pull = np.outer(solved, solved) - cho_solve((factor, True), np.eye(count))
    gradient = np.empty_like(theta)
    gradient[:-2] = -0.5 * scale * weights * (flat @ (pull * slope).ravel())
    gradient[-2] = -0.5 * scale * float((pull * matern).sum())
    gradient[-1] = -0.5 * noise * float(np.trace(pull))
    return found, gradient


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) of points (N, width) and (M, width)."""
    squared: np.ndarray = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return squared.clip(min=0.0)


def _matern(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matern 5/2 of squared distances, and its derivative by them."""
    root = np.sqrt(5 * squared)
    fall = np.exp(-root)
    return (1 + root + root * root / 3) * fall, -(5 / 6) * (1 + root) * fall
