"""What commands take: options that several share, and texts read as numbers.

Owns: their names, help and errors. Refuses: acting on them.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any

import typer

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.search.resources import check_gpus

DEFAULTS = SweepConfig()


UNLIMITED = 100_000


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
    str, typer.Option(help="How far a new version may rise by itself: never, candidate or champion.")
]


Notify = Annotated[
    str,
    typer.Option(
        envvar="GANSWEEP_NOTIFY",
        metavar="URL",
        help="Post a JSON line there when another trial leads and when the sweep is over.",
    ),
]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]


def numbers(flag: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{flag} are whole numbers", seen=text, fix=f"write {flag} 0,1,2") from None


def seconds(text: str) -> float:
    """`90s`, `10m`, `8h`, `2d` or plain seconds; empty is 0, no bound."""
    if not text:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise ConfigError("a time budget is a number with s, m, h or d", seen=text, fix="write 10m")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def share(text: str) -> float:
    if text == "auto":
        return -1.0
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not share >= 0:
        raise ConfigError("--gpus-per-trial is auto or a number from 0", seen=text, fix="write 0.25 or auto")
    check_gpus(share)
    return share


def settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` as TOML would read it; what TOML cannot read is a text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError("--set takes key=value", seen=pair, fix="write --set batch_size=64")
        try:
            settings[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = text.strip()
    return settings
