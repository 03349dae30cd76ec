"""Labels in arrays as others write them: columns, whole floats, bools, texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.data.arrays.array_layout import Array, Header, Place, blocks_of
from pipeline.data.findings import Findings, printable
from pipeline.data.source_types import Labels
from pipeline.errors import DataError


class Classes(NamedTuple):
    """labels: int64 (N,), None = the images have none. names: of label value i; empty if there are none."""

    labels: Labels | None = None
    names: Sequence[str] = ()


def check_labels(header: Header, count: int, place: Place) -> None:
    """DataError unless it may hold labels of `count` images; a small file may claim terabytes."""
    if header.dtype.hasobject:
        fix = f"if you trust it: {place.rewrite('A.astype(str)', unpickle=True)}"
        raise _refused(header, place, "pickled objects are never read", fix)
    if header.dtype.kind not in "buifUS":
        raise _refused(header, place, _rule(count), _without(place.rewrite("A.astype(int)")))
    if header.shape[:1] != (count,):
        raise _refused(header, place, _rule(count), _without("write one label per image"))


def understand_labels(
    array: Array, place: Place, findings: Findings, class_names: Sequence[str] = ()
) -> Classes:
    """The classes in an array that `check_labels` let pass: (N,), (N,1), or several columns.

    Several columns that are no classes are left out with a note.

    Raises:
        DataError: they are one-hot, or floats that are not whole.
    """
    header = Header(array.shape, array.dtype)
    if array.size != len(array):
        rows = array.reshape(len(array), -1)
        if rows.dtype.kind in "buif" and all(map(_is_one_hot, blocks_of(rows))):
            fix = place.rewrite("A.reshape(len(A), -1).argmax(1)")
            raise _refused(header, place, f"one-hot labels are {_rule(len(array))}", fix)
        findings.note(
            f"labels: `{place.name}` {header} has {rows.shape[1]} values for each image and is not used;"
            f" write one column: {place.rewrite('A[:, 0]')}"
        )
        return Classes()
    values = array.reshape(len(array))
    findings.classes_from = f"the array `{place.name}`"
    if values.dtype.kind in "US":
        names, labels = np.unique(np.array(texts_of(values), str), return_inverse=True)
        return Classes(labels.astype(np.int64), names.tolist())
    whole = values.astype(np.float64)
    if not (np.isfinite(whole) & (whole == np.rint(whole)) & (abs(whole) < 2**63)).all():
        raise _refused(header, place, _rule(len(values)), _without(place.rewrite("A.astype(int)")))
    labels = values.astype(np.int64)
    named = len(class_names) > 0 and labels.min() >= 0 and labels.max() < len(class_names)
    return Classes(labels, list(class_names) if named else ())


def texts_of(array: Array) -> list[str]:
    """The texts of an array (N,) of texts or bytes; what is no UTF-8 is escaped."""
    values = array.tolist()
    return [
        text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else printable(text)
        for text in values
    ]


def _is_one_hot(rows: Array) -> bool:
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(1) == 1).all())


def _rule(count: int) -> str:
    return f"integers ({count},), or texts"


def _without(fix: str) -> str:
    return f"--classes none leaves them out, or {fix}"


def _refused(header: Header, place: Place, rule: str, fix: str) -> DataError:
    seen = f"{header} in {place.where}"
    return DataError(f"the array `{place.name}` is {{seen}}", rule=rule, seen=seen, fix=fix)
