"""Evaluation of generators: normal ones pass, memorizing and collapsed ones do not."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import EvaluatorError, UserError
from pipeline.metrics import evaluation, extractors, frechet, measurement
from pipeline.metrics.statistics import FeatureStatistics
from pipeline.records import metric, metrics_of
from pipeline.user_code import UserCode, read_code, use_code

N = 400


@pytest.fixture(scope="module")
def halves() -> tuple[Dataset, np.ndarray]:
    """Digits in two halves: a data set, and images of the same distribution that are not in it."""
    whole = load_dataset("digits")
    order = np.random.default_rng(0).permutation(len(whole.train))
    seen, unseen = order[:900], order[900:]
    assert whole.train_labels is not None
    data = dataclasses.replace(
        whole, train=whole.train[seen], train_labels=whole.train_labels[seen], fingerprint="half"
    )
    return data, whole.train[unseen]


def without_labels(data: Dataset) -> Dataset:
    return dataclasses.replace(data, train_labels=None, held_labels=None, classes=())


@pytest.fixture(scope="module")
def evaluators(halves, tmp_path_factory):
    """For labelled digits by the classifier, and for unlabelled ones by pixels."""
    data, cache = halves[0], tmp_path_factory.mktemp("cache")
    plain = without_labels(data)
    return {
        "labelled": (
            data,
            frechet.build_evaluator(data, extractors.build_extractor("auto", data, cache=cache), N, cache),
        ),
        "plain": (
            plain,
            frechet.build_evaluator(plain, extractors.build_extractor("pixels", plain), N, cache),
        ),
    }


def drawn(pool: np.ndarray, noise: float = 0.0, replace: bool = False):
    def sample(n, seed):
        rng = np.random.default_rng(seed)
        images = pool[rng.choice(len(pool), n, replace=replace)]
        images = np.clip(images + rng.normal(0, noise, images.shape), 0, 255) if noise else images
        return torch.from_numpy(images.astype(np.uint8)), None

    return sample


def measured(evaluators, kind, sample, seed=0, n=N):
    data, evaluator = evaluators[kind]
    return evaluation.measure_generator(sample, data, evaluator, n=n, seed=seed)


@pytest.mark.parametrize("kind", ["labelled", "plain"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unseen_images_are_promoted(evaluators, halves, kind, seed):
    found = measured(evaluators, kind, drawn(halves[1]), seed)
    assert found.verdicts == ()
    assert (found.memorisation, found.collapse) == ("ok", "ok")
    assert found.copied < 0.05
    assert 0.4 < found.memorisation_auc < 0.6
    assert found.modes == found.modes_total
    assert 0.9 < found.diversity < 1.1
    assert min(found.precision, found.recall, found.coverage) > 0.6
    assert abs(found.kid) < 4 * found.kid_error
    assert sum(found.class_counts.values()) == N
    assert found.fid_infinity < found.fid


@pytest.mark.parametrize("kind", ["labelled", "plain"])
@pytest.mark.parametrize("noise", [0.0, 6.0, 12.0])
def test_copies_of_training_images_are_detected(evaluators, halves, kind, noise):
    found = measured(evaluators, kind, drawn(halves[0].train, noise))
    assert found.memorisation == "copies"
    assert found.copied > 0.5
    assert found.memorisation_auc > 0.9
    assert found.verdicts[0].startswith("copies: ")
    assert found.fid < measured(evaluators, kind, drawn(halves[1], 30.0)).fid  # the best fid of all


def test_a_fraction_of_copies_is_detected(evaluators, halves):
    normal, copies = drawn(halves[1]), drawn(halves[0].train, 5.0)

    def sample(n, seed):
        return torch.cat([normal(n - n // 5, seed)[0], copies(n // 5, seed)[0]]), None

    found = measured(evaluators, "labelled", sample)
    assert found.copied == pytest.approx(0.2, abs=0.04)
    assert found.memorisation == "copies"


def test_blurred_images_are_no_copies(evaluators, halves):
    pool = torch.from_numpy(halves[1]).permute(0, 3, 1, 2).float()
    blurred = torch.nn.functional.avg_pool2d(pool, 3, 1, 1).permute(0, 2, 3, 1).to(torch.uint8).numpy()
    found = measured(evaluators, "labelled", drawn(blurred))
    assert found.memorisation == "ok"


@pytest.mark.parametrize("kind", ["labelled", "plain"])
@pytest.mark.parametrize("digit", [0, 3])
def test_a_generator_of_one_class_is_collapsed(evaluators, halves, kind, digit):
    data = evaluators["labelled"][0]
    pool = data.train[data.train_labels == digit]
    found = measured(evaluators, kind, drawn(pool, 40.0, replace=True))  # enough noise not to be duplicates
    assert found.collapse == "collapsed"
    assert found.imbalance > 0.5
    assert any(reason.startswith("collapsed: ") for reason in found.verdicts)
    if kind == "labelled":
        assert found.class_counts[str(digit)] > 0.9 * N
        assert found.modes == 1


@pytest.mark.parametrize("kind", ["labelled", "plain"])
def test_a_generator_of_few_images_is_collapsed(evaluators, halves, kind):
    found = measured(evaluators, kind, drawn(halves[1][:40], 3.0, replace=True))
    assert found.duplicates > 0.9
    assert found.collapse == "collapsed"


@pytest.mark.parametrize("kind", ["labelled", "plain"])
def test_a_constant_generator_can_be_measured(evaluators, kind):
    found = measured(evaluators, kind, lambda n, seed: (torch.full((n, 8, 8, 1), 7, dtype=torch.uint8), None))
    assert found.collapse == "collapsed"
    assert found.diversity == found.recall == 0
    assert found.duplicates == 1
    json.dumps(found.to_dict(), allow_nan=False)


def test_to_dict_is_json_and_complete(evaluators, halves):
    found = measured(evaluators, "labelled", drawn(halves[1]))
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["verdicts"] == []
    assert set(values["fid_by_class"]) <= set(halves[0].classes)
    assert values["evaluator"] == evaluators["labelled"][1].hash
    assert values["n"] == N
    assert found == measured(evaluators, "labelled", drawn(halves[1]))  # the same seed, the same numbers


def test_another_n_is_another_evaluator(evaluators, halves):
    assert measured(evaluators, "plain", drawn(halves[1]), n=200).evaluator != evaluators["plain"][1].hash


def test_label_accuracy_compares_with_the_requested_labels(evaluators):
    data, evaluator = evaluators["labelled"]

    def sample(n, seed):
        picked = np.random.default_rng(seed).choice(len(data.train), n)
        labels = torch.from_numpy(data.train_labels[picked])
        labels[: n // 4] = (labels[: n // 4] + 1) % 10
        return torch.from_numpy(data.train[picked]), labels

    found = evaluation.measure_generator(sample, data, evaluator, n=N, seed=0)
    assert found.label_accuracy == pytest.approx(0.75, abs=0.01)


def test_too_few_samples_other_shapes_and_nan_are_refused(evaluators, halves):
    with pytest.raises(EvaluatorError, match="15 samples are too few.*at least 16"):
        measured(evaluators, "plain", drawn(halves[1]), n=15)
    with pytest.raises(EvaluatorError, match=r"must be uint8 \(8, 8, 1\)"):
        measured(evaluators, "plain", lambda n, s: (torch.zeros(n, 9, 9, 1, dtype=torch.uint8), None))

    class Broken(extractors.PixelExtractor):
        def __call__(self, images):
            found = super().__call__(images)
            return torch.where(images.flatten(1)[:, :1] == 255, math.nan, found)

    data, evaluator = evaluators["plain"]
    broken = dataclasses.replace(evaluator, extractor=Broken(8, 1))
    with pytest.raises(EvaluatorError, match="400 of 400 generated images have features that are not finite"):
        evaluation.measure_generator(
            lambda n, s: (torch.full((n, 8, 8, 1), 255, dtype=torch.uint8), None), data, broken, n=N, seed=0
        )


# ---- one more metric, by a row and by a function of the user's own


def test_every_metric_has_a_target_and_a_description():
    fields = {field.name for field in dataclasses.fields(measurement.Measurement)}
    given = {"n", "seed", "repeats", "extractor", "evaluator", "notes", "custom"}
    given |= {"second_extractor", "second_evaluator"}
    assert fields - measurement.METRICS.keys() == given | {"memorisation", "collapse"}
    assert all(row.target and row.describe() for row in measurement.METRICS.values())
    assert measurement.METRIC_DESCRIPTIONS["precision"].startswith("0..1, higher is better: ")


def test_a_row_adds_a_metric(evaluators, halves, monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Larger(measurement.Measurement):
        coarse_fid: float = metric(
            "a coarser fid", "min", target="pipeline.metrics.generator_metrics:fid_infinity"
        )

    monkeypatch.setattr(evaluation, "Measurement", Larger)
    monkeypatch.setattr(evaluation, "METRICS", metrics_of(Larger))
    values = measured(evaluators, "plain", drawn(halves[1])).to_dict()
    assert values["coarse_fid"] == values["fid_infinity"]


CUSTOM = """
def brightness(images, reals):
    assert images.dtype == reals.dtype == "uint8"
    assert images.shape == reals.shape == (400, 8, 8, 1)
    return images.mean() - reals.mean()

