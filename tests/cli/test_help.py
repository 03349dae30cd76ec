"""The help that a newcomer reads: headings, examples that run, a width of 80 columns."""

from __future__ import annotations

import shlex

import pytest
import typer
from typer.core import TyperCommand
from typer.testing import CliRunner

from pipeline import __version__
from pipeline.cli.help import EXAMPLES, PANELS
from pipeline.cli.main import app
from pipeline.cli.submit import _parse

GROUP = typer.main.get_group(app)
COMMANDS = GROUP.commands


def examples(epilog: str) -> list[list[str]]:
    """The words after `gansweep` of each example."""
    lines = [line.strip() for line in epilog.splitlines() if line.strip().startswith("$ ")]
    return [shlex.split(line, comments=True)[2:] for line in lines]


def test_every_command_has_a_heading_and_examples() -> None:
    assert sorted(name for names in PANELS.values() for name in names) == sorted(COMMANDS)
    assert {*EXAMPLES} == {"", *COMMANDS}
    assert len(examples(GROUP.epilog or "")) == 3
    for name in ("run", "sample", "evaluate"):
        assert len(examples(COMMANDS[name].epilog or "")) == 3


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_examples_are_accepted_by_the_parser(command: str) -> None:
    found = examples((COMMANDS[command] if command else GROUP).epilog or "")
    assert found
    for name, *arguments in found:
        assert command in ("", name)
        assert isinstance(COMMANDS[name], TyperCommand)
        rest = COMMANDS[name].make_context(name, arguments).args
        if name == "submit":
            _parse(rest)
        else:
            assert rest == []


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_fits_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    shown = CliRunner().invoke(app, [*([command] if command else []), "--help"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for line in EXAMPLES[command]:
        assert f"  $ {line}\n" in shown
    if not command:
        starts = [line.split()[1] for line in shown.splitlines() if line.startswith("\u2502 ")]
        assert [
            one for one in starts if one not in COMMANDS and not one.startswith("--")
        ] == []  # none is folded


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"gansweep {__version__}\n"
