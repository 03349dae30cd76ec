"""The pages of the command line, from the signatures of the commands."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from typer.models import ArgumentInfo, CommandInfo, OptionInfo, ParameterInfo

import pipeline.cli.main
from tools.reference.markdown import block, code, page, table, text

_VALUES = {int: "N", float: "X", str: "TEXT"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command. kind: the type of its value."""

    name: str
    kind: type
    repeatable: bool
    default: object
    info: ParameterInfo

    @property
    def flags(self) -> str:
        first = [self.info.default] if isinstance(self.info.default, str) else []  # Option("-n", help=...)
        declared = [part for part in (*first, *(self.info.param_decls or ())) if part.startswith("-")]
        return ", ".join(declared or [f"--{self.name.strip('_').replace('_', '-')}"])

    @property
    def value(self) -> str:
        """What follows the flag; empty for a switch."""
        if self.kind is bool:
            return ""
        return self.info.metavar or _VALUES.get(self.kind, "PATH")

    @property
    def default_text(self) -> str:
        """Empty where nothing is the default, or the help says what is used then."""
        return "" if self.default in (None, "", (), False) else str(self.default)

    @property
    def meaning(self) -> str:
        """The help, the range, the environment variable."""
        info = self.info
        bounds = {"at least": info.min, "at most": info.max}
        notes = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
        notes += [f"environment: `{info.envvar}`"] if info.envvar else []
        notes += ["repeatable"] if self.repeatable and "repeatable" not in (info.help or "") else []
        end = ", ".join(notes)
        return text(f"{_plain(info.help or '')} {end[:1].upper()}{end[1:]}{'.' if end else ''}")


def pages() -> dict[str, str]:
    """The pages by their path below docs/reference/."""
    commands = {_name(info): info for info in pipeline.cli.main.app.registered_commands if not info.hidden}
    made = {f"cli/{name}.md": _command_page(name, info) for name, info in commands.items()}
    return {"cli/index.md": _index(commands), **made}


def _index(commands: dict[str, CommandInfo]) -> str:
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, info in commands.items():
        summary = _help(info).partition("\n\n")[0]
        groups.setdefault(_panel(info), []).append((f"[`{name}`]({name}.md)", text(summary)))
    tables = []
    for panel, rows in groups.items():
        tables += [f"## {panel}" if panel else "", table(("command", "what it does"), rows)]
    paragraphs = (pipeline.cli.main.__doc__ or "").split("\n\n")
    codes = next(each for each in paragraphs if each.startswith("Exit codes"))
    usage = block("gansweep COMMAND [OPTIONS]\ngansweep COMMAND --help", "sh")
    return page("Command line", usage, text(codes), *tables)


def _command_page(name: str, info: CommandInfo) -> str:
    parameters = list(_parameters(info))
    arguments = [one for one in parameters if isinstance(one.info, ArgumentInfo)]
    options = [one for one in parameters if isinstance(one.info, OptionInfo)]
    metavar = info.options_metavar if isinstance(info.options_metavar, str) else "[OPTIONS]"
    usage = " ".join(["gansweep", name, *([metavar] if options else []), *map(_usage, arguments)])
    parts = ["\n\n".join(map(text, _help(info).split("\n\n"))), block(usage, "text"), _examples(info)]
    if arguments:
        rows = [(code(_label(one)), one.meaning) for one in arguments]
        parts += ["## Arguments", table(("argument", "meaning"), rows)]
    panels: dict[str, list[Parameter]] = {}
    for one in options:
        panels.setdefault(_panel(one.info) or "Options", []).append(one)
    for panel, members in panels.items():
        parts += [f"## {panel}", table(("option", "value", "default", "meaning"), map(_row, members))]
    return page(f"gansweep {name}", *parts)


def _row(option: Parameter) -> tuple[str, str, str, str]:
    return code(option.flags), code(option.value), code(option.default_text), option.meaning


def _parameters(info: CommandInfo) -> Iterator[Parameter]:
    assert info.callback is not None
    hints = typing.get_type_hints(info.callback, include_extras=True)
    for name, parameter in inspect.signature(info.callback).parameters.items():
        annotation, *extras = typing.get_args(hints.get(name)) or (str,)
        found = next((each for each in extras if isinstance(each, ParameterInfo)), None)
        if found is not None and not found.hidden:
            default = None if parameter.default is inspect.Parameter.empty else parameter.default
            yield Parameter(name, *_kind(annotation), default, found)


def _kind(annotation: Any) -> tuple[type, bool]:
    """The type of a value, and whether there may be several."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(each for each in typing.get_args(annotation) if each is not types.NoneType)
    if typing.get_origin(annotation) in (list, tuple):
        return typing.get_args(annotation)[0], True
    return annotation, False


def _usage(argument: Parameter) -> str:
    return _label(argument) + ("..." if argument.repeatable else "")


def _label(argument: Parameter) -> str:
    return (argument.info.metavar or argument.name).upper()


def _name(info: CommandInfo) -> str:
    assert info.callback is not None
    return info.name or info.callback.__name__.strip("_").replace("_", "-")


def _help(info: CommandInfo) -> str:
    return _plain(inspect.cleandoc(info.help or inspect.getdoc(info.callback) or ""))


def _examples(info: CommandInfo) -> str:
    """The epilog, as the terminal shows it."""
    lines = [line.strip() for line in _plain(info.epilog or "").splitlines()]
    while lines and lines[0].rstrip(":").lower() in ("", "example", "examples"):
        del lines[0]
    return f"## Examples\n\n{block(chr(10).join(lines), 'console')}" if lines else ""


def _panel(info: ParameterInfo | CommandInfo) -> str:
    panel = getattr(info, "rich_help_panel", None)
    return panel if isinstance(panel, str) else ""


def _plain(marked: str) -> str:
    """Without Rich's markup."""
    return Text.from_markup(marked.replace("\b", "")).plain
