"""All hyper-parameters and options, typed, each with its default, bounds, unit and one line of meaning.

`TrialConfig`: what one GAN is and how it trains; its fields are the names that a space may use.
`SweepConfig`: how many trials, how they are judged, where they run. `SweepPaths`: the files of a sweep.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pipeline.errors import ConfigError, nearest
from pipeline.tables import (
    DATA_SOURCES,
    EXTRACTORS,
    LOSSES,
    METRIC_FORM,
    NETWORKS,
    PENALTIES,
    PRUNERS,
    SAMPLERS,
    Table,
    unknown_choice,
)
from pipeline.user_code import is_user_code

SWEEP_HEAD = "# Written by gansweep"
"""With this the file sweep.toml of a sweep begins."""

N = TypeVar("N", int, float)
P = TypeVar("P", bool, str)


def _number(default: N, low: float, high: float, meaning: str, unit: str = "", **further: str) -> N:
    bounds = {"low": low, "high": high, "unit": unit}
    return dataclasses.field(default=default, metadata={"meaning": meaning, **bounds, **further})


def _choice(default: str, choices: tuple[str, ...] | Table[Any], meaning: str, **further: str) -> str:
    """Choices from the cheapest to the most expensive, or a table, which also takes `module:name`."""
    return dataclasses.field(default=default, metadata={"choices": choices, "meaning": meaning, **further})


def _plain(default: P, meaning: str, **further: str) -> P:
    """further: `group`, heading of the group that begins here; `option`, where it is not the field's name."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, **further})


