"""Statistics of features: as NumPy's, in any batches; their cache, and which files of it are not used."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics import extractors, frechet
from pipeline.metrics.statistics import FeatureAccumulator, FeatureStatistics


def gaussian(n, d, seed=0, *, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double() + shift


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def test_statistics_equal_those_of_numpy():
    x = gaussian(50, 7, shift=1000.0)
    found = FeatureStatistics.of(x.float())
    np.testing.assert_allclose(found.mean.numpy(), x.float().double().numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.cov.numpy(), np.cov(x.float().double().numpy().T), rtol=1e-10)


@pytest.mark.parametrize("batch", [1, 7, 50, 1000])
def test_statistics_do_not_depend_on_the_batches(batch):
    x, accumulator = gaussian(100, 5, shift=50.0), FeatureAccumulator()
    for block in x.split(batch):
        accumulator.add(block)
    whole, found = FeatureStatistics.of(x), accumulator.statistics()
    assert found.n == 100
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.cov, whole.cov, rtol=1e-10, atol=1e-12)


def test_statistics_are_on_the_device_of_the_features():
    with FakeTensorMode():
        accumulator = FeatureAccumulator()
        for _ in range(2):
            accumulator.add(torch.zeros(50, 7, device="cuda"))
        found = accumulator.statistics()
        assert {found.mean.device.type, found.cov.device.type} == {"cuda"}
        assert found.to("cpu").cov.device.type == found.to("cpu").mean.device.type == "cpu"


class CountingExtractor(extractors.PixelExtractor):
    calls = 0

    def __call__(self, images):
        CountingExtractor.calls += 1
        return super().__call__(images)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "pickle", "nan", "shape", "empty"])
def test_damaged_statistics_are_computed_again(digits, tmp_path, damage):
    extractor = CountingExtractor(8, 1)
    first = frechet.build_evaluator(digits, extractor, 300, tmp_path)
    CountingExtractor.calls = 0
    again = frechet.build_evaluator(digits, extractor, 300, tmp_path)
    assert CountingExtractor.calls == 0  # read from the cache
    assert torch.equal(again.real.root, first.real.root)
    (path,) = (tmp_path / "statistics").iterdir()
    n, mean, cov = len(digits.train), first.real.mean.numpy(), np.eye(64)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "garbage":
        path.write_bytes(b"\x00" * 4000)
    elif damage == "pickle":
        np.savez(path, n=n, mean=np.array([{}], dtype=object), cov=cov)
    elif damage == "nan":
        np.savez(path, n=n, mean=mean * math.nan, cov=cov)
    elif damage == "shape":
        np.savez(path, n=n, mean=mean[:-1], cov=cov)
    else:
        path.write_bytes(b"")
    second = frechet.build_evaluator(digits, extractor, 300, tmp_path)
    assert CountingExtractor.calls > 0
    torch.testing.assert_close(second.real.root, first.real.root)
    assert [p.name for p in (tmp_path / "statistics").iterdir()] == [path.name]


def test_a_cache_that_cannot_be_written_is_logged(digits, tmp_path, caplog):
    caplog.set_level("INFO", "pipeline")
    (tmp_path / "statistics").write_text("a file where a folder should be")
    frechet.build_evaluator(digits, extractors.build_extractor("pixels", digits), 300, tmp_path)
    assert "not cached" in caplog.text


@pytest.mark.parametrize("stored", ["statistics-0", None])
def test_statistics_of_another_version_are_not_used(digits, tmp_path, caplog, stored):
    caplog.set_level("INFO", "pipeline")
    extractor = CountingExtractor(8, 1)
    first = frechet.build_evaluator(digits, extractor, 300, tmp_path)
    (path,) = (tmp_path / "statistics").iterdir()
    with np.load(path) as arrays:
        kept = dict(arrays)
    name = str(kept.pop("identity")).partition(" ")[2]
    wrong = {**kept, "mean": kept["mean"] + 1}
    np.savez(path, **wrong, **({"identity": f"{stored} {name}"} if stored else {}))
    CountingExtractor.calls = 0
    second = frechet.build_evaluator(digits, extractor, 300, tmp_path)
    assert CountingExtractor.calls > 0
    assert torch.equal(second.real.mean, first.real.mean)
    assert "cached statistics are not used" in caplog.text
    assert "statistics-1" in caplog.text


@pytest.mark.parametrize(("value", "problem"), [(7, "the same for all"), (255, "not finite")])
def test_images_that_the_extractor_cannot_distinguish_are_refused(digits, tmp_path, value, problem):
    class NanExtractor(extractors.PixelExtractor):
        def __call__(self, images):
            return torch.where(images.flatten(1) == 255, math.nan, super().__call__(images))

    same = dataclasses.replace(digits, train=np.full_like(digits.train, value), fingerprint=f"same{value}")
    with pytest.raises(
        EvaluatorError, match=f"features of the training images of {same.source} are {problem}"
    ):
        frechet.build_evaluator(same, NanExtractor(8, 1), 300, tmp_path)
    assert not (tmp_path / "statistics").exists()
