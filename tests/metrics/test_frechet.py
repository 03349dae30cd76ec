"""Distances: closed forms, scipy's matrix root, bias, devices; the evaluator."""

from __future__ import annotations

import dataclasses
import math
import pickle
import threading

import numpy as np
import pytest
import scipy.linalg
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics import extractors, frechet
from pipeline.metrics.frechet import RealFactor
from pipeline.metrics.precision import torch_state_lock
from pipeline.metrics.statistics import FeatureStatistics


def gaussian(n, d, seed=0, *, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double() * scale + shift


def factor(x):
    return RealFactor.of(FeatureStatistics.of(x))


def by_sqrtm(x, y):
    """The usual formula, with scipy's matrix root."""
    s1, s2 = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(s1 + s2 - 2 * root)


def test_one_vector_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 feature vectors, got 1"):
        FeatureStatistics.of(gaussian(1, 3))
    with pytest.raises(ValueError, match="at least 2 feature vectors, got 1"):
        frechet.frechet_few(factor(gaussian(9, 3)), gaussian(1, 3))


def test_equal_covariance_leaves_the_means():
    x = gaussian(200, 6)
    assert frechet.frechet_of(factor(x), x + 2.0) == pytest.approx(6 * 4.0, rel=1e-12)
    assert frechet.frechet_of(factor(x), x) == pytest.approx(0.0, abs=1e-10)


def test_diagonal_gaussians():
    mean, a, b = torch.arange(4.0).double(), torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 9, 1, 4])
    real = RealFactor.of(FeatureStatistics(1000, torch.zeros(4).double(), a.diag().double()))
    expected = float(mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet.frechet(real, FeatureStatistics(1000, mean, b.diag().double())) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize(
    ("n_real", "n_fake", "d", "tolerance"), [(500, 400, 32, 1e-8), (200, 20, 64, 1e-6), (40, 300, 64, 1e-6)]
)
def test_agrees_with_the_matrix_root(n_real, n_fake, d, tolerance):
    x, y = gaussian(n_real, d), gaussian(n_fake, d, 1, scale=1.4, shift=0.1) @ gaussian(d, d, 2) / 8
    full, few = frechet.frechet(factor(x), FeatureStatistics.of(y)), frechet.frechet_few(factor(x), y)
    assert full == pytest.approx(by_sqrtm(x, y), rel=tolerance)
    assert few == pytest.approx(full, rel=1e-8)


def test_symmetric():
    x, y = gaussian(90, 8), gaussian(80, 8, 1, scale=2)
    assert frechet.frechet_of(factor(x), y) == pytest.approx(frechet.frechet_of(factor(y), x), rel=1e-10)


def test_constant_images_are_a_point():
    x = gaussian(90, 4)
    point = torch.ones(50, 4)
    expected = float((x.mean(0) - 1).square().sum() + x.var(0).sum())
    assert frechet.frechet_of(factor(x), point) == pytest.approx(expected, rel=1e-12)
    assert frechet.frechet_few(factor(x), point) == pytest.approx(expected, rel=1e-12)
    assert frechet.frechet_of(factor(point.double()), point + 3) == pytest.approx(36.0, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("n", [3, 50])
def test_a_value_that_is_not_finite_makes_the_distance_nan(bad, n):
    y = gaussian(n, 4)
    y[1, 2] = bad
    assert math.isnan(frechet.frechet_of(factor(gaussian(90, 4)), y))


@pytest.mark.parametrize(("n_real", "n_fake", "d"), [(90, 50, 4), (500, 400, 300), (90, 5, 8)])
@pytest.mark.parametrize("fails", [False, True])
def test_the_host_gives_the_same_bits(monkeypatch, n_real, n_fake, d, fails):
    x, y = gaussian(n_real, d), gaussian(n_fake, d, 1, scale=1.4, shift=0.1)
    usual, solve, calls = frechet.frechet_of(factor(x), y), torch.linalg.eigvalsh, []

    def failing(gram):
        calls.append(gram)
        if len(calls) == 1:
            raise torch.linalg.LinAlgError("cusolver error")
        return solve(gram)

    real = factor(x)
    monkeypatch.setattr(frechet, "_solves_on_device", lambda gram: fails)
    if fails:
        monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    assert frechet.frechet_of(real, y) == usual
    assert len(calls) == 2 * fails


class Transfers(TorchDispatchMode):
    """Lists the transfers from the GPU to the host."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and made.device.type == "cpu" != args[0].device.type:
            self.seen.append(f"sent {tuple(made.shape)}")
        return made


@pytest.fixture
def fake_gpu(monkeypatch):
    """A GPU whose tensors have no values; a list of where matrices are solved and what is transferred."""
    seen = []

    def read(tensor):
        assert (
            tensor.device.type == "cpu" or torch_state_lock._is_owned()
        )  # no synchronisation while a graph is captured
        seen.append(f"read on {tensor.device.type}")
        return 1.0

    def solve(gram):
        seen.append(f"solved on {gram.device.type}")
        return gram.diagonal()

    monkeypatch.setattr(FakeTensor, "__float__", read)
    monkeypatch.setattr(torch.linalg, "eigvalsh", solve)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with FakeTensorMode(allow_non_fake_inputs=True), Transfers(seen):
        yield seen


def distance_on_gpu(n, d):
    features, mean = torch.zeros(n, d, device="cuda"), torch.zeros(d, device="cuda").double()
    return frechet.frechet_of(RealFactor(900, mean, 1.0, torch.zeros(d, d, device="cuda").double()), features)


@pytest.mark.parametrize(("n", "d"), [(400, 256), (2000, 2048), (5000, 2048)])
def test_a_gpu_transfers_one_number(fake_gpu, n, d):
    assert distance_on_gpu(n, d) == 1.0
    assert fake_gpu == ["solved on cuda", "read on cuda"]


@pytest.mark.parametrize(("n", "d", "sent"), [(400, 64, 64), (20, 64, 20), (255, 2048, 255)])
def test_a_small_matrix_is_solved_on_the_host(fake_gpu, n, d, sent):
    distance_on_gpu(n, d)
    assert fake_gpu == [f"sent ({sent**2 + 1},)", "solved on cpu", "read on cpu"]


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (8, 9), (10, 3), (12, 0)])
def test_a_gpu_with_slow_float64_does_not_solve(fake_gpu, monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    distance_on_gpu(400, 300)
    assert fake_gpu == ["sent (90001,)", "solved on cpu", "read on cpu"]


@pytest.mark.parametrize(
    "error", [torch.linalg.LinAlgError("no convergence"), RuntimeError("cusolver"), torch.OutOfMemoryError()]
)
def test_the_host_solves_after_an_error_of_the_gpu(fake_gpu, monkeypatch, error):
    def solve(gram):
        fake_gpu.append(f"solved on {gram.device.type}")
        if gram.device.type == "cuda":
            raise error
        return gram.diagonal()

    monkeypatch.setattr(torch.linalg, "eigvalsh", solve)
    distance_on_gpu(400, 300)
    assert fake_gpu == ["solved on cuda", "sent (90001,)", "solved on cpu", "read on cpu"]


def test_a_distance_on_a_gpu_waits_for_the_lock(fake_gpu):
    """The fake GPU exists in this thread only, so the other one holds the lock."""
    held, ended = threading.Event(), threading.Event()

    def other():
        with torch_state_lock:
            held.set()
            ended.wait(0.2)
            fake_gpu.append("released")

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    distance_on_gpu(400, 256)
    thread.join()
    assert fake_gpu[0] == "released"


def test_the_extrapolation_removes_the_bias():
    x, y = gaussian(20_000, 32), gaussian(2000, 32, 1)
    assert frechet.frechet_of(factor(x), y) > 0.12  # the bias: d/8n of the trace, of both sides
    assert abs(frechet.frechet_infinity(factor(x), y)) < 0.04
    assert frechet.frechet_infinity(factor(x), y) == frechet.frechet_infinity(factor(x), y)


def test_by_class():
    x, labels = gaussian(200, 3), torch.arange(200) % 2
    y = x + torch.where(labels[:, None] == 1, 3.0, 0.0)
    found = frechet.frechet_by_class(x, labels, y, labels)
    assert found == {0: pytest.approx(0, abs=1e-9), 1: pytest.approx(27.0)}
    assert set(frechet.frechet_by_class(x, labels, y, labels * 0)) == {0}


def test_kid_is_the_textbook_estimate():
    x, y = gaussian(40, 5), gaussian(40, 5, 1, shift=0.5)
    k = lambda a, b: (a @ b / 5 + 1) ** 3  # noqa: E731
    expected = (
        sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (40 * 39)
        + sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (40 * 39)
        - 2 * sum(k(a, b) for a in x for b in y) / 1600
    )
    assert frechet._mmd(x, y) == pytest.approx(float(expected), rel=1e-10)


def test_kid_is_unbiased_and_its_standard_error_is_right():
    runs = [frechet.kid(gaussian(200, 8, s), gaussian(200, 8, s + 1000), seed=s) for s in range(60)]
    values = np.array([run.value for run in runs])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(60)  # 0 for two samples of one distribution
    assert (values < 0).any()
    assert np.mean([run.error for run in runs]) == pytest.approx(values.std(), rel=0.25)
    far = frechet.kid(gaussian(200, 8), gaussian(200, 8, 1, shift=1.0))
    assert far.value > 10 * far.error > 0
    assert far == frechet.kid(gaussian(200, 8), gaussian(200, 8, 1, shift=1.0))


def test_kid_needs_some_vectors():
    with pytest.raises(ValueError, match="at least 4 feature vectors on each side, got 3"):
        frechet.kid(gaussian(9, 2), gaussian(3, 2))


# ---- the evaluator


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture
def evaluator(digits, tmp_path):
    return frechet.build_evaluator(digits, extractors.build_extractor("pixels", digits), 300, tmp_path)


def stream(images: np.ndarray):
    rest = torch.from_numpy(images)

    def sample(n):
        nonlocal rest
        taken, rest = rest[:n], rest[n:]
        return taken

    return sample


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_score_does_not_depend_on_the_batch(evaluator, digits, monkeypatch, batch):
    monkeypatch.setattr(frechet, "BATCH", batch)
    found = evaluator.score(stream(digits.train))
    reference = frechet.frechet_of(evaluator.real, evaluator.extractor(torch.from_numpy(digits.train[:300])))
    assert found == pytest.approx(reference, rel=1e-6)
    assert found > 0


def test_few_samples_score_as_many_do(evaluator, digits):
    small = dataclasses.replace(evaluator, samples=40)
    statistics = FeatureStatistics.of(evaluator.extractor(torch.from_numpy(digits.train[:40])))
    assert small.score(stream(digits.train)) == pytest.approx(
        frechet.frechet(small.real, statistics), rel=1e-6
    )


def test_score_requests_exactly_its_samples_in_small_batches(evaluator, digits):
    requested = []

    def sample(n):
        requested.append(n)
        return torch.zeros(n, 8, 8, 1, dtype=torch.uint8)

    assert dataclasses.replace(evaluator, samples=1101).score(sample) > 1
    assert requested == [500, 500, 101]


def test_held_out_reals_score_better_than_noise_than_black(evaluator, digits):
    held, rng = digits.held, np.random.default_rng(0)
    noisy = np.clip(held + rng.normal(0, 60, held.shape), 0, 255).astype(np.uint8)
    small = dataclasses.replace(evaluator, samples=len(held))
    scores = [small.score(stream(i)) for i in (held, noisy, held * 0)]
    assert scores == sorted(scores)
    assert scores[2] > 10 * scores[0]


@pytest.mark.parametrize("samples", [40, 300])
def test_score_of_features_that_are_not_finite_is_none(evaluator, digits, samples):
    class Broken(extractors.PixelExtractor):
        def __call__(self, images):
            return super().__call__(images) * math.nan

    broken = dataclasses.replace(evaluator, extractor=Broken(8, 1), samples=samples)
    assert broken.score(stream(digits.train)) is None


@pytest.mark.parametrize(
    "images", [torch.zeros(9, 8, 8, 3).byte(), torch.zeros(9, 8, 8, 1), torch.zeros(9, 1, 8, 8).byte()]
)
def test_images_of_another_shape_are_refused(evaluator, images):
    with pytest.raises(EvaluatorError, match=r"must be uint8 \(8, 8, 1\)"):
        evaluator.score(lambda n: images)


def test_the_hash_covers_all_that_a_fid_depends_on(evaluator, digits, tmp_path):
    others = [
        dataclasses.replace(evaluator, samples=301),
        dataclasses.replace(evaluator, data="another"),
        dataclasses.replace(evaluator, extractor=extractors.PixelExtractor(8, 3)),
    ]
    assert len({evaluator.hash, *(o.hash for o in others)}) == 4
    assert len(evaluator.hash) == 16
    assert evaluator.to("cpu").hash == pickle.loads(pickle.dumps(evaluator)).hash == evaluator.hash
    assert evaluator.extractor_name == "pixels"


def test_a_pickled_evaluator_scores_the_same(evaluator, digits):
    unpickled = pickle.loads(pickle.dumps(evaluator))
    assert unpickled.score(stream(digits.train)) == evaluator.score(stream(digits.train))


@pytest.mark.parametrize("samples", [40, 300])
def test_an_evaluator_on_a_gpu_is_pickled_as_one_on_the_cpu(evaluator, digits, samples):
    evaluator = dataclasses.replace(evaluator, samples=samples)
    moved = dataclasses.replace(evaluator, device_real=evaluator.real.to("cpu"))  # as on a GPU
    assert moved.score(stream(digits.train)) == evaluator.score(stream(digits.train))
    unpickled = pickle.loads(pickle.dumps(moved))
    assert unpickled.device_real is None
    assert unpickled.hash == moved.hash == evaluator.hash
    assert unpickled.score(stream(digits.train)) == evaluator.score(stream(digits.train))
    assert moved.to("cpu").device_real is None


def test_a_moved_evaluator_has_the_reals_on_both_devices(evaluator):
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved = evaluator.to("cuda:0")
        assert {str(t.device) for t in (moved.device_real.root, moved.device_real.mean)} == {"cuda:0"}
        assert {str(t.device) for t in (moved.real.root, moved.real.mean)} == {"cpu"}
        assert moved._real_on(torch.device("cuda:0")) is moved.device_real
        for elsewhere in ("cpu", "cuda:1"):
            assert moved._real_on(torch.device(elsewhere)) is moved.real


@pytest.mark.parametrize(("samples", "warned"), [(300, False), (200, True)])
def test_few_samples_give_a_warning(digits, tmp_path, samples, warned):
    extractor = extractors.build_extractor("pixels", digits)
    text = frechet.build_evaluator(digits, extractor, samples, tmp_path).warning
    assert bool(text) == warned
    assert not warned or ("bias" in text and "kid" in text)


def test_one_sample_is_refused(digits, tmp_path):
    with pytest.raises(EvaluatorError, match="1 samples are too few.*at least 2"):
        frechet.build_evaluator(digits, extractors.build_extractor("pixels", digits), 1, tmp_path)
