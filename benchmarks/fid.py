"""FID and KID against torch-fidelity and torchmetrics: the distance alone, then whole evaluations of images.

    nice python benchmarks/fid.py                 # both; minutes, most of them Inception on a CPU
    nice python benchmarks/fid.py --images 0      # the distance step at d = 2048 alone

The distance is timed from the statistics to the number, as at every tick; the factor of the reals is computed
once per sweep and timed separately. Peers are the functions of these libraries, and scipy's sqrtm
(pytorch-fid, clean-fid).

Whole evaluations use the same images and the same weights file: Inception with Kaiming initialisation and
batch-norm statistics calibrated on images, since the published weights are a download.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics import extractors, frechet
from pipeline.metrics.frechet import RealFactor
from pipeline.metrics.statistics import FeatureStatistics

Distance = Callable[[FeatureStatistics, FeatureStatistics], float]
KID_SUBSETS = 100


def sqrtm(real: FeatureStatistics, fake: FeatureStatistics) -> float:
    import scipy.linalg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = scipy.linalg.sqrtm((real.cov @ fake.cov).numpy()).real
    shift = float((real.mean - fake.mean).square().sum())
    return shift + float((real.cov + fake.cov).trace()) - 2 * float(np.trace(root))


def torch_fidelity(real: FeatureStatistics, fake: FeatureStatistics) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    sides = [{"mu": side.mean.numpy(), "sigma": side.cov.numpy()} for side in (real, fake)]
    return float(fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])


def torchmetrics(real: FeatureStatistics, fake: FeatureStatistics) -> float:
    from torchmetrics.image.fid import _compute_fid

    return float(_compute_fid(real.mean, real.cov, fake.mean, fake.cov))


PEERS: dict[str, Distance] = {
    "torchmetrics 1.9": torchmetrics,
    "torch-fidelity 0.4": torch_fidelity,
    "scipy sqrtm": sqrtm,
}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The value and the seconds: the best of three runs, fewer if they take long."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 8:
        started = time.perf_counter()
        value = work()
        seconds.append(time.perf_counter() - started)
    return value, min(seconds)


def made_features(n: int, mix: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Correlated, skewed and positive features float32 (n,d), as Inception's are."""
    return (torch.randn(n, len(mix), generator=rng) @ mix + 0.3).relu()


def compare_distances(n: int, real: FeatureStatistics, factor: RealFactor, fakes: torch.Tensor) -> None:
    fake = FeatureStatistics.of(fakes)
    few = n <= fakes.shape[1]
    ours = partial(frechet.frechet_few, factor, fakes) if few else partial(frechet.frechet, factor, fake)
    print(f"\nN = {n}, d = {fakes.shape[1]}")
    value, seconds = timed(ours)
    print(f"  {'ours':20s} {seconds:7.2f} s             fid {value:.6f}", flush=True)
    for name, peer in PEERS.items():
        other, took = timed(partial(peer, real, fake))
        off = abs(other - value) / abs(value)
        print(
            f"  {name:20s} {took:7.2f} s {took / seconds:7.1f} x   fid {other:.6f}   differs {off:.1e}",
            flush=True,
        )


