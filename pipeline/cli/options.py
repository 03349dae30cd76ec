"""Parameters of the commands: those of several commands, and those made from a dataclass of options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from pipeline.cli.completion import COMPLETERS, complete_sweep
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.sweep.options import GROUPS, IMAGES, SWEEP_DIR, OptionInfo, RunOptions, SharedOptions
from pipeline.tables import DATA_SOURCES
from pipeline.user_code import read_code, use_code

OptionsT = TypeVar("OptionsT", bound=SharedOptions)


def option(name: str, info: OptionInfo, default: object = None, *, group: bool = False) -> Any:
    """The flag of an option. group: it is shown below the heading of its group."""
    flags = [f"--{name.replace('_', '-')}", *([info.short] if info.short else [])]
    return typer.Option(
        *flags,
        help=info.help,
        metavar=info.metavar,
        envvar=info.envvar,
        show_default=bool(default),
        rich_help_panel=info.group if group else None,
        autocompletion=COMPLETERS.get(name),
    )


def _shared(name: str) -> Any:
    """The flag of an option of `run` that other commands have too."""
    field = RunOptions.__dataclass_fields__[name]
    info = field.metadata["option"]
    return option(name, info, field.default, group=info.group == IMAGES)


Source = Annotated[
    str,
    typer.Argument(help=f"{DATA_SOURCES.describe()}.", metavar="SOURCE", autocompletion=COMPLETERS["data"]),
]

Model = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@ALIAS, models:/NAME/VERSION, or a sweep's folder (its best).",
        metavar="MODEL",
        autocompletion=complete_sweep,
    ),
]

SweepDir = Annotated[str, typer.Argument(help=SWEEP_DIR, metavar="SWEEP_DIR", autocompletion=complete_sweep)]

Tracking = Annotated[str, _shared("tracking_uri")]

Storage = Annotated[str, _shared("storage")]

Promote = Annotated[str, _shared("promote")]

ImageSize = Annotated[int, _shared("image_size")]

Classes = Annotated[str, _shared("classes")]

Split = Annotated[str, _shared("split")]

Fit = Annotated[str, _shared("fit")]

Background = Annotated[str, _shared("background")]

Frames = Annotated[str, _shared("frames")]


def images_config(
    data: str, image_size: int, classes: str, split: str, fit: str, background: str, frames: str, **more: Any
) -> SweepConfig:
    """How images are read, as a SweepConfig; more: its other fields."""
    return SweepConfig(
        data=data,
        image_size=image_size,
        classes=classes,
        split=split,
        fit=fit,
        background=background,
        frames=frames,
        **more,
    )


def use_source_code(source: str) -> None:
    """Load the user's own data source, `module:function` in the current folder; others need nothing.

    Raises:
        ConfigError: there is no such file.
    """
    if DATA_SOURCES.is_user_code(source):
        use_code(read_code([source], [Path.cwd()]))


def take_options(command: Callable[[OptionsT], None], kind: type[OptionsT]) -> Callable[..., None]:
    """The command with a flag for every option of `kind`, and an argument for one without a default."""

    def taking(**given: object) -> None:
        command(options_from(given, kind))

    hints = get_type_hints(kind)
    fields = sorted(dataclasses.fields(kind), key=lambda field: _place(field.metadata["option"]))
    parameters = [_parameter(field, hints[field.name]) for field in fields]
    taking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    taking.__annotations__ = {one.name: one.annotation for one in parameters}
    taking.__name__, taking.__doc__ = command.__name__.lstrip("_"), command.__doc__
    return taking


def options_from(given: Mapping[str, Any], kind: type[OptionsT]) -> OptionsT:
    """An object of `kind` from the parsed values; an option that may be repeated is a list or None there."""
    unset: dict[str, Any] = {
        f.name: () for f in dataclasses.fields(kind) if f.default == () and not given[f.name]
    }
    return kind(**{**given, **unset})


def _place(info: OptionInfo) -> int:
    return GROUPS.index(info.group) if info.group else -1


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    info: OptionInfo = field.metadata["option"]
    if field.default is dataclasses.MISSING:
        argument = Annotated[
            str, typer.Argument(help=info.help, metavar=info.metavar, autocompletion=complete_sweep)
        ]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=argument)
    flag = option(field.name, info, field.default, group=True)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if field.default == () else field.default,
        annotation=Annotated[_parsed_type(field.default, hint), flag],
    )


def _parsed_type(default: object, hint: Any) -> Any:
    """What a flag is parsed as: a list of texts if it is repeatable, else what its default is."""
    if default == ():
        return list[str] | None
    return hint if default is None else type(default)


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
