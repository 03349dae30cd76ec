"""The data sources: those of `tables.DATA_SOURCES`, and functions of the user's own."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import numpy as np

from pipeline.data.preprocessing import (
    ImageSource,
    RawImages,
    SourceRequest,
    check_images,
    check_labels,
    fit_images,
)
from pipeline.errors import DataError, nearest
from pipeline.tables import DATA_SOURCES, load_target
from pipeline.user_code import load, run


def source_path(source: str) -> Path:
    """PATH of `folder:PATH`; the empty path of a source without one."""
    return Path(os.path.expanduser(source.partition(":")[2]))


def find_source(request: SourceRequest) -> ImageSource:
    """The source that is called `request.name`, one of `DATA_SOURCES.forms`; its images are not read yet.

    Raises:
        DataError: there is no such source; from `read`: it cannot be read or has too few usable images.
        ConfigError: from `read`: the user's own function cannot be loaded, or fails.
    """
    source = request.name
    name, _, path = source.partition(":")
    row = DATA_SOURCES.get(name)
    if row is not None and (path if row.path else source == name):
        found: ImageSource = load_target(row.target)(request, **row.arguments)
        return found
    if DATA_SOURCES.is_user_code(source):
        # No key: the function may read files that its own file's hash does not cover.
        return ImageSource(None, lambda: _call_function(request))
    forms = DATA_SOURCES.forms
    prefix = "npz:" if source.endswith(".npz") else "folder:"
    here = source and os.path.exists(source)
    rule = f"a source is a known name, {' or '.join(form for form in forms if ':' in form)}"
    fix = f"did you mean '{prefix}{source}'?" if here else nearest(source, forms)
    raise DataError("there is no data source {seen}", rule=rule, seen=source, fix=fix)


def _call_function(request: SourceRequest) -> RawImages:
    """The images, and perhaps labels, that the user's function returns; `size` is passed if it takes one."""
    name = request.name
    function = load(name, DATA_SOURCES.form)

    def call() -> tuple[np.ndarray, np.ndarray | None]:
        takes_size = "size" in inspect.signature(function).parameters
        found = function(size=request.size) if takes_size else function()
        images, labels = found if isinstance(found, tuple) else (found, None)
        return np.asarray(images), None if labels is None else np.asarray(labels)

    images, labels = run(f"the data source {name} does not work", name, call)
    check_images(images, name)
    if labels is not None:
        check_labels(labels, len(images), name)
        labels = labels.astype(np.int64)
    return RawImages(images if images.ndim == 4 else images[..., None], labels)
