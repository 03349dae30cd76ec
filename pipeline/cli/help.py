"""How the commands show their help: panels of options, and examples whose lines are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.errors import ConfigError, nearest
from pipeline.sweep.options import ADVANCED
from pipeline.tables import LOSSES, NETWORKS, PENALTIES

PANELS: Mapping[str, tuple[str, ...]] = {
    "Start here": ("data", "init", "run", "doctor"),
    "Search": ("resume", "validate", "rerun"),
    "Look": ("report", "watch", "explain"),
    "Champion": ("sample", "interpolate", "evaluate", "register", "export", "serve"),
    "Cluster": ("submit", "status", "stop"),
    "Housekeeping": ("sync", "rm"),
}
"""The headings of `gansweep --help`, and the commands below each."""

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": (
        "gansweep run --data folder:photos --time-budget 1h",
        "gansweep resume runs/photos --time-budget 8h",
        "gansweep sample models:/photos@champion -n 64 --out grid.png",
    ),
    "data": (
        "gansweep data folder:photos --out sheet.png",
        "gansweep data npz:set.npz --json",
    ),
    "init": (
        "gansweep init folder:photos",
        "gansweep init folder:photos --device gpu --out gpu.toml",
    ),
    "run": (
        "gansweep run --data folder:photos --time-budget 1h",
        "gansweep run --space dcgan --data cifar10 --set loss=hinge --trials 40",
        "gansweep run --data folder:photos --dry-run",
    ),
    "resume": (
        "gansweep resume runs/photos",
        "gansweep resume runs/photos --time-budget 8h",
        "gansweep resume runs/photos --dry-run",
    ),
    "report": ("gansweep report runs/photos",),
    "validate": ("gansweep validate photos.toml", "gansweep validate dcgan cluster.yaml"),
    "doctor": ("gansweep doctor", "gansweep doctor --out s3://bucket/team --address auto"),
    "watch": ("gansweep watch runs/photos", "gansweep watch runs/photos --once"),
    "explain": (
        "gansweep explain runs/photos",
        "gansweep explain runs/photos 7",
        "gansweep explain runs/photos --next next.toml",
    ),
    "rm": ("gansweep rm runs/photos --keep-best", "gansweep rm runs/photos --dry-run"),
    "sync": ("gansweep sync runs/photos",),
    "rerun": ("gansweep rerun runs/photos 7", "gansweep rerun runs/photos 7 --seeds 2"),
    "register": (
        "gansweep register runs/photos --name photos",
        "gansweep register models:/photos/2 --alias champion",
    ),
    "evaluate": (
        "gansweep evaluate models:/photos@champion --data folder:photos",
        "gansweep evaluate runs/photos --data folder:photos -n 10000 --json",
        "gansweep evaluate samples:generated --data folder:photos",
    ),
    "sample": (
        "gansweep sample models:/photos@champion -n 64 --out grid.png",
        "gansweep sample models:/pets@champion --label cat --out cats.png",
        "gansweep sample models:/photos@champion -n 50000 --out generated/",
    ),
    "interpolate": (
        "gansweep interpolate models:/photos@champion --out walk.gif --loop",
        "gansweep interpolate runs/photos --seeds 0,1,2,3 --out strip.png",
    ),
    "export": (
        "gansweep export models:/photos@champion --format onnx --out photos.onnx",
        "gansweep export runs/photos",
    ),
    "serve": ("gansweep serve models:/photos@champion", "gansweep serve runs/photos --port 8001"),
    "submit": (
        "gansweep submit --data folder:/shared/photos --out /shared/runs",
        "gansweep submit --no-wait --data digits --out s3://bucket/team",
    ),
    "status": ("gansweep status", "gansweep status JOB --follow"),
    "stop": ("gansweep stop JOB",),
}
"""The most typed examples of each command; those of `gansweep` itself below the empty name."""


_COMPLETION = {
    "install_completion": "Complete names in this shell.",
    "show_completion": "Print the script that does it.",
}
"""Shorter help of typer's own options."""


def example_of(command: str) -> str:
    """The first example of a command; of `gansweep` itself where there is no such command."""
    return EXAMPLES.get(command, EXAMPLES[""])[0]


def panel_of(command: str) -> str:
    """The heading of a command; KeyError where it has none."""
    return {name: panel for panel, names in PANELS.items() for name in names}[command]


def epilog_of(command: str) -> str:
    """The lines at the end of a command's help: its examples, and for `run` what --set can choose."""
    lines = ["Examples:", *(f"  $ {line}" for line in EXAMPLES[command])]
    if command == "run":
        tables = LOSSES, PENALTIES, NETWORKS
        rows = (f"  {f'{table.field}=':<14}{', '.join(table)}" for table in tables)
        lines += ["", "Some values of --set, or module:name of your own:", *rows]
    return "\n".join(lines)


class _KeptLines:
    """Prints the epilog as it is written, whatever typer makes of line breaks."""

    epilog: str | None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        epilog, self.epilog = self.epilog, None
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            self.epilog = epilog
        if epilog:
            typer.echo(f"{epilog}\n")


class Command(_KeptLines, TyperCommand):
    """A command; where its options have headings, --help is below the last."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        panels = {getattr(one, "rich_help_panel", None) for one in self.params}
        if option is not None and ADVANCED in panels:
            option.rich_help_panel = ADVANCED
        return option


class CommandGroup(_KeptLines, TyperGroup):
    """The commands of `gansweep`; a mistyped one is answered with the nearest."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        for one in params:
            if one.name in _COMPLETION:
                vars(one)["help"] = _COMPLETION[one.name]
        return params

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first of `args` names; ConfigError where there is none."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            hint = "gansweep --help lists all" if args[0] == "help" else nearest(args[0], self.commands)
            raise ConfigError("no command {seen}", seen=args[0], fix=hint)
        return super().resolve_command(ctx, args)
