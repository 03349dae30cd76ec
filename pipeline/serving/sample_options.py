"""Which images `gansweep sample` makes, and in which form."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError

FORMATS = ("folder", "npz", "parquet")
"""Layouts of a data set; see `pipeline.serving.dataset_export`."""
LABELS = ("data", "balanced")
MAX_IMAGES = 10**9


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Which images of a generator, and in which form.

    Attributes:
        n: images in all.
        seed: of the latents, in [0, 2^63).
        label: the class of all images, by its number or its name; None = by `labels`.
        labels: `data` (frequencies of the training images) or `balanced`.
        truncation: factor of the latents, in (0, 2].
        format: one of `FORMATS` for a data set; empty = by the name of the output.
        device: `cpu`, `cuda` or `auto` (a GPU for a data set, else the CPU).

    Raises:
        ConfigError: a value is out of range, or two exclude each other.
    """

    n: int
    seed: int = 0
    label: int | str | None = None
    labels: str = "data"
    truncation: float = 1.0
    format: str = ""
    device: str = "auto"

    def __post_init__(self) -> None:
        choices = (("--format", self.format or FORMATS[0], FORMATS), ("--labels", self.labels, LABELS))
        for flag, value, known in choices:
            if value not in known:
                rule = f"it must be {', '.join(known[:-1])} or {known[-1]}"
                fix = f"write {flag} {known[0]}"
                raise ConfigError(f"{flag} {{seen}} is unknown", rule=rule, seen=value, fix=fix)
        if self.label is not None and self.labels == "balanced":
            raise ConfigError(
                "--label and --labels balanced are both given",
                rule="one asks for a single class, the other for all of them",
                fix="leave one out",
            )

    def check_count(self, most: int = MAX_IMAGES) -> None:
        """Raise ConfigError unless n lies in [1, most]."""
        if not 1 <= self.n <= most:
            for_folder = self.n > most and most < MAX_IMAGES
            fix = "write a folder: --out DIR --format npz" if for_folder else "write -n 64"
            raise ConfigError(
                "-n {seen} is out of range", rule=f"-n lies in [1, {most}]", seen=self.n, fix=fix
            )
