"""The Frechet step at Inception's d = 2048: ours, with the reals' factor computed once, against its peers.

    nice python benchmarks/fid.py [--d 2048] [--threads 2]

Ours is timed from statistics to number, as at every tick; the factor is made once per sweep and shown
apart. Peers: scipy's sqrtm (pytorch-fid, clean-fid), numpy eigvals (torch-fidelity), torch eigvals
(torchmetrics); the last two by their one formula, so nothing of theirs needs installing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from pipeline import fid
from pipeline.fid import RealFactor, Statistics

Cross = Callable[[torch.Tensor, torch.Tensor], float]


def sqrtm(s1: torch.Tensor, s2: torch.Tensor) -> float:
    import scipy.linalg

    return float(np.trace(scipy.linalg.sqrtm((s1 @ s2).numpy()).real))


def numpy_eigvals(s1: torch.Tensor, s2: torch.Tensor) -> float:
    return float(np.sqrt(np.linalg.eigvals((s1 @ s2).numpy()).astype(complex)).real.sum())


def torch_eigvals(s1: torch.Tensor, s2: torch.Tensor) -> float:
    return float(torch.linalg.eigvals(s1 @ s2).sqrt().real.sum())


PEERS: dict[str, Cross] = {
    "torch eigvals (torchmetrics)": torch_eigvals,
    "numpy eigvals (torch-fidelity)": numpy_eigvals,
    "scipy sqrtm (pytorch-fid)": sqrtm,
}


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """The value and the seconds: the best of three, or of one where that takes long."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 8:
        started = time.perf_counter()
        value = work()
        seconds.append(time.perf_counter() - started)
    return value, min(seconds)


def by_peer(cross: Cross, real: Statistics, fake: Statistics) -> float:
    shift = float((real.mean - fake.mean).square().sum())
    return shift + float((real.cov + fake.cov).trace()) - 2 * cross(real.cov, fake.cov)


def features(n: int, mix: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Correlated, skewed and positive, as Inception's are; float32 (n,d)."""
    return (torch.randn(n, len(mix), generator=rng) @ mix + 0.3).relu()


def compare(n: int, real: Statistics, factor: RealFactor, fakes: torch.Tensor) -> None:
    fake = Statistics.of(fakes)
    ways: dict[str, Callable[[], float]] = {"ours": lambda: fid.frechet(factor, fake)}
    if n <= fakes.shape[1]:
        ways["ours, of few samples"] = lambda: fid.frechet_few(factor, fakes)
    ways |= {name: partial(by_peer, cross, real, fake) for name, cross in PEERS.items()}
    print(f"\nN = {n}, d = {fakes.shape[1]}")
    results = {name: timed(work) for name, work in ways.items()}
    value, seconds = results["ours, of few samples" if n <= fakes.shape[1] else "ours"]
    for name, (other, took) in results.items():
        off = abs(other - value) / abs(value)
        print(f"  {name:32s} {took:7.2f} s {took / seconds:7.1f} x   fid {other:.6f}   differs {off:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng, d = torch.Generator().manual_seed(0), arguments.d
    mix = torch.randn(d, d, generator=rng) / d**0.5
    real = Statistics.of(features(5 * d, mix, rng))
    torch.linalg.eigvalsh(torch.eye(64).double())  # loads the library, which is nobody's time
    started = time.perf_counter()
    factor = RealFactor.of(real)
    print(f"the reals' factor, once: {time.perf_counter() - started:.2f} s; {arguments.threads} threads")
    for n in (d * 5000 // 2048, d * 1500 // 2048):
        compare(n, real, factor, features(n, mix * 1.1, rng))


if __name__ == "__main__":
    main()
