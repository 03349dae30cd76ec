"""Parameters of the commands: those of several commands, and those made from a dataclass of options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from pipeline.errors import ConfigError
from pipeline.sweep.options import SWEEP_DIR, OptionInfo, RunOptions, SharedOptions, option_infos

OptionsT = TypeVar("OptionsT", bound=SharedOptions)


def _option(name: str, info: OptionInfo) -> Any:
    flags = [f"--{name.replace('_', '-')}", *([info.short] if info.short else [])]
    return typer.Option(*flags, help=info.help, metavar=info.metavar, envvar=info.envvar, min=info.low)


_RUN = option_infos(RunOptions)

Model = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@ALIAS, models:/NAME/VERSION, or a sweep's folder or address (its best)."
    ),
]

SweepDir = Annotated[str, typer.Argument(help=SWEEP_DIR)]

Tracking = Annotated[str, _option("tracking_uri", _RUN["tracking_uri"])]

Storage = Annotated[str, _option("storage", _RUN["storage"])]

Promote = Annotated[str, _option("promote", _RUN["promote"])]

ImageSize = Annotated[int, _option("image_size", _RUN["image_size"])]

Classes = Annotated[str, _option("classes", _RUN["classes"])]

Split = Annotated[str, _option("split", _RUN["split"])]

Fit = Annotated[str, _option("fit", _RUN["fit"])]

Background = Annotated[str, _option("background", _RUN["background"])]

Frames = Annotated[str, _option("frames", _RUN["frames"])]


def take_options(command: Callable[[OptionsT], None], kind: type[OptionsT]) -> Callable[..., None]:
    """The command with a flag for every option of `kind`, and an argument for one without a default."""

    def taking(**given: object) -> None:
        command(options_from(given, kind))

    hints = get_type_hints(kind)
    parameters = [_parameter(field, hints[field.name]) for field in dataclasses.fields(kind)]
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


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    info: OptionInfo = field.metadata["option"]
    if field.default is dataclasses.MISSING:
        argument = Annotated[str, typer.Argument(help=info.help, metavar=info.metavar)]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=argument)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if field.default == () else field.default,
        annotation=Annotated[_parsed_type(field.default, hint), _option(field.name, info)],
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
