"""What a packed or registered generator claims: its fid, training, images and origin, typed and versioned.

The JSON form is one flat object, the `facts` of facts.json: field names are its keys.
`ModelMetadata.from_json` reads any version of it, and a registered version's tags, where numbers are text.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pipeline.storage.readable import finite

SCHEMA = 2
"""Version of the JSON form; 1 = without the key `schema`."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MeasuredFid:
    """The fid, on which a promotion is decided.

    fid: None = not measured. fid_low, fid_high: its 95 % interval. n: samples. evaluator: hash of extractor,
    reference statistics and n; two fids compare only within one.
    """

    fid: float | None = None
    fid_low: float | None = None
    fid_high: float | None = None
    n: int | None = None
    extractor: str = ""
    evaluator: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of a measured fid; the fid itself where it is unknown."""
        assert self.fid is not None
        if self.fid_low is None or self.fid_high is None:
            return self.fid, self.fid
        return self.fid_low, self.fid_high

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        low, high = self.interval
        return max(0.0, (high - low) / 2)


@dataclass(frozen=True, kw_only=True)
class Training:
    """The run that the generator comes from, at its best tick.

    fid_mean, fid_std: over the seeds that the configuration was trained with. search_fid: as the search
    measured it. fresh_fid: the same measurement with fresh latents; gap: fresh_fid - search_fid.
    seconds: of training and measuring. gpu_hours: of this run; sweep_gpu_hours: of the whole search.
    """

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


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """The images that it was trained on.

    data: the source as it was given. label_shares: frequency of each class, with which a sample without a
    requested label has it; None = no labels.
    """

    data: str = ""
    fingerprint: str = ""
    class_names: tuple[str, ...] = ()
    label_shares: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Sweep, hash of its space, MLflow runs of the sweep and of the trial, and what it ran on."""

    sweep: str = ""
    space: str = ""
    sweep_run_id: str = ""
    run_id: str = ""
    python: str = ""
    platform: str = ""
    gansweep: str = ""
    torch: str = ""
    ray: str = ""
    optuna: str = ""
    mlflow: str = ""
    git_commit: str = field(default="", metadata={"key": "git.commit"})
    git_dirty: str = field(default="", metadata={"key": "git.dirty"})


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What a generator claims. A number that is missing, not finite or of another type is None.

    withhold: reasons to give it no alias. metrics: what else was measured, and keys of other versions; they
    are shown, and nothing is decided by them.
    """

    measured: MeasuredFid = field(default_factory=MeasuredFid)
    training: Training = field(default_factory=Training)
    images: TrainingImages = field(default_factory=TrainingImages)
    origin: Origin = field(default_factory=Origin)
    withhold: tuple[str, ...] = ()
    metrics: Mapping[str, object] = field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> ModelMetadata:
        """The inverse of `to_json`. Missing keys have defaults, unknown ones are kept in `metrics`."""
        groups = (MeasuredFid, Training, TrainingImages, Origin)
        known = {"withhold", "schema"}.union(_key(f) for group in groups for f in fields(group))
        return cls(
            measured=_read(MeasuredFid, values),
            training=_read(Training, values),
            images=_read(TrainingImages, values),
            origin=_read(Origin, values),
            withhold=_texts(values.get("withhold")),
            metrics={key: value for key, value in values.items() if key not in known},
            schema=int(_number(values.get("schema")) or 1),
        )

    def to_json(self) -> dict[str, object]:
        """One flat object of JSON values: None for unknown numbers; texts that are empty are left out."""
        values = {**self.metrics, "withhold": self.withhold, "schema": self.schema}
        for group in (self.measured, self.training, self.images, self.origin):
            values |= {_key(f): getattr(group, f.name) for f in fields(group)}
        ready: dict[str, object] = json_ready({key: value for key, value in values.items() if value != ""})
        return ready


def _read(group: Callable[..., T], values: Mapping[str, object]) -> T:
    """A group with the values of its keys; what is missing or of another type is empty."""
    known = [f for f in fields(group) if values.get(_key(f)) is not None]  # type: ignore[arg-type]
    return group(**{f.name: _READERS[str(f.type)](values[_key(f)]) for f in known})


def _key(f: Any) -> str:
    return str(f.metadata.get("key", f.name))


def _number(value: object) -> float | None:
    if isinstance(value, str):  # of a tag
        with contextlib.suppress(ValueError):
            return finite(float(value))
    return finite(value)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(map(str, value))
    return (str(value),) if value else ()  # a reason to withhold must not be lost


def _shares(value: object) -> tuple[float, ...] | None:
    return tuple(map(float, value)) if isinstance(value, list | tuple) else None


_READERS: dict[str, Callable[[object], object]] = {
    "float | None": _number,
    "int | None": _number,
    "str": str,
    "tuple[str, ...]": _texts,
    "tuple[float, ...] | None": _shares,
    "Mapping[str, object]": lambda value: value if isinstance(value, Mapping) else {},
}
"""How the value of a field is read, by its annotation."""


def json_ready(value: Any) -> Any:
    """`value`, a mapping or sequence, with None for every number that JSON cannot hold (NaN, infinities)."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_of(value: object) -> str:
    """A value for people: numbers with four digits, the items of a mapping or list in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text_of(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
