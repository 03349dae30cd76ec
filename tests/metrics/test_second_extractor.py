"""Which extractor gives the second opinion, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from noise import noise_dataset

from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import ConfigError, EvaluatorError
from pipeline.metrics import second_extractor
from pipeline.metrics.classifier import Accuracy
from pipeline.metrics.evaluation import measure_generator
from pipeline.metrics.extractors import build_extractor
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.weights import DINOV2_FILES, INCEPTION_FILE


def images(size: int = 32, channels: int = 3, classes: int = 2) -> Dataset:
    made, labels = np.zeros((8, size, size, channels), np.uint8), np.arange(8) % 2 if classes else None
    return Dataset("none", made, made[:0], labels, labels, ("a", "b")[:classes], "f")


def put_weights(folder: Path, *files: str) -> None:
    for file in files:
        path = folder / "extractors" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.parametrize(
    ("first", "data", "found"),
    [
        ("classifier", images(28, 1), ["efficientnet", "pixels"]),
        ("efficientnet", images(), ["classifier", "pixels"]),
        ("efficientnet", images(classes=0), ["pixels"]),
        ("efficientnet", images(128), ["pixels"]),
        ("pixels", images(), ["efficientnet", "classifier"]),
        ("pixels", images(channels=4, classes=0), []),
        ("mine:rows", images(channels=4), ["classifier", "pixels"]),
    ],
)
def test_candidates_without_files_of_weights(
    cache: Path, first: str, data: Dataset, found: list[str]
) -> None:
    assert list(second_extractor.candidates(data, first, 100)) == found


def test_weights_on_disk_come_first(cache: Path) -> None:
    put_weights(cache, INCEPTION_FILE, DINOV2_FILES[1])
    found = list(second_extractor.candidates(images(), "efficientnet", 100))
    assert found == ["inception", "dinov2", "classifier", "pixels"]


def test_what_takes_over_ten_minutes_is_left_out_and_named(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    put_weights(cache, INCEPTION_FILE)
    found = list(second_extractor.candidates(images(), "classifier", 15_000))
    assert found == ["efficientnet", "pixels"]
    assert "inception would take about 1.7 h on this CPU" in caplog.text
    assert "--second-extractor inception" in caplog.text


def test_larger_images_take_longer() -> None:
    assert second_extractor.images_per_sec("efficientnet", 32) == 500
    assert second_extractor.images_per_sec("efficientnet", 128) == 125
    assert second_extractor.images_per_sec("inception", 512) == 2.4


def test_a_smaller_dinov2_is_faster(cache: Path) -> None:
    assert second_extractor.images_per_sec("dinov2", 64) == 0.5
    put_weights(cache, DINOV2_FILES[2])
    assert second_extractor.images_per_sec("dinov2", 64) == 7.0


def test_a_damaged_file_of_weights_does_not_stop_a_sweep(
    cache: Path, dataset: Dataset, evaluator: Evaluator, caplog: pytest.LogCaptureFixture
) -> None:
    put_weights(cache, INCEPTION_FILE)
    found = second_extractor._build("auto", dataset, evaluator, 100)
    assert found is not None
    assert found.name == "efficientnet"
    assert "inception is not used: the weights file " in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pixels", "second extractor pixels is the one of the search"),
        ("pixel", "unknown extractor pixel .*did you mean 'pixels'"),
        ("dinov2", f"{DINOV2_FILES[0]} is missing.*put it at "),
    ],
)
def test_another_name_is_refused(
    cache: Path, dataset: Dataset, evaluator: Evaluator, name: str, said: str
) -> None:
    with pytest.raises(EvaluatorError, match=said):
        second_extractor.load_second(SweepConfig(second_extractor=name), dataset, evaluator, 0)


def test_a_veto_needs_an_extractor(dataset: Dataset, evaluator: Evaluator) -> None:
    with pytest.raises(ConfigError, match="--second-opinion veto needs a second extractor"):
        SweepConfig(second_extractor="none", second_opinion="veto")
    none = SweepConfig(second_extractor="none")
    assert second_extractor.load_second(none, dataset, evaluator, 0) is None


def test_a_classifier_that_has_learnt_nothing_is_not_better_than_chance() -> None:
    assert Accuracy(0.63, 0.50).is_better(212)
    assert not Accuracy(0.58, 0.50).is_better(212)
    assert not Accuracy(0.54, 0.50).is_better(10_000)


def test_the_first_batch_goes_through_both_extractors(dataset: Dataset, evaluator: Evaluator) -> None:
    """The same extractor twice has the fid of the first batch, and no image is drawn for it."""
    asked, progress = list[int](), list[int]()

    def sample(n: int, seed: int) -> tuple[torch.Tensor, None]:
        asked.append(n)
        noise = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), np.uint8)
        return torch.from_numpy(noise), None

    both = dataclasses.replace(evaluator, second=evaluator)
    found = measure_generator(
        sample, dataset, both, n=250, seed=1, repeats=1, on_progress=lambda: progress.append(1)
    )
    assert asked == [250]
    assert len(progress) == 3
    assert found.second_fid == pytest.approx(found.fid, rel=1e-9)
    assert (found.second_low, found.second_high) == pytest.approx((found.fid_low, found.fid_high))
    assert found.second_evaluator == found.evaluator != evaluator.hash
    assert both.hash == evaluator.hash
    alone = measure_generator(sample, dataset, evaluator, n=250, seed=1, repeats=1).to_dict()
    assert {name for name in found.to_dict() if name not in alone} == {
        *("second_fid", "second_low", "second_high", "second_extractor", "second_evaluator")
    }


def test_a_classifier_of_random_labels_is_not_used(
    short_training: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    other = noise_dataset(n=400, channels=3, seed=1)
    data = dataclasses.replace(noise_dataset(channels=3), held=other.train, held_labels=other.train_labels)
    extractor = build_extractor("classifier", data, cache=tmp_path)
    assert extractor.dim == 64
    assert not second_extractor._is_trained(extractor, data)
    assert "it is not used" in caplog.text