class _Checked:
    """Bounds checking and strict construction, shared by the two configurations."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            checked = check_value(field, getattr(self, field.name))
            object.__setattr__(self, field.name, checked)

    @classmethod
    def fields(cls) -> dict[str, dataclasses.Field[Any]]:
        """The fields by name, in the order in which they are declared."""
        return {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def groups(cls) -> dict[str, list[dataclasses.Field[Any]]]:
        """The fields by the heading of their group, in the order in which they are declared."""
        groups: dict[str, list[dataclasses.Field[Any]]] = {}
        heading = ""
        for field in cls.fields().values():
            heading = field.metadata.get("group") or heading
            groups.setdefault(heading, []).append(field)
        return groups

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Build from a mapping; an unknown key is a ConfigError that names the nearest valid one."""
        check_names(values, cls.fields())
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, ready for JSON or TOML."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, kw_only=True)
class TrialConfig(_Checked):
    """One GAN and its training. Progress counts in kimg: thousands of real images shown to D."""

    architecture: str = _choice("dcgan", NETWORKS, "architecture of G and D", group="Networks")
    width_g: int = _number(32, 2, 2048, "G: channels at the highest resolution (mlp: units)", "channels")
    width_d: int = _number(32, 2, 2048, "D: channels at the highest resolution (mlp: units)", "channels")
    depth_g: int = _number(1, 1, 8, "G: layers per resolution (mlp: hidden layers)", "layers")
    depth_d: int = _number(1, 1, 8, "D: layers per resolution (mlp: hidden layers)", "layers")
    z_dim: int = _number(64, 1, 2048, "length of the latent vector z ~ N(0, I)")
    conditional: bool = _plain(False, "G draws classes, D judges by projection; needs labels")
    condition_g: str = _choice(
        "embed", ("embed", "batchnorm"), "how G gets the class: beside z, or by batch norm where G has it"
    )
    norm_g: str = _choice("batch", ("none", "batch"), "normalisation in G, where the architecture has it")
    norm_d: str = _choice(
        "none", ("none", "batch", "layer", "spectral"), "normalisation in D, where the architecture has it"
    )

    loss: str = _choice("nonsaturating", LOSSES, "adversarial loss", group="Losses")
    penalty: str = _choice("none", PENALTIES, "gradient penalty on D")
    gamma: float = _number(1.0, 0.0, 1e4, "strength of the penalty")
    penalty_interval: int = _number(1, 1, 64, "lazy regularisation: penalty every k-th D step", "D steps")
    n_critic: int = _number(1, 1, 20, "D steps per G step")
    d_warmup_kimg: float = _number(0.0, 0.0, 1e4, "D trains alone first", "kimg")

    batch_size: int = _number(64, 2, 8192, "images per step", "images", group="Optimisation")
    lr_g: float = _number(2e-4, 1e-7, 1.0, "Adam learning rate of G")
    lr_d: float = _number(2e-4, 1e-7, 1.0, "Adam learning rate of D")
    beta1: float = _number(0.5, 0.0, 0.999, "Adam beta1 of G and D")
    beta2: float = _number(0.999, 0.0, 0.99999, "Adam beta2 of G and D")
    ema_halflife_kimg: float = _number(5.0, 0.0, 1e5, "half-life of G's weight average; 0 = none", "kimg")

    schedule: str = _choice(
        "constant",
        ("constant", "cosine"),
        "whether rates and strengths change in time",
        group="Schedules: half a cosine; lr, beta2 and gamma above are its starts, the others its ends",
    )
    burn_in_kimg: float = _number(
        0.0, 0.0, 1e6, "cosine: its length, constant after it; 0 = the trial's", "kimg"
    )
    lr_final: float = _number(1.0, 0.0, 1.0, "cosine: where lr_g and lr_d end, as a factor of them")
    beta2_final: float = _number(0.0, 0.0, 0.99999, "cosine: where beta2 ends; 0 = where it starts")
    gamma_final: float = _number(1.0, 0.0, 1e3, "cosine: where gamma ends, as a factor of it")
    ema_start: float = _number(1.0, 0.0, 1.0, "cosine: where the half-life starts, as a factor of it")

    mirror: bool = _plain(
        False,
        "train on the images and on their mirror images, left to right",
        group="Images and augmentation",
    )
    augment: str = _choice("none", ("none", "diffaugment", "ada"), "ada: p follows the overfitting of D")
    augment_p: float = _number(
        0.8, 0.0, 1.0, "probability that an image is augmented; ada: its maximum, <= 0.8"
    )
    augment_start: float = _number(1.0, 0.0, 1.0, "cosine: where augment_p starts, as a factor of it")
    augment_target: float = _number(0.6, 0.5, 1.0, "ada: the overfit to hold; 0.5 = none", "AUC")
    augment_kimg: float = _number(100.0, 0.001, 1e6, "ada: shortest time for p to go from 0 to 1", "kimg")

    controller: str = _choice(
        "none", ("none", "skip", "lr_ratio"), "how the winning side is held back", group="Balance controller"
    )
    auc_low: float = _number(0.6, 0.0, 0.7, "controller: below this AUC G is held back", "AUC")
    auc_high: float = _number(0.9, 0.7, 1.0, "controller: above this AUC D is held back", "AUC")

    kimg: int = _number(100, 1, 1_000_000, "length of a full trial", "kimg", group="Budget and numerics")
    tick_kimg: int = _number(5, 1, 100_000, "interval between two reports; at least one step of G", "kimg")
    precision: str = _choice("float32", ("bfloat16", "float32"), "arithmetic of the forward passes")
    seed: int = _number(0, 0, 2**63 - 1, "seed of everything random in the trial")

    def __post_init__(self) -> None:
        super().__post_init__()
        # No tick is shorter than the time until G makes a step.
        g_step = math.ceil(self.batch_size * self.n_critic / 1000)
        object.__setattr__(self, "tick_kimg", min(max(self.tick_kimg, g_step), self.kimg))

    def float_pixels(self, size: int) -> int:
        """Pixels of all the real images of `size` px that D sees in float32; 0 in bfloat16."""
        return self.kimg * 1000 * size**2 if self.precision == "float32" else 0


EFFECTIVE_WHEN = {
    "conditional is true": ("condition_g",),
    "penalty is not none": ("gamma", "penalty_interval"),
    "schedule is cosine": ("burn_in_kimg", "lr_final", "beta2_final", "ema_start"),
    "schedule is cosine, penalty is not none": ("gamma_final",),
    "schedule is cosine, augment is not none": ("augment_start",),
    "augment is not none": ("augment_p",),
    "augment is ada": ("augment_target", "augment_kimg"),
    "controller is not none": ("auc_low", "auc_high"),
}
"""Fields of TrialConfig that have an effect under a condition only."""


def names_file(classes: str) -> bool:
    """Whether a value of `SweepConfig.classes` is a file that names the classes."""
    return classes not in ("", "none", "folders")