def distances(d: int, threads: int) -> None:
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=rng) / d**0.5
    real = FeatureStatistics.of(made_features(5 * d, mix, rng))
    torch.linalg.eigvalsh(torch.eye(64).double())  # loads the library, which is not to be timed
    started = time.perf_counter()
    factor = RealFactor.of(real)
    print(f"the reals' factor, once: {time.perf_counter() - started:.2f} s; {threads} threads")
    for n in (d * 5000 // 2048, d * 1500 // 2048):
        compare_distances(n, real, factor, made_features(n, mix * 1.1, rng))


# ---- whole evaluations


def calibrated(path: Path, images: torch.Tensor) -> None:
    """Write a weights file: an Inception of random weights with activations of order 1."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    torch.manual_seed(0)
    torch.save({}, path)
    with mock.patch.object(Inception, "load_state_dict", return_value=None):
        net = Inception("random", ["2048"], feature_extractor_weights_path=path)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over all images
    with torch.no_grad():
        net.train()(images)
    torch.save(net.eval().state_dict(), path)


def pictures(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n real digits as RGB uint8 (n,28,28,3), and n others with noise."""
    digits = load_dataset("mnist5k").train
    noise = np.random.default_rng(0).normal(0, 40, (n, 28, 28, 3))
    reals = np.repeat(digits[:n], 3, 3)
    fakes = np.clip(np.repeat(digits[n : 2 * n], 3, 3) + noise, 0, 255).astype(np.uint8)
    return torch.from_numpy(reals), torch.from_numpy(fakes)


def by_gansweep(weights: Path, reals: torch.Tensor, fakes: torch.Tensor) -> dict[str, float]:
    dataset = Dataset("digits", reals.numpy(), reals.numpy(), None, None, (), "0" * 16)
    extractor = extractors.build_extractor("inception", dataset, weights=str(weights))
    real, fake = extractor(reals), extractor(fakes)
    value = frechet.frechet_of(RealFactor.of(FeatureStatistics.of(real)), fake)
    kid = frechet.kid(real, fake)
    return {"fid": value, "kid": kid.value, "kid_error": kid.error}


class _Images(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def by_torch_fidelity(weights: Path, reals: torch.Tensor, fakes: torch.Tensor) -> dict[str, float]:
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=_Images(fakes), input2=_Images(reals), cuda=False, fid=True, kid=True, cache=False,
        feature_extractor_weights_path=str(weights), verbose=False, save_cpu_ram=True,
        kid_subsets=KID_SUBSETS, kid_subset_size=len(fakes) // 2,
    )  # fmt: skip
    return {"fid": found["frechet_inception_distance"], "kid": found["kernel_inception_distance_mean"]}


def by_torchmetrics(weights: Path, reals: torch.Tensor, fakes: torch.Tensor) -> dict[str, float]:
    """Its FID, and its KID on the features of its Inception (KID takes no weights file)."""
    from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
    from torchmetrics.image.kid import KernelInceptionDistance

    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    net = NoTrainInceptionV3("i", ["2048"], str(weights), antialias=False)  # as the published Inception

    class Recording(torch.nn.Module):
        num_features = 2048
        real = True

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = net(images)
            seen[self.real].append(found)
            return found

    recording = Recording()
    metric = FrechetInceptionDistance(feature=recording).set_dtype(torch.float64)
    kid = KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=KID_SUBSETS, subset_size=len(fakes) // 2
    )
    for real, images in ((True, reals), (False, fakes)):
        recording.real = real
        for block in torch.split(images.permute(0, 3, 1, 2), 64):
            metric.update(block, real=real)
        kid.update(torch.cat(seen[real]), real=real)
    torch.manual_seed(0)
    return {"fid": float(metric.compute()), "kid": float(kid.compute()[0])}


METHODS = {"ours": by_gansweep, "torch-fidelity 0.4": by_torch_fidelity, "torchmetrics 1.9": by_torchmetrics}


def evaluations(n: int, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """All methods in turn, `rounds` times, so that a busy moment of the machine affects all."""
    reals, fakes = pictures(n)
    found: dict[str, dict[str, float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = Path(folder) / "weights.pth"
        calibrated(weights, torch.cat([reals[:16], fakes[:16]]).permute(0, 3, 1, 2))
        for _ in range(rounds):
            for name, method in METHODS.items():
                started = time.perf_counter()
                found[name] = method(weights, reals, fakes)
                seconds[name].append(time.perf_counter() - started)
    ours = found["ours"]
    print(f"\n{n} images on each side, Inception with one weights file, {threads} threads, best of {rounds}")
    for name, numbers in found.items():
        took = min(seconds[name])
        off = abs(numbers["fid"] / ours["fid"] - 1)
        errors = abs(numbers["kid"] - ours["kid"]) / ours["kid_error"]
        print(
            f"  {name:20s} {took:7.1f} s   fid {numbers['fid']:.6f}   differs {off:.1e}   "
            f"kid {numbers['kid']:.5f}   {errors:.2f} standard errors off",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--d", type=int, default=2048, help="0 = leave the distances out")
    parser.add_argument("--images", type=int, default=128, help="on each side; 0 = leave evaluations out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.d:
        distances(arguments.d, arguments.threads)
    if arguments.images:
        evaluations(arguments.images, arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
