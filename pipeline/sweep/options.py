"""The options of `run` and `resume`: one field each, from which the command line and Python's door are made.

A text that stands for a number (`time_budget`, `hang_after`, `wait`, `gpus_per_trial`) may be a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import SweepConfig, check_value
from pipeline.errors import ConfigError
from pipeline.search.space.definition import Space
from pipeline.tables import DATA_SOURCES, EXTRACTORS, LOSSES, NETWORKS, PENALTIES, PRUNERS, SAMPLERS, Table

SpaceLike = str | Path | Space | Mapping[str, object]
"""A file or a built-in name, a checked space, or the tables of a space's file; "" = by the images."""

SWEEP_DIR = "The folder that `run` made, or its address (s3://BUCKET/PREFIX/NAME)."

_DEFAULTS = SweepConfig()
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """What the command line says about an option. envvar: gives its value where it is left out."""

    help: str
    metavar: str | None = None
    envvar: str | None = None
    low: float | None = None
    short: str = ""


def _option(default: T, help: str, **more: Any) -> T:
    return dataclasses.field(default=default, metadata={"option": OptionInfo(help=help, **more)})


def _rows(*tables: Table[Any]) -> str:
    return "; ".join(f"{table.field}: {', '.join(table.forms)}" for table in tables)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is searched, on which images."""

    space: SpaceLike = _option("", "A space: TOML file or the name of a built-in one (by the images).")
    data: str = _option(_DEFAULTS.data, f"{DATA_SOURCES.describe()}.", metavar="SOURCE")
    recipe: str = _option("", "Begin from a published point: dcgan, sngan, wgan-gp, r1, r3gan or fastgan.")
    name: str = _option("", "Name of the sweep and its folder (the space's or the data's).")
    out: str | Path = _option(
        "runs", "Where sweeps are kept: a folder, s3://BUCKET/PREFIX, gs://...", metavar="DIR|URL"
    )
    image_size: int = _option(0, "Side of the prepared images in pixels (chosen).")
    classes: str = _option(
        "",
        "The images' classes: none, folders, or a FILE (csv, json) that names them (found).",
        metavar="HOW",
    )
    split: str = _option("", "A split that the images come with: given (held out as it is) or merge.")
    fit: str = _option(_DEFAULTS.fit, "How images become square: crop, pad or stretch.")
    background: str = _option(
        _DEFAULTS.background, "Colour under transparent pixels and beside padded images."
    )
    frames: str = _option(_DEFAULTS.frames, "Of stacks and animations: first or all.")
    kimg: int | None = _option(None, "Length of a full trial in kimg (the space's).", low=1)
    seed: int = _option(0, "Seed of the search and of every trial.", low=0)
    set: Mapping[str, object] | Sequence[str] = _option(
        (),
        f"Fix a hyper-parameter; repeatable. {_rows(LOSSES, PENALTIES, NETWORKS)}.",
        metavar="KEY=VALUE",
    )


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """What a resume may give anew: how much is searched, and where it is recorded."""

    trials: int | None = _option(None, "Trials to run (40; no limit with a time budget).", low=1)
    time_budget: str | float = _option("", "Stop searching after e.g. 90s, 10m, 8h, 2d.")
    gpu_hours: float | None = _option(None, "Stop searching after this many GPU hours.", low=0)
    cost_budget: float | None = _option(None, "Stop searching at this cost, by --price.", low=0)
    price: str = _option("", "What an hour of a core or a GPU costs: gpu=2.5,cpu=0.05.", metavar="KIND=X,...")
    max_failures: int | None = _option(None, "Stop searching at this many failed trials.", low=0)
    target_fid: float | None = _option(None, "Stop searching at a fid this low.", low=0)
    hang_after: str | float = _option(
        "", "End a worker silent for e.g. 30m (20 of its longest ticks, 10m at least)."
    )
    wait: str | float = _option(
        "", "Wait so long for an autoscaler's machine that holds a trial (30m); 0 = for ever."
    )
    concurrency: int | None = _option(None, "Trials at a time (what the machine allows).", low=0)
    tracking_uri: str = _option("", "MLflow store or server.", envvar="MLFLOW_TRACKING_URI")
    storage: str = _option("", "Optuna database URL (a file of the sweep).", envvar="GANSWEEP_STORAGE")
    notify: str = _option(
        "",
        "Post a JSON line there when another trial leads and when the sweep is over.",
        envvar="GANSWEEP_NOTIFY",
        metavar="URL",
    )
    quiet: bool = _option(False, "Print the result and warnings only.", short="-q")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            low, value = field.metadata["option"].low, getattr(self, field.name)
            if field.type in ("str", "bool"):
                check_value(field, value)
            if field.default == () and isinstance(value, str):
                raise ConfigError(
                    f"{field.name} = {{seen}} is no list", seen=value, fix=f"write {field.name}=[{value!r}]"
                )
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if low is not None and value is not None and not (number and value >= low):
                raise ConfigError(
                    f"{field.name} = {{seen}} is out of range",
                    rule=f"a number from {low:g}",
                    seen=value,
                    fix=f"leave it out for {field.default}" if field.default is not None else "leave it out",
                )


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(SharedOptions):
    """The options of `resume`; what is left out stays as the sweep has it."""

    location: str | Path = dataclasses.field(
        kw_only=False, metadata={"option": OptionInfo(help=SWEEP_DIR, metavar="sweep_dir")}
    )
    data: str = _option("", "Where the images are now, if they were moved.", metavar="SOURCE")
    classes: str = _option("", "Where the file of classes is now, if it was moved.", metavar="FILE")
    extractor_weights: str = _option("", "Where the extractor's weights are now, if they were moved.")


@dataclass(frozen=True, kw_only=True)
class RunOptions(SharedOptions, _Subject):
    """The options of `run`."""

    sampler: str = _option(_DEFAULTS.sampler, f"{SAMPLERS.describe()}.")
    pruner: str = _option(_DEFAULTS.pruner, f"{PRUNERS.describe()}.")
    cpus_per_trial: float = _option(_DEFAULTS.cpus_per_trial, "CPU cores (and threads) of one trial.")
    gpus_per_trial: str | float = _option("auto", "Fraction of a GPU for one trial, or auto (measured).")
    require: str = _option("", "Only machines with it: accelerator=L4, or RESOURCE=1.", metavar="KIND=X,...")
    address: str = _option(_DEFAULTS.address, "Ray cluster: local, auto or HOST:PORT.")
    register: str = _option("", "Register the best as this model (the sweep's name).")
    no_register: bool = _option(False, "Register nothing.")
    promote: str = _option(
        "champion", "Highest alias a new version may get by itself: never, candidate or champion."
    )
    extractor: str = _option(_DEFAULTS.extractor, f"What fid measures in: auto, {EXTRACTORS.describe()}.")
    extractor_weights: str = _option("", "Local weights file of the extractor.")
    second_opinion: str = _option(
        _DEFAULTS.second_opinion,
        "Where the second extractor has another winner: report says so, veto gives no alias.",
        metavar="report|veto",
    )
    second_extractor: str = _option(
        _DEFAULTS.second_extractor,
        "What finalists are also measured in: auto (by what is installed), none, or a name as --extractor.",
        metavar="NAME",
    )
    metric: Sequence[str] = _option(
        (), "A metric of your own beside fid; repeatable.", metavar="module:function"
    )
    fid_samples: int = _option(_DEFAULTS.fid_samples, "Generated images per fid.")
    final_samples: int = _option(0, "Per fid of a finalist (2.5 times as many).")
    final_seeds: int | None = _option(
        None, "Other seeds finalists are trained with (2 beyond ten minutes).", low=0
    )
    dry_run: bool = _option(False, "Check everything, print the plan, stop.")


def option_infos(kind: type[SharedOptions]) -> dict[str, OptionInfo]:
    """The description of every option of `kind`, by name."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(kind)}