@dataclass(frozen=True, kw_only=True)
class SweepConfig(_Checked):
    """One search over one space on one data set, as resolved from the command line."""

    name: str = _plain("mnist5k", "name of the sweep and of its folder", group="Name and images")
    data: str = _plain("mnist5k", f"image source: {DATA_SOURCES.describe()}")
    image_size: int = _number(0, 0, 4096, "side of the prepared images; 0 = a size is chosen", "pixels")
    classes: str = _plain("", "the images' classes: none, folders, or a file that names them; empty = found")
    split: str = _choice("", ("", "given", "merge"), "the images' own split: held out as it is, or merged")
    fit: str = _choice("crop", ("crop", "pad", "stretch"), "how images become square")
    background: str = _plain("white", "colour under transparent pixels and beside padded images")
    frames: str = _choice("first", ("first", "all"), "which images of stacks and animations are used")
    space: str = _plain("mnist5k", "the space's file or built-in name", group="Search and its limits")
    trials: int = _number(40, 1, 1_000_000, "trials to ask for")
    time_budget_sec: float = _number(0.0, 0.0, 1e9, "stop searching after this; 0 = no bound", "seconds")
    gpu_hours: float = _number(0.0, 0.0, 1e9, "stop searching after this; 0 = no bound", "GPU hours")
    cost_budget: float = _number(0.0, 0.0, 1e9, "stop searching after this; 0 = no bound", "as price")
    price: str = _plain("", "what an hour of a core or a GPU costs: gpu=2.5,cpu=0.05")
    max_failures: int = _number(0, 0, 1_000_000, "stop searching at this many failed trials; 0 = no bound")
    target_fid: float = _number(0.0, 0.0, 1e9, "stop searching at a fid this low; 0 = no target")
    until_plateau: float = _number(
        0.0, 0.0, 100.0, "stop searching where an hour more should lower fid by less; 0 = no bound", "percent"
    )
    seed: int = _number(0, 0, 2**31 - 1, "seed of the search and of every trial")
    hang_after_sec: float = _number(
        0.0, 0.0, 1e9, "end a worker silent for so long; 0 = 20 of its longest ticks, at least 600", "seconds"
    )
    wait_sec: float = _number(
        1800.0, 0.0, 1e9, "wait so long for an autoscaler's machine for a trial; 0 = for ever", "seconds"
    )
    sampler: str = _choice("mfgp", SAMPLERS, "how the next trial is proposed")
    pruner: str = _choice("asha", PRUNERS, "how bad trials are stopped early")
    extractor: str = _plain(
        "auto", f"what fid measures in: auto, {', '.join(EXTRACTORS.forms)}", group="Measurement"
    )
    extractor_weights: str = _plain("", "local weights file of the extractor")
    second_extractor: str = _plain(
        "auto", f"what finalists are also measured in: auto, none, {', '.join(EXTRACTORS.forms)}"
    )
    second_opinion: str = _choice(
        "report",
        ("report", "veto"),
        "where the second extractor has another winner: report it, or withhold the alias",
    )
    fid_samples: int = _number(
        2000, 16, 1_000_000, "generated images per fid, fixed for all trials", "images"
    )
    metrics: str = _plain(
        "", "your own metrics of the finalists: module:function, several by commas", option="metric"
    )
    finalists: int = _number(3, 1, 100, "best trials measured again after the search")
    final_samples: int = _number(
        0, 0, 1_000_000, "generated images per fid of a finalist; 0 = 2.5 times fid_samples", "images"
    )
    final_seeds: int = _number(
        -1, -1, 100, "other seeds finalists are trained with; -1 = 2 beyond ten minutes of search, else 0"
    )
    cpus_per_trial: float = _number(
        1.0, 0.1, 1024.0, "CPU cores (and threads) of one trial", "cores", group="Resources"
    )
    gpus_per_trial: float = _number(-1.0, -1.0, 64.0, "GPUs of one trial, or a fraction; -1 = auto", "GPUs")
    require: str = _plain("", "what a trial's machine must have: accelerator=L4, or RESOURCE=AMOUNT")
    concurrency: int = _number(0, 0, 100_000, "trials at a time; 0 = what the resources allow")
    address: str = _plain("local", "Ray cluster: local, auto, or HOST:PORT")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            rule = "a sweep's name is letters, digits, '.', '_', '-' and starts with a letter or digit"
            fix = "choose another --name"
            raise ConfigError("--name {seen} cannot be used", rule=rule, seen=self.name, fix=fix)
        if (self.second_extractor, self.second_opinion) == ("none", "veto"):
            fix = "name a --second-extractor, or leave --second-opinion out"
            raise ConfigError("--second-opinion {seen} needs a second extractor", seen="veto", fix=fix)
        for metric in self.metric_names:
            if not is_user_code(metric):
                rule, fix = f"--metric is {METRIC_FORM}", "write --metric module:function"
                raise ConfigError("the metric {seen} is unknown", rule=rule, seen=metric, fix=fix)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The user's own metrics: `module:function` each."""
        return tuple(name.strip() for name in self.metrics.split(",") if name.strip())


