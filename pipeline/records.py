"""What a trial reports at each tick: one frozen record, the meaning of its numbers, the penalty.

NaN policy: `fid` and `best_fid` are measurements and may be absent (None); they are never NaN.
`objective` is what the search compares: always present, always finite; `PENALTY` where a trial has
never had a fid. Every other number may be NaN in a diverged tick; `metrics` leaves those out.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

PENALTY = 1e6
"""Objective of a trial that never had a fid: far above any distance, so that every real fid is better."""

VERDICTS = ("healthy", "d_wins", "g_wins", "collapsed", "diverged")
"""What `pipeline.training.balance.verdict` returns for a tick."""

_OPTIONAL = ("fid", "best_fid", "best_kimg")

METRICS: dict[str, tuple[str, str]] = {
    # name: (which way is better, meaning)
    "fid": ("min", "Frechet distance of EMA samples to the training reals, in the sweep's evaluator"),
    "best_fid": ("min", "lowest fid so far"),
    "objective": ("min", "best fid so far, or the penalty where there is none"),
    "balance": ("-", "1 - |2 AUC - 1|: 1 = D at chance, 0 = one side has won"),
    "auc": ("-", "P(D(held-out real) > D(fresh fake of the raw G))"),
    "overfit": ("-", "AUC of D on training reals against held-out reals: 0.5 = none"),
    "score_real": ("-", "mean D score on held-out reals"),
    "score_fake": ("-", "mean D score on fresh fakes"),
    "sign_real": ("-", "mean sign of D's score on training reals seen in the tick"),
    "sign_fake": ("-", "mean sign of D's score on fakes seen in the tick"),
    "accuracy_real": ("-", "fraction of held-out reals that D scores above 0"),
    "accuracy_fake": ("-", "fraction of fresh fakes that D scores below 0"),
    "loss_d": ("-", "mean adversarial loss of D over the tick"),
    "loss_g": ("-", "mean adversarial loss of G over the tick"),
    "penalty": ("-", "mean gradient penalty over the tick, unscaled by the lazy interval"),
    "grad_norm_d": ("-", "mean L2 norm of D's gradient over the tick"),
    "grad_norm_g": ("-", "mean L2 norm of G's gradient over the tick"),
    "diversity": ("-", "spread of the fakes over that of the reals: 1 = alike, 0 = one image"),
    "augment_p": ("-", "probability with which the tick's last images were augmented"),
    "control": ("-", "the balance controller in the tick: 0 = neutral, to 1 D was held back, to -1 G"),
    "images_per_sec": ("max", "real images shown to D per second of training in the tick"),
    "train_seconds": ("-", "seconds spent training so far"),
    "eval_seconds": ("-", "seconds spent measuring so far"),
}


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One tick of one trial. Field meanings: `METRICS`.

    trial: Optuna's number. kimg: whole thousands of real images shown to D so far.
    best_kimg: where `best_fid` was measured. verdict: one of `VERDICTS`.
    """

    trial: int
    kimg: int
    verdict: str
    objective: float
    fid: float | None
    best_fid: float | None
    best_kimg: int | None
    balance: float
    auc: float
    overfit: float
    score_real: float
    score_fake: float
    sign_real: float
    sign_fake: float
    accuracy_real: float
    accuracy_fake: float
    loss_d: float
    loss_g: float
    penalty: float
    grad_norm_d: float
    grad_norm_g: float
    diversity: float
    augment_p: float
    control: float
    images_per_sec: float
    train_seconds: float
    eval_seconds: float

    def metrics(self) -> dict[str, float]:
        """The finite numbers among `METRICS`, by name."""
        values = {name: getattr(self, name) for name in METRICS}
        return {name: float(v) for name, v in values.items() if v is not None and math.isfinite(v)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values ready for JSON: a number that is not finite becomes None."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrialRecord:
        """The inverse of `to_dict`; a missing number reads as NaN, unknown keys are left out.

        Raises:
            ValueError: a value has the wrong type.
        """
        row: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = values.get(field.name)
            if value is not None and not _fits(value, str(field.type)):
                raise ValueError(f"{field.name} = {value!r} is no {field.type}")
            row[field.name] = math.nan if value is None and field.name not in _OPTIONAL else value
        return cls(**row)


def objective_of(best_fid: float | None) -> float:
    """What the search minimises: the best fid so far, or `PENALTY` where there is none."""
    return PENALTY if best_fid is None or not math.isfinite(best_fid) else best_fid


def _fits(value: Any, kind: str) -> bool:
    if kind == "str":
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
