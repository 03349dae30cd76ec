"""Types of options of the commands, and the parsing of their texts."""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any

import typer

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.search.resources import check_gpus_per_trial

DEFAULTS = SweepConfig()

UNLIMITED = 100_000
"""Trials of a sweep that only a budget ends."""

Model = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@ALIAS, models:/NAME/VERSION, or a sweep's folder or address (its best)."
    ),
]

SweepDir = Annotated[
    str, typer.Argument(help="The folder that `run` made, or its address (s3://BUCKET/PREFIX/NAME).")
]

Tracking = Annotated[
    str, typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow store or server.")
]

Data = Annotated[str, typer.Option(help="mnist5k, digits, cifar10, ..., folder:PATH or npz:PATH.")]

Recipe = Annotated[
    str, typer.Option(help="Begin from a published point: dcgan, sngan, wgan-gp, r1 or r3gan.")
]

Out = Annotated[
    str,
    typer.Option(metavar="DIR|URL", help="Where sweeps are kept: a folder, s3://BUCKET/PREFIX, gs://..."),
]

Kimg = Annotated[int | None, typer.Option(min=1, help="Length of a full trial in kimg (the space's).")]

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Fix a hyper-parameter; repeatable."),
]

GpusPerTrial = Annotated[str, typer.Option(help="Fraction of a GPU for one trial, or auto (measured).")]

Require = Annotated[
    str, typer.Option(metavar="KIND=X,...", help="Only machines with it: accelerator=L4, or RESOURCE=1.")
]

Extractor = Annotated[
    str, typer.Option(help="What fid measures in: auto, classifier, inception, pixels, module:function.")
]

FinalSeeds = Annotated[
    int | None, typer.Option(min=0, help="Other seeds finalists are trained with (2 beyond ten minutes).")
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, stop.")]

Trials = Annotated[int | None, typer.Option(min=1, help="Trials to run (40; no limit with a time budget).")]

TimeBudget = Annotated[str, typer.Option(help="Stop searching after e.g. 90s, 10m, 8h, 2d.")]

GpuHours = Annotated[float | None, typer.Option(min=0.0, help="Stop searching after this many GPU hours.")]

CostBudget = Annotated[float | None, typer.Option(min=0.0, help="Stop searching at this cost, by --price.")]

Price = Annotated[
    str, typer.Option(metavar="KIND=X,...", help="What an hour of a core or a GPU costs: gpu=2.5,cpu=0.05.")
]

MaxFailures = Annotated[int | None, typer.Option(min=0, help="Stop searching at this many failed trials.")]

TargetFid = Annotated[float | None, typer.Option(min=0.0, help="Stop searching at a fid this low.")]

Concurrency = Annotated[int | None, typer.Option(min=0, help="Trials at a time (what the machine allows).")]

HangAfter = Annotated[
    str, typer.Option(help="End a worker silent for e.g. 30m (20 of its longest ticks, 10m at least).")
]

Wait = Annotated[
    str, typer.Option(help="Wait so long for an autoscaler's machine that holds a trial; 0 = for ever.")
]

Promote = Annotated[
    str, typer.Option(help="Highest alias a new version may get by itself: never, candidate or champion.")
]

Notify = Annotated[
    str,
    typer.Option(
        envvar="GANSWEEP_NOTIFY",
        metavar="URL",
        help="Post a JSON line there when another trial leads and when the sweep is over.",
    ),
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result and warnings only.")]


def parse_integers(flag: str, text: str) -> tuple[int, ...]:
    """`0,1,2` as integers; empty is none.

    Raises:
        ConfigError: one of them is not an integer.
    """
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(
            f"{flag} {{seen}} cannot be read",
            rule="integers with commas",
            seen=text,
            fix=f"write {flag} 0,1,2",
        ) from None


def parse_duration(text: str) -> float:
    """`90s`, `10m`, `8h`, `2d` or plain seconds, in seconds; empty is 0 (no limit).

    Raises:
        ConfigError: none of these, or zero.
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise ConfigError(
            "time {seen} cannot be read",
            rule="a number above 0 with s, m, h or d",
            seen=text,
            fix="write 10m",
        )
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def parse_gpus_per_trial(text: str) -> float:
    """The number of GPUs, or the fraction of one, that a trial gets; -1 for `auto`.

    Raises:
        ConfigError: neither `auto` nor a number from 0 to 1.
    """
    if text == "auto":
        return -1.0
    try:
        gpus = float(text)
    except ValueError:
        gpus = float("nan")
    if not gpus >= 0:
        raise ConfigError(
            "--gpus-per-trial {seen} cannot be used",
            rule="auto or a number from 0",
            seen=text,
            fix="write 0.25 or auto",
        )
    check_gpus_per_trial(gpus)
    return gpus


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` with the value as TOML reads it; a value that is not TOML is a string.

    Raises:
        ConfigError: a pair without a key or an equals sign.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError(
                "--set {seen} cannot be read", rule="key=value", seen=pair, fix="write --set batch_size=64"
            )
        try:
            settings[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = text.strip()
    return settings
