"""What many tests share: a tiny labelled data set, tiny trials, a cache of the tests' own, one thread."""

from __future__ import annotations

import clean_environment  # before all others, which read the environment

# isort: split
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.data.preparing.prepared import fingerprint
from pipeline.data.source_types import Labels, Pixels
from pipeline.metrics import extractors, frechet
from pipeline.training.trainer import Trainer
from pipeline.user_code import UserCode, read_code, use_code

Make = Callable[..., Any]

_TINY: dict[str, Any] = {
    "architecture": "dcgan", "width_g": 4, "width_d": 4, "z_dim": 8, "batch_size": 32,
    "lr_g": 1e-3, "lr_d": 1e-3, "ema_halflife_kimg": 0.1, "kimg": 2, "tick_kimg": 1,
}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    clean_environment.begin_again(config)


@pytest.fixture(scope="session", autouse=True)
def _own_places(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The repository is the working folder, and nothing of the user's cache is read or written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pytestconfig.rootpath)
        patch.setenv("GANSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_process_settings() -> Iterator[None]:
    """Each test begins as a fresh process does, whatever a trial in it has set."""
    torch.set_num_threads(1)  # sums split over threads differ in their last bits
    yield
    torch.set_flush_denormal(False)  # hypothesis wants its subnormal numbers


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command line sets logging up for the whole process; each test leaves it as it was."""
    logger = logging.getLogger("pipeline")
    before = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def blobs(count: int, size: int, seed: int) -> tuple[Pixels, Labels]:
    """Grey images of three classes: a bright square in one of three corners, on noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, size, size, 1), np.uint8)
    labels = rng.integers(0, 3, count)
    half = size // 2
    for image, label in zip(images, labels, strict=True):
        top, left = divmod(int(label), 2)
        image[top * half : (top + 1) * half, left * half : (left + 1) * half] += 150
    return images, labels.astype(np.int64)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """160 labelled training images of 8x8, 40 held out."""
    images, labels = blobs(200, 8, seed=1)
    parts = (images[:160], images[160:], labels[:160], labels[160:])
    return Dataset("blobs", *parts, ("a", "b", "c"), fingerprint(*parts))


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrialConfig]:
    """tiny(**changes): a trial of 2 kimg that takes a fraction of a second."""
    return lambda **changes: TrialConfig(**{**_TINY, **changes})


@pytest.fixture(scope="session")
def make_trainer(dataset: Dataset, tiny: Callable[..., TrialConfig]) -> Callable[..., Trainer]:
    """make_trainer(**changes): a fresh trainer of a tiny trial on `dataset`."""

    def make(**changes: Any) -> Trainer:
        config = tiny(**changes)
        images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
        return Trainer(config, images, labels if config.conditional else None, len(dataset.classes))

    return make


@pytest.fixture(scope="session")
def evaluator(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> frechet.Evaluator:
    """Pixels, 100 samples: a fid in milliseconds."""
    cache: Path = tmp_path_factory.mktemp("statistics")
    return frechet.build_evaluator(dataset, extractors.build_extractor("pixels", dataset), 100, cache)


@pytest.fixture
def own_code(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """own_code(text, module="mine"): writes a file that this process may run, until the end of the test."""

    def write(text: str, module: str = "mine") -> Path:
        (tmp_path / f"{module}.py").write_text(text)
        use_code(read_code([f"{module}:any"], [tmp_path]))
        return tmp_path

    yield write
    use_code(UserCode())