def writes(images, reals):
    images[:], reals[:] = 0, 0
    return 1

def infinite(images, reals):
    return float("inf")

def text(images, reals):
    return "bright"

def broken(images, reals):
    return images.shape[7]
"""


@pytest.fixture
def custom(tmp_path):
    (tmp_path / "mine.py").write_text(CUSTOM)
    use_code(read_code(["mine:brightness"], [tmp_path]))
    yield
    use_code(UserCode())


def with_metrics(evaluators, *names):
    data, evaluator = evaluators["plain"]
    return {"plain": (data, dataclasses.replace(evaluator, metrics=names))}


def test_a_metric_of_the_user_s_own(evaluators, halves, custom):
    own = with_metrics(evaluators, "mine:brightness")
    found = measured(own, "plain", lambda n, s: (torch.full((n, 8, 8, 1), 255, dtype=torch.uint8), None))
    assert 100 < found.custom["mine:brightness"] < 255
    assert found.to_dict()["custom"] == found.custom
    plain = measured(evaluators, "plain", drawn(halves[1]))
    assert "custom" not in plain.to_dict()
    assert own["plain"][1].hash == evaluators["plain"][1].hash


def test_a_metric_may_write_to_its_images(evaluators, halves, custom):
    images = halves[1][:N].copy()
    assert evaluation.custom_metric("mine:writes", images, images) == 1
    assert (images == halves[1][:N]).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine:infinite", "mine:infinite does not work.*finite number"),
        ("mine:text", "mine:text does not work: ValueError"),
        ("mine:broken", r"mine:broken does not work: IndexError.*mine.py \(line 18\)"),
        ("mine:absent", "mine has no absent"),
    ],
)
def test_a_metric_that_does_not_work_is_refused(evaluators, halves, custom, name, message):
    with pytest.raises(UserError, match=message):
        measured(with_metrics(evaluators, name), "plain", drawn(halves[1]))


# ---- the interval


@pytest.mark.parametrize("kind", ["labelled", "plain"])
@pytest.mark.parametrize("noise", [0.0, 25.0, 60.0])
def test_the_interval_covers_other_measurements(evaluators, halves, kind, noise):
    data, evaluator = evaluators[kind]
    sample = drawn(halves[1], noise, replace=True)
    found = evaluation.measure_generator(sample, data, evaluator, n=N, seed=7)
    others = [
        frechet.frechet_of(evaluator.real, evaluator.extractor(sample(N, 1000 + s)[0])) for s in range(20)
    ]
    inside = sum(found.fid_low <= other <= found.fid_high for other in others)
    assert inside >= 17
    assert found.fid_high - found.fid_low < 8 * np.std(others)  # and is not needlessly wide


@pytest.mark.parametrize(("n", "d"), [(1000, 8), (60, 90)])
def test_the_deviation_is_that_of_repeated_samples(n, d):
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=rng).double() / math.sqrt(d)
    draw = lambda count: torch.randn(count, d, generator=rng).double() @ mix  # noqa: E731
    real = frechet.RealFactor.of(FeatureStatistics.of(draw(3000) * 1.5 + 0.3))
    batches = [draw(n) for _ in range(60)]
    truth = np.std([frechet.frechet_of(real, batch) for batch in batches])
    estimate = np.mean([frechet.frechet_deviation(real, batch) for batch in batches])
    assert estimate == pytest.approx(truth, rel=0.3)


# ---- held-out images; samples from a pool


def test_held_out_and_training_reals_are_compared_evenly(evaluators, halves):
    data = halves[0]
    normal, copies = (measured(evaluators, "plain", drawn(pool)) for pool in (halves[1], data.train))
    assert normal.n_held == len(data.held)
    assert normal.fid_held < 1.5 * normal.fid_even  # both are of as many images
    assert copies.fid_held > 1.1 * copies.fid_even
    assert normal.kid_held == pytest.approx(0, abs=4 * normal.kid_held_error)
    assert any(f"{len(data.held)} images are held out" in note for note in normal.notes)
    few = measured(evaluators, "plain", drawn(halves[1]), n=100)
    assert few.n_held == 100
    assert not any("held out" in note for note in few.notes)
    assert any("samples and" in note for note in few.notes)  # few for 64 dimensions


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 7, 500])
@pytest.mark.parametrize("kind", ["labelled", "plain"])
def test_a_fid_does_not_depend_on_batches_or_threads(evaluators, halves, monkeypatch, kind, batch, threads):
    evaluator = dataclasses.replace(evaluators[kind][1], samples=100)
    images = torch.from_numpy(halves[1][:100])
    whole = frechet.frechet_of(evaluator.real, evaluator.extractor(images))
    parts = iter(images.split(batch))
    monkeypatch.setattr(frechet, "BATCH", batch)
    torch.set_num_threads(threads)
    assert evaluator.score(lambda n: next(parts)) == pytest.approx(whole, rel=1e-6)


def test_no_sample_of_a_pool_is_used_twice(halves):
    pool = halves[1][:50]
    sample = evaluation.from_pool(pool, np.arange(50), 0)
    batches = [sample(20, seed) for seed in (3, 3)]
    seen = torch.cat([labels for _, labels in batches])
    assert len(set(seen.tolist())) == 40
    assert all(np.array_equal(images, pool[labels]) for images, labels in batches)
    with pytest.raises(EvaluatorError, match="20 samples are needed, 10 are left.*used twice"):
        sample(20, 0)


def test_a_pool_can_be_measured_in_fewer_batches(evaluators, halves):
    data, evaluator = evaluators["labelled"]
    pool = halves[1][: 2 * 300]
    sample = evaluation.from_pool(pool, None, 0)
    found = evaluation.measure_generator(sample, data, evaluator, n=300, seed=0, repeats=2)
    assert (found.n, found.repeats) == (300, 2)
    one = evaluation.measure_generator(
        evaluation.from_pool(pool, None, 0), data, evaluator, n=300, seed=0, repeats=1
    )
    assert one.fid_high - one.fid_low > found.fid_high - found.fid_low
