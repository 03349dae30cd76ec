"""Which columns of a Hugging Face data set are the images and the classes, and which splits are held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.data.findings import Findings
from pipeline.data.source_types import Labels
from pipeline.errors import DataError

IMAGES = ("image", "images", "img", "picture", "pixel_values", "jpg", "png")
LABELS = ("label", "labels", "class", "classes", "target", "targets", "category", "fine_label", "y")
_HELD = ("val", "test", "dev", "eval", "held")


class ColumnClasses(NamedTuple):
    """labels: int64 (N,), -1 without one. names: of label value i. rows: int64 (n,), those with a class."""

    labels: Labels
    names: Sequence[str]
    rows: Labels


def image_column(library: Any, splits: Mapping[str, Any], findings: Findings) -> str:
    """The column of images: of type Image, else of encoded bytes.

    Raises:
        DataError: there is none, or several that fit equally well.
    """
    features = next(iter(splits.values())).features
    found = [name for name, feature in features.items() if isinstance(feature, library.Image)]
    found = found or [name for name, feature in features.items() if _is_encoded(library, feature)]
    listed = ", ".join(f"{name} {_kind(feature)}" for name, feature in features.items())
    if not found:
        rule = "one column has images, or the bytes of image files"
        fix = "cast it: ds.cast_column('image', datasets.Image()), or save the arrays as npz:FILE"
        raise DataError("no column of images: {seen}", rule=rule, seen=listed, fix=fix)
    named = next((name for name in IMAGES if name in found), found[0] if len(found) == 1 else "")
    if not named:
        rule, fix = "one column of images, or one called image", f"ds.rename_column({found[0]!r}, 'image')"
        raise DataError("which column holds the images is unclear: {seen}", rule=rule, seen=listed, fix=fix)
    if others := [name for name in found if name != named]:
        findings.note(
            f"images: the column `{named}`; `{'`, `'.join(others)}` not used; rename it if that is wrong"
        )
    return named


def join_splits(
    library: Any, splits: Mapping[str, Any], column: str, findings: Findings
) -> tuple[Any, npt.NDArray[np.bool_], list[str]]:
    """The splits that are used as one table of encoded images; bool (N,) which are held out; names of rows.

    Splits that are for neither training nor testing are left out, if there is one for training.
    """
    held_out = {name for name in splits if name.lower().startswith(_HELD)}
    train = [name for name in splits if name.lower().startswith("train")]
    train = train or [name for name in splits if name not in held_out] or list(splits)
    used = [*train, *sorted(held_out - set(train))]
    for name in splits:
        if name not in used:
            findings.leave_out(f"in the split `{name}`", count=len(splits[name]))
    if len(splits) > 1:
        held = ", ".join(f"`{name}`" for name in used if name in held_out - set(train)) or "none"
        findings.note_split(
            f"splits: {', '.join(f'`{name}`' for name in train)} for training, {held} held out;"
            " --split merge ignores it"
        )
    encoded = [splits[name].cast_column(column, library.Image(decode=False)) for name in used]
    table = library.concatenate_datasets(encoded) if len(encoded) > 1 else encoded[0]
    counts = [len(splits[name]) for name in used]
    held_mask = np.repeat([name in held_out and name not in train for name in used], counts)
    return table, held_mask, [f"{name}[{i}]" for name in used for i in range(len(splits[name]))]


def find_labels(library: Any, table: Any, images: str, findings: Findings) -> ColumnClasses | None:
    """The classes in a column of type ClassLabel, else in one that is called so; None if there is none.

    Rows without a class (None, or the -1 of test splits whose labels are secret) are left out if others
    have one.
    """
    features = {name: feature for name, feature in table.features.items() if name != images}
    candidates = [name for name, feature in features.items() if isinstance(feature, library.ClassLabel)]
    plain = [name for name in LABELS if name in features and _is_plain(features[name])]
    candidates = candidates or plain
    name = next((name for name in LABELS if name in candidates), candidates[0] if candidates else "")
    if not name:
        for other in [other for other in LABELS if other in features]:
            kind = _kind(features[other])
            findings.note(f"classes: the column `{other}` of {kind} is not used; integers or texts are")
        return None
    feature, values = features[name], table[name][:]
    known = isinstance(feature, library.ClassLabel)
    missing = np.array([value is None or (known and value == -1) for value in values], bool)
    if missing.all():
        findings.note(f"classes: the column `{name}` is empty")
        return None
    findings.leave_out(f"without a class in the column `{name}`", count=int(missing.sum()))
    if others := [other for other in candidates if other != name]:
        rest = "`, `".join(others)
        findings.note(f"classes: the column `{name}`, not `{rest}`; rename it if that is wrong")
    findings.classes_from = f"the column `{name}`"
    names = list(feature.names or ()) if known else []
    rows = np.flatnonzero(~missing)
    if isinstance(values[rows[0]], str):
        names = sorted({values[row] for row in rows})
        index = {text: i for i, text in enumerate(names)}
        values = [index.get(value, -1) for value in values]
    labels = np.full(len(values), -1, np.int64)
    labels[rows] = [values[row] for row in rows]
    return ColumnClasses(labels, names, rows)


def _is_plain(feature: Any) -> bool:
    """Whether a column holds integers, bools or texts."""
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool", "string", "large_string"))


def _is_encoded(library: Any, feature: Any) -> bool:
    if isinstance(feature, dict):
        return "bytes" in feature
    return isinstance(feature, library.Value) and feature.dtype in ("binary", "large_binary")


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", "")) if hasattr(feature, "dtype") else type(feature).__name__
