"""What a trial reports at each tick: one frozen record, the meaning of its numbers, the penalty.

NaN policy: `fid` and `best_fid` are measurements and may be absent (None); they are never NaN.
`objective` is what the search compares: always present, always finite; `PENALTY` where a trial has
never had a fid. Every other number may be NaN in a diverged tick; `metrics` leaves those out.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PENALTY = 1e6
"""Objective of a trial that never had a fid: far above any distance, so that every real fid is better."""

LOWEST_FID = 1e-9  # a fid of 0 has no logarithm
VERDICTS = ("healthy", "d_wins", "g_wins", "collapsed", "diverged")
"""What `pipeline.training.balance.verdict` returns for a tick."""


@dataclass(frozen=True)
class Metric:
    """What a number says about a generator or its training.

    meaning: one line. better: `min` or `max`; empty where neither is. low, high: bounds of its values.
    target: `module:function` that computes it; empty for what the trainer reports.
    """

    meaning: str
    better: str = ""
    low: float = -math.inf
    high: float = math.inf
    target: str = ""

    def describe(self) -> str:
        """Range, direction and meaning: `0..1, higher is better: samples that lie among the reals`."""
        span = {(True, True): f"{self.low:g}..{self.high:g}", (True, False): f"{self.low:g} and up"}
        direction = {"min": "lower is better", "max": "higher is better"}
        parts = span.get((self.low > -math.inf, self.high < math.inf)), direction.get(self.better)
        start = ", ".join(part for part in parts if part)
        return f"{start}: {self.meaning}" if start else self.meaning


def metric(
    meaning: str, better: str = "", low: float = -math.inf, high: float = math.inf, target: str = ""
) -> Any:
    """A field of a dataclass that holds a `Metric`: this one line adds it."""
    return dataclasses.field(metadata={"metric": Metric(meaning, better, low, high, target)})


def metrics_of(kind: type) -> dict[str, Metric]:
    """The fields of a dataclass that are metrics, by name."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata["metric"] for field in fields if "metric" in field.metadata}


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One tick of one trial.

    trial: Optuna's number. kimg: whole thousands of real images shown to D so far.
    best_kimg: where `best_fid` was measured. verdict: one of `VERDICTS`.
    """

    trial: int
    kimg: int
    verdict: str
    objective: float = metric("best fid so far, or the penalty where there is none", better="min", low=0)
    fid: float | None = metric(
        "Frechet distance of EMA samples to the training reals, in the sweep's evaluator", better="min", low=0
    )
    best_fid: float | None = metric("lowest fid so far", better="min", low=0)
    best_kimg: int | None
    balance: float = metric("1 - |2 AUC - 1|: 1 = D at chance, 0 = one side has won", low=0, high=1)
    auc: float = metric("P(D(held-out real) > D(fresh fake of the raw G))", low=0, high=1)
    overfit: float = metric("AUC of D on training reals against held-out reals: 0.5 = none", low=0, high=1)
    score_real: float = metric("mean D score on held-out reals")
    score_fake: float = metric("mean D score on fresh fakes")
    sign_real: float = metric("mean sign of D's score on training reals seen in the tick", low=-1, high=1)
    sign_fake: float = metric("mean sign of D's score on fakes seen in the tick", low=-1, high=1)
    accuracy_real: float = metric("fraction of held-out reals that D scores above 0", low=0, high=1)
    accuracy_fake: float = metric("fraction of fresh fakes that D scores below 0", low=0, high=1)
    loss_d: float = metric("mean adversarial loss of D over the tick")
    loss_g: float = metric("mean adversarial loss of G over the tick")
    penalty: float = metric("mean gradient penalty over the tick, unscaled by the lazy interval")
    grad_norm_d: float = metric("mean L2 norm of D's gradient over the tick", low=0)
    grad_norm_g: float = metric("mean L2 norm of G's gradient over the tick", low=0)
    diversity: float = metric("spread of the fakes over that of the reals: 1 = alike, 0 = one image", low=0)
    augment_p: float = metric("probability with which the tick's last images were augmented", low=0, high=1)
    control: float = metric(
        "the balance controller in the tick: 0 = neutral, to 1 D was held back, to -1 G", low=-1, high=1
    )
    images_per_sec: float = metric(
        "real images shown to D per second of training in the tick", better="max", low=0
    )
    train_seconds: float = metric("seconds spent training so far", low=0)
    eval_seconds: float = metric("seconds spent measuring so far", low=0)

    def metrics(self) -> dict[str, float]:
        """The finite numbers among `METRICS`, by name."""
        values = {name: getattr(self, name) for name in METRICS}
        return {name: float(v) for name, v in values.items() if v is not None and math.isfinite(v)}

    def to_dict(self) -> dict[str, object]:
        """Plain values ready for JSON: a number that is not finite becomes None."""
        values = dataclasses.asdict(self)
        floats = [name for name, value in values.items() if isinstance(value, float)]
        return values | {name: None for name in floats if not math.isfinite(values[name])}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> TrialRecord:
        """The inverse of `to_dict`; a missing measurement reads as NaN, unknown keys are left out.

        Raises:
            ValueError: a value has the wrong type, or `trial`, `kimg` or `verdict` is missing.
        """
        row: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value, kind = values.get(field.name), str(field.type)
            if value is None and kind == "float":
                value = math.nan
            if not (_fits(value, kind) or (value is None and "None" in kind)):
                raise ValueError(f"{field.name} = {value!r} is no {kind}")
            row[field.name] = value
        return cls(**row)


METRICS = metrics_of(TrialRecord)
"""The numbers of a tick, by name."""


def objective_of(best_fid: float | None) -> float:
    """What the search minimises: the best fid so far, or `PENALTY` where there is none."""
    return PENALTY if best_fid is None or not math.isfinite(best_fid) else best_fid


def _fits(value: Any, kind: str) -> bool:
    if kind == "str":
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)