def _below(name: str, meaning: str) -> Path:
    return property(lambda paths: paths.root / name, doc=meaning)  # type: ignore[return-value]


@dataclass(frozen=True)
class SweepPaths:
    """The files of a sweep, below its folder (those of a trial: `pipeline.training.checkpoint`)."""

    root: Path

    config = _below("sweep.toml", "the sweep as resolved: options, space, images, provenance; written first")
    summary = _below("summary.json", "state, best trial, leaderboard, finalists; rewritten as the sweep goes")
    report = _below("report.html", "the report, one file without requests to other hosts")
    packed = _below("champion", "the best generator, packed: it loads without its code and without pickle")
    study = _below("study.journal", "Optuna's study, where no --storage is given")
    event_log = _below("spool.jsonl", "the event log, append-only, from which MLflow is fed")
    export_cursor = _below("shipped.json", "how far the event log has been sent to MLflow")
    trials = _below("trials", "a folder for each trial, named by its number")
    finals = _below("finals", "a folder for each finalist trained with another seed: NUMBER-INDEX")
    reruns = _below("reruns", "a folder for each trial that `gansweep rerun` has trained again")
    gallery = _below("gallery", "sample grids as artifacts of the study, for optuna-dashboard")
    code = _below("code", "copies of the user's own modules, as the trials import them")
    lock = _below("lock", "held by the process that runs the sweep")
    stop = _below("stop", "trials end at their next step while this file exists")

    @classmethod
    def files(cls) -> dict[str, str]:
        """The meaning of every file and folder, by its name."""
        entries = {key: value for key, value in vars(cls).items() if isinstance(value, property)}
        return {getattr(cls(Path()), key).name: entry.__doc__ or "" for key, entry in entries.items()}

    def trial(self, number: int) -> Path:
        return self.trials / str(number)

    def rerun(self, number: int, index: int) -> Path:
        """Trial `number` trained again with its other seed number `index`; 0 is the trial itself."""
        return self.finals / f"{number}-{index}" if index else self.trial(number)


def check_names(values: Mapping[str, object], valid: Mapping[str, object]) -> None:
    """Raise ConfigError for the first key of `values` that is not in `valid`."""
    for name in values:
        if name not in valid:
            raise ConfigError("{seen} is no field of the configuration", seen=name, fix=nearest(name, valid))


def check_value(field: dataclasses.Field[Any], value: object) -> Any:
    """The value in the field's type; ConfigError if the type is wrong or the value is out of bounds."""
    kind, name, fix = str(field.type), field.name, f"write {field.name} = {field.default}"
    if kind == "bool":
        if not isinstance(value, bool):
            fix = f"write {name} = true"
            raise ConfigError(f"{name} = {{seen}} is not true or false", seen=value, fix=fix)
        return value
    if kind == "str":
        return _check_text(field, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} = {{seen}} is no number", seen=value, fix=fix)
    if kind == "int" and isinstance(value, float) and not value.is_integer():  # also refuses NaN, inf
        raise ConfigError(f"{name} = {{seen}} is no whole number", seen=value, fix=fix)
    low, high = field.metadata["low"], field.metadata["high"]
    if not low <= value <= high:  # also refuses NaN
        rule, fix = f"{name} lies in [{low:g}, {high:g}]", f"the default is {field.default}"
        raise ConfigError(f"{name} = {{seen}} is out of range", rule=rule, seen=value, fix=fix)
    return int(value) if kind == "int" else float(value)


def _check_text(field: dataclasses.Field[Any], value: object) -> str:
    choices = field.metadata.get("choices")
    if not isinstance(value, str):
        raise ConfigError(f"{field.name} = {{seen}} is no text", seen=value, fix="put it in quotes")
    if isinstance(choices, Table):
        choices.check(value)
    elif choices is not None and value not in choices:
        raise unknown_choice(field.name, value, choices)
    return value
