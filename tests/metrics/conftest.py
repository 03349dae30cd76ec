"""What the tests of metrics share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.metrics import classifier


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Images are small here: a second thread only waits."""
    with classifier.one_thread():
        yield


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier is trained for a few steps only."""
    monkeypatch.setattr(classifier, "_STEPS", 12)
