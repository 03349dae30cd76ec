"""The metrics of a trained generator: names, ranges and meanings; needs no torch.

One line adds a metric: a field of `Measurement` whose target computes it from `MetricInputs`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from pipeline.records import metric, metrics_of
from pipeline.storage.typed_json import key

_MODULE = "pipeline.metrics.generator_metrics"
_FID, _KID, _PRDC = f"{_MODULE}:fid_interval", f"{_MODULE}:kids", f"{_MODULE}:precision_recall"
_SECOND = f"{_MODULE}:second_fid"
_COPIES, _COLLAPSE = f"{_MODULE}:copies", f"{_MODULE}:collapse"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The metrics of a generator; distances use the features of `extractor`.

    fid is the mean over `repeats` independent batches of n samples. A target that returns a dict
    computes all fields of its names.
    """

    n: int = key("number of samples", "images")
    seed: int = key("seed of their latents")
    repeats: int = key("number of independent batches of n samples")
    extractor: str = key("name of the extractor")
    evaluator: str = key("hash of the evaluator")
    fid: float = metric(
        "Frechet distance to the training reals, at this n and evaluator only", "min", low=0, target=_FID
    )
    fid_low: float = metric(
        "lower end of the interval: 95 % of measurements with n other samples lie in it (95 % sure)",
        target=_FID,
    )
    fid_high: float = metric("upper end of the interval", target=_FID)
    second_fid: float | None = metric(
        "Frechet distance in second_extractor of the first n samples", "min", low=0, target=_SECOND
    )
    second_low: float | None = metric("lower end of its interval, as fid_low", target=_SECOND)
    second_high: float | None = metric("upper end of its interval", target=_SECOND)
    fid_infinity: float = metric(
        "fid extrapolated to infinitely many samples; may be below 0", "min", target=f"{_MODULE}:fid_infinity"
    )
    fid_held: float = metric(
        "fid of n_held samples to as many held-out reals: compare with fid_even", "min", low=0, target=_FID
    )
    fid_even: float = metric(
        "fid of the same samples to as many training reals: far below fid_held = overfitted",
        low=0,
        target=_FID,
    )
    n_held: int = metric(
        "samples and reals behind fid_held, fid_even and kid_held: never more than are held out", target=_FID
    )
    fid_by_class: dict[str, float] = metric(
        "fid within each class, few samples each: compare classes of one measurement only",
        target=f"{_MODULE}:fid_by_class",
    )
    kid: float = metric("unbiased squared MMD, any n; about 0 and up, may be below 0", "min", target=_KID)
    kid_error: float = metric("standard error of kid", target=_KID)
    kid_held: float = metric("kid to the held-out reals: far above kid = overfitted", "min", target=_KID)
    kid_held_error: float = metric("standard error of kid_held", target=_KID)
    precision: float = metric("samples that lie among the reals", "max", low=0, high=1, target=_PRDC)
    recall: float = metric("reals that lie among the samples", "max", low=0, high=1, target=_PRDC)
    density: float = metric("how thickly reals surround a sample: 1 = as the reals", low=0, target=_PRDC)
    coverage: float = metric("reals with a sample nearby", "max", low=0, high=1, target=_PRDC)
    memorisation_auc: float = metric(
        "closeness to training images: 0.5 = as held-out ones, 1 = copies", low=0, high=1, target=_COPIES
    )
    copied: float = metric(
        "samples closer to a training image than 99 % of held-out ones", "min", low=0, high=1, target=_COPIES
    )
    memorisation: str = key("`ok`, or the verdict")
    modes: int = metric(
        "classes (else clusters) with at least a tenth of their frequency in the reals", target=_COLLAPSE
    )
    modes_total: int = metric("number of modes in the training images", target=_COLLAPSE)
    imbalance: float = metric(
        "total variation between the modes of samples and reals", "min", low=0, high=1, target=_COLLAPSE
    )
    diversity: float = metric(
        "mean distance of two samples over that of two reals: 1 = as the reals", low=0, target=_COLLAPSE
    )
    duplicates: float = metric("samples nearly equal to another", "min", low=0, high=1, target=_COLLAPSE)
    class_counts: dict[str, int] = metric("samples per class or cluster", target=_COLLAPSE)
    label_accuracy: float | None = metric(
        "samples of the class they were made for", "max", low=0, high=1, target=f"{_MODULE}:label_accuracy"
    )
    collapse: str = key("`ok`, or the verdict")
    notes: tuple[str, ...] = key("caveats about these numbers")
    second_extractor: str = key("of the second opinion; empty = there is none", default="")
    second_evaluator: str = key("hash of its evaluator", default="")
    custom: dict[str, float] = field(default_factory=dict, metadata={"meaning": "the user's own metrics"})

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Reasons against promotion, one sentence each; empty without memorization or mode collapse."""
        reasons = []
        if self.memorisation != "ok":
            reasons.append(
                f"copies: {self.copied:.0%} of the samples lie closer to a training image than 99 % of "
                f"held-out images do (AUC {self.memorisation_auc:.2f})"
            )
        if self.collapse != "ok":
            reasons.append(
                f"collapsed: {self.modes} of {self.modes_total} modes (imbalance {self.imbalance:.2f}), "
                f"{self.duplicates:.0%} duplicates, diversity {self.diversity:.2f} of the reals'"
            )
        return tuple(reasons)

    def to_dict(self) -> dict[str, object]:
        """The fields and `verdicts` as JSON values; second opinion and `custom` only where there are any."""
        values = {**dataclasses.asdict(self), "notes": list(self.notes), "verdicts": list(self.verdicts)}
        left_out = set() if self.custom else {"custom"}
        if not self.second_extractor:
            left_out |= {name for name in values if name.startswith("second_")}
        return {name: value for name, value in values.items() if name not in left_out}


METRICS = metrics_of(Measurement)
"""The metrics, by name, in the order in which they are computed."""
METRIC_DESCRIPTIONS = {name: row.describe() for name, row in METRICS.items()}
"""Range, direction and meaning of each."""
