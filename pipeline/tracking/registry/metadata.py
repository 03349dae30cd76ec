"""What a packed or registered generator claims: its fid, training, images and origin, typed and versioned.

The JSON form is one flat object, the `facts` of facts.json: field names are its keys.
`ModelMetadata.from_json` reads any version of it, and a registered version's tags, where numbers are text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.storage import typed_json
from pipeline.storage.readable import finite

SCHEMA = 2
"""Version of the JSON form; 1 = without the key `schema`."""


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What a generator claims. A number that is missing, not finite or of another type is None.

    Attributes:
        fid: decides on a promotion; None = not measured. fid_low, fid_high: its 95 % interval. n: samples.
        evaluator: hash of extractor, reference statistics and n; two fids compare only within one.
        trial, params, kimg: the generator's run and its best tick; balance, auc, overfit: at that tick.
        fid_mean, fid_std: over the seeds that the configuration was trained with.
        search_fid: as the search measured it. fresh_fid: the same measurement with fresh latents.
        gap: fresh_fid - search_fid.
        seconds: of training and measuring. gpu_hours: of this run; sweep_gpu_hours: of the whole search.
        data: source of the training images as it was given.
        label_shares: frequency of each class in them, with which a sample without a requested label has it;
            None = no labels.
        space: hash of the sweep's search space. sweep_run_id, run_id: MLflow runs of sweep and trial.
        second_opinion: whether a second extractor agrees that it is the best finalist; empty = not asked.
        withhold: reasons to give it no alias.
        others: what else was measured, versions of packages, and keys of other versions; they are shown, and
            nothing is decided by them.
    """

    fid: float | None = None
    fid_low: float | None = None
    fid_high: float | None = None
    n: int | None = None
    extractor: str = ""
    evaluator: str = ""
    trial: int | None = None
    trial_seed: int | None = None
    search_seed: int | None = None
    kimg: int | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    balance: float | None = None
    auc: float | None = None
    overfit: float | None = None
    fid_mean: float | None = None
    fid_std: float | None = None
    search_fid: float | None = None
    fresh_fid: float | None = None
    gap: float | None = None
    seconds: float | None = None
    device: str = ""
    gpu_hours: float | None = None
    sweep_hours: float | None = None
    sweep_gpu_hours: float | None = None
    data: str = ""
    fingerprint: str = ""
    class_names: tuple[str, ...] = ()
    label_shares: tuple[float, ...] | None = None
    sweep: str = ""
    space: str = ""
    sweep_run_id: str = ""
    run_id: str = ""
    second_opinion: str = ""
    withhold: tuple[str, ...] = ()
    others: Mapping[str, object] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of a measured fid; the fid itself where it is unknown."""
        assert self.fid is not None
        if self.fid_low is None or self.fid_high is None:
            return self.fid, self.fid
        return self.fid_low, self.fid_high

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> ModelMetadata:
        """The inverse of `to_json`. Missing keys have defaults, unknown ones are kept in `others`."""
        kinds = {f.name: str(f.type) for f in fields(cls) if f.name != "others"}
        given = {key: value for key, value in values.items() if key in kinds and value is not None}
        known: Any = {key: _READERS[kinds[key]](value) for key, value in given.items()}
        others = {key: value for key, value in values.items() if key not in kinds}
        return cls(**{"schema": 1, **known, "others": others})

    def to_json(self) -> dict[str, object]:
        """One flat object of JSON values: None for unknown numbers; texts that are empty are left out."""
        values: dict[str, object] = typed_json.to_json({**self.others, **vars(self)})
        return {key: value for key, value in values.items() if value != "" and key != "others"}


def _number(value: object) -> float | None:
    if isinstance(value, str):  # of a tag
        with contextlib.suppress(ValueError):
            return finite(float(value))
    return finite(value)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(map(str, value))
    return (str(value),) if value else ()  # a reason to withhold must not be lost


_READERS: dict[str, Callable[[object], object]] = {
    "float | None": _number,
    "int | None": _number,
    "int": lambda value: int(_number(value) or 1),
    "str": str,
    "tuple[str, ...]": _texts,
    "tuple[float, ...] | None": lambda value: tuple(value) if isinstance(value, list | tuple) else None,
    "Mapping[str, object]": lambda value: value if isinstance(value, Mapping) else {},
}
"""How the value of a field is read, by its annotation."""


def text_of(value: object) -> str:
    """A value for people: numbers with four digits, the items of a mapping or list in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text_of(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
