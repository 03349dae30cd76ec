"""The data sources: those of `tables.DATA_SOURCES`, and functions of the user's own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.data.arrays.array_labels import Classes, check_labels, understand_labels
from pipeline.data.arrays.array_layout import Header, Place, understand_pixels
from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.findings import Findings
from pipeline.data.options import DataOptions
from pipeline.data.source_types import ImageSource, RawImages, SourceRequest
from pipeline.data.sources.path_hints import did_you_mean
from pipeline.errors import DataError, nearest
from pipeline.tables import DATA_SOURCES, load_target
from pipeline.user_code import load, run

WITH_FILES = ("folder", "zip")
"""Sources whose images are files with names."""


def find_source(
    source: str,
    options: DataOptions,
    *,
    downloads: Path = Path("downloads"),
    outputs: Mapping[Path, str] = MappingProxyType({}),
    scratch: Path = Path("scratch"),
) -> ImageSource:
    """The source that is called `source`, one of `DATA_SOURCES.forms`; its images are not read yet.

    options, downloads, outputs, scratch: as in `SourceRequest`.

    Raises:
        DataError: there is no such source, or an option does not fit it; from `read`: it cannot be read or
            understood.
        ConfigError: from `read`: the user's own function cannot be loaded, or fails.
    """
    name, _, path = source.partition(":")
    request = SourceRequest(source, Path(os.path.expanduser(path)), options, downloads, outputs, scratch)
    row = DATA_SOURCES.get(name)
    if options.classes not in ("", "none") and name not in WITH_FILES:
        rule, fix = "only folder: and zip: have files or folders that it can name", "leave it out"
        raise DataError(f"--classes {{seen}} fits no {source}", rule=rule, seen=options.classes, fix=fix)
    if row is not None and (path if row.path else source == name):
        found: ImageSource = load_target(row.target)(request, **row.arguments)
        return found
    if DATA_SOURCES.is_user_code(source):
        # No key: the function may read files that its own file's hash does not cover.
        return ImageSource(None, lambda: _call_function(request))
    forms = DATA_SOURCES.forms
    rule = f"a source is a known name, {' or '.join(form for form in forms if ':' in form)}"
    fix = did_you_mean(source, nearest(source, forms)) if source else nearest(source, forms)
    raise DataError("there is no data source {seen}", rule=rule, seen=source, fix=fix)


def _call_function(request: SourceRequest) -> RawImages:
    """The images, and perhaps labels, that the user's function returns; `size` is passed if it takes one."""
    name, options = request.name, request.options
    function = load(name, DATA_SOURCES.form)

    def call() -> tuple[np.ndarray, np.ndarray | None]:
        takes_size = "size" in inspect.signature(function).parameters
        found = function(size=options.size) if takes_size else function()
        images, labels = found if isinstance(found, tuple) else (found, None)
        return np.asanyarray(images), None if labels is None else np.asarray(labels)

    images, labels = run(f"the data source {name} does not work", name, call)
    if images.ndim == 0:
        rule = "it returns an array of images, or (images, labels)"
        seen, fix = type(images.item()).__name__, f"correct {name.split(':')[0]}.py"
        raise DataError(f"{name} returns {{seen}}", rule=rule, seen=seen, fix=fix)
    findings = Findings()
    pixels = understand_pixels([(Place("images", name), images)], options.background_colour, findings)
    classes = Classes()
    if labels is not None and options.classes != "none":
        place = Place("labels", name)
        check_labels(Header(labels.shape, labels.dtype), len(images), place)
        classes = understand_labels(labels, place, findings)
    return RawImages(
        images=ArrayRows(pixels, options, findings),
        labels=classes.labels,
        names=classes.names,
        findings=findings,
    )
