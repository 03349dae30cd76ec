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
from pipeline.search.recipes import builtin_recipes
from pipeline.search.space.definition import Space
from pipeline.tables import DATA_SOURCES, EXTRACTORS, PRUNERS, SAMPLERS

SpaceLike = str | Path | Space | Mapping[str, object]
"""A file or a built-in name, a checked space, or the tables of a space's file; "" = by the images."""

SWEEP_DIR = "A sweep's folder, or its address (s3://BUCKET/PREFIX/NAME)."

SEARCHED, IMAGES, LENGTH = "What is searched", "Images", "How long"
PLACE, METHOD = "Where it runs and is recorded", "Search method"
MEASURING, ADVANCED = "Measuring and champion", "Advanced"
GROUPS = (SEARCHED, IMAGES, LENGTH, PLACE, METHOD, MEASURING, ADVANCED)
"""The headings of the options, in the order in which `--help` shows them."""

_DEFAULTS = SweepConfig()
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """What the command line says about an option.

    group: the heading below which `--help` shows it, one of `GROUPS`.
    envvar: gives its value where it is left out.
    """

    help: str
    group: str = ""
    metavar: str | None = None
    envvar: str | None = None
    low: float | None = None
    short: str = ""


def _option(default: T, help: str, group: str, **more: Any) -> T:
    info = OptionInfo(help=help, group=group, **more)
    return dataclasses.field(default=default, metadata={"option": info})


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is searched, on which images."""

    space: SpaceLike = _option(
        "", "TOML file, or name of a built-in space (by the images).", SEARCHED, metavar="SPACE"
    )
    data: str = _option(_DEFAULTS.data, f"{DATA_SOURCES.describe()}.", IMAGES, metavar="SOURCE")
    recipe: str = _option(
        "", f"Begin from a published point: {', '.join(builtin_recipes())}.", SEARCHED, metavar="NAME"
    )
    name: str = _option(
        "", "Name of the sweep and its folder (the space's or data's).", PLACE, metavar="NAME"
    )
    out: str | Path = _option(
        "runs", "Folder or object store (s3://BUCKET/PREFIX) of sweeps.", PLACE, metavar="DIR|URL"
    )
    image_size: int = _option(0, "Side of the prepared images (chosen).", IMAGES, metavar="PX")
    classes: str = _option(
        "", "none, folders, or a FILE (csv, json) that names them (found).", IMAGES, metavar="HOW"
    )
    split: str = _option(
        "", "The images' own split: given (held out) or merge (given).", IMAGES, metavar="HOW"
    )
    fit: str = _option(
        _DEFAULTS.fit, "How images become square: crop, pad or stretch.", IMAGES, metavar="HOW"
    )
    background: str = _option(
        _DEFAULTS.background, "Colour below transparent pixels and of padding.", IMAGES, metavar="COLOUR"
    )
    frames: str = _option(
        _DEFAULTS.frames, "Of stacks and animations: first or all.", IMAGES, metavar="WHICH"
    )
    kimg: int | None = _option(
        None, "Thousands of images shown in a full trial (the space's).", LENGTH, low=1, metavar="N"
    )
    seed: int = _option(0, "Seed of the search and of every trial (0).", METHOD, low=0, metavar="N")
    set: Mapping[str, object] | Sequence[str] = _option(
        (), "Fix a hyper-parameter, as loss=hinge; repeatable.", SEARCHED, metavar="KEY=VALUE"
    )


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """What a resume may give anew: how much is searched, and where it is recorded."""

    trials: int | None = _option(
        None, "Trials to run (40; no limit with a time budget).", LENGTH, low=1, metavar="N"
    )
    time_budget: str | float = _option(
        "", "Stop searching after this: 90s, 10m, 8h, 2d.", LENGTH, metavar="TIME"
    )
    gpu_hours: float | None = _option(
        None, "Stop searching after this many GPU hours.", LENGTH, low=0, metavar="H"
    )
    cost_budget: float | None = _option(
        None, "Stop searching at this cost, by --price.", LENGTH, low=0, metavar="COST"
    )
    price: str = _option("", "Cost of an hour: gpu=2.5,cpu=0.05.", LENGTH, metavar="KIND=X,...")
    max_failures: int | None = _option(
        None, "Stop searching at this many failed trials.", LENGTH, low=0, metavar="N"
    )
    target_fid: float | None = _option(
        None, "Stop searching at a fid this low.", LENGTH, low=0, metavar="FID"
    )
    until_plateau: float | None = _option(
        None, "Stop where one more hour should lower fid by less; try 1.", LENGTH, low=0, metavar="PERCENT"
    )
    hang_after: str | float = _option(
        "", "End a worker silent this long (20 ticks, 10m at least).", ADVANCED, metavar="TIME"
    )
    wait: str | float = _option(
        "", "Wait this long for an autoscaler's machine (30m); 0 = for ever.", ADVANCED, metavar="TIME"
    )
    concurrency: int | None = _option(
        None, "Trials at a time (what the machine allows).", PLACE, low=0, metavar="N"
    )
    tracking_uri: str = _option(
        "", "MLflow store or server.", PLACE, envvar="MLFLOW_TRACKING_URI", metavar="URI"
    )
    storage: str = _option(
        "", "Optuna database (a file of the sweep).", PLACE, envvar="GANSWEEP_STORAGE", metavar="URL"
    )
    notify: str = _option(
        "",
        "Post JSON there at every new best trial and at the end.",
        PLACE,
        envvar="GANSWEEP_NOTIFY",
        metavar="URL",
    )
    dry_run: bool = _option(False, "Check everything, print the plan, stop.", LENGTH)
    quiet: bool = _option(False, "Print only the result and warnings.", PLACE, short="-q")

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
        kw_only=False, metadata={"option": OptionInfo(help=SWEEP_DIR, metavar="SWEEP_DIR")}
    )
    data: str = _option("", "Where the images are now, if they were moved.", IMAGES, metavar="SOURCE")
    classes: str = _option("", "Where the file of classes is now, if moved.", IMAGES, metavar="FILE")
    extractor_weights: str = _option(
        "", "Where the extractor's weights are now, if moved.", MEASURING, metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions(SharedOptions, _Subject):
    """The options of `run`."""

    sampler: str = _option(_DEFAULTS.sampler, f"{', '.join(SAMPLERS.forms)}.", METHOD, metavar="NAME")
    pruner: str = _option(_DEFAULTS.pruner, f"{', '.join(PRUNERS.forms)}.", METHOD, metavar="NAME")
    cpus_per_trial: float = _option(
        _DEFAULTS.cpus_per_trial, "CPU cores (and threads) of one trial.", PLACE, metavar="N"
    )
    gpus_per_trial: str | float = _option(
        "auto", "Fraction of a GPU for one trial; auto = measured.", PLACE, metavar="N"
    )
    require: str = _option(
        "", "Only machines with it: accelerator=L4, RESOURCE=1.", ADVANCED, metavar="KIND=X,..."
    )
    address: str = _option(
        _DEFAULTS.address, "Ray cluster: local, auto or HOST:PORT.", PLACE, metavar="WHERE"
    )
    register: str = _option(
        "", "Register the best as this model (the sweep's name).", MEASURING, metavar="NAME"
    )
    no_register: bool = _option(False, "Register nothing.", MEASURING)
    promote: str = _option(
        "champion", "Highest alias given: never, candidate or champion.", MEASURING, metavar="ALIAS"
    )
    extractor: str = _option(
        _DEFAULTS.extractor,
        f"Features that fid measures in: auto, {', '.join(EXTRACTORS.forms)}.",
        MEASURING,
        metavar="NAME",
    )
    extractor_weights: str = _option("", "Local file of the extractor's weights.", MEASURING, metavar="FILE")
    second_extractor: str = _option(
        _DEFAULTS.second_extractor,
        "For a second fid of finalists: auto, none, or as --extractor.",
        MEASURING,
        metavar="NAME",
    )
    second_opinion: str = _option(
        _DEFAULTS.second_opinion,
        "If that has another winner: report it, or veto the alias.",
        MEASURING,
        metavar="HOW",
    )
    metric: Sequence[str] = _option(
        (), "module:function, a metric of your own; repeatable.", MEASURING, metavar="NAME"
    )
    fid_samples: int = _option(_DEFAULTS.fid_samples, "Generated images per fid.", MEASURING, metavar="N")
    final_samples: int = _option(0, "Per fid of a finalist (2.5 times as many).", MEASURING, metavar="N")
    final_seeds: int | None = _option(
        None, "Other seeds per finalist (2 beyond ten minutes).", MEASURING, low=0, metavar="N"
    )


def option_infos(kind: type[SharedOptions]) -> dict[str, OptionInfo]:
    """The description of every option of `kind`, by name."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(kind)}
