"""The code blocks of every page: commands that the parser takes, Python that compiles, valid spaces."""

from __future__ import annotations

import itertools
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_pages import ROOT, code_blocks, pages
from typer.main import get_command

from pipeline.cli.main import app
from pipeline.cli.options import options_from
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError, UserError
from pipeline.search.space.builtin import builtin_spaces
from pipeline.search.space.parser import space_from_tables
from pipeline.search.space.points import named_recipe
from pipeline.search.space.rules import read_rules
from pipeline.serving.sample_options import SampleOptions
from pipeline.sweep.build_request import build_request
from pipeline.sweep.option_texts import parse_duration, parse_wait
from pipeline.sweep.options import ResumeOptions, RunOptions
from pipeline.tables import DATA_SOURCES

SHELLS = ("bash", "sh", "shell", "console")
SEPARATORS = {"|", "||", "&&", "&", ";", "(", ")", "\n"}
COMMANDS: Any = get_command(app)
TOP_FLAGS = {"--help", *(flag for option in COMMANDS.params for flag in option.opts)}


PAGES = [path.relative_to(ROOT).as_posix() for path in pages()]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_of_the_command_line(page: str) -> None:
    assert [f"{page}:{line}: {why}" for line, why in wrong_commands((ROOT / page).read_text())] == []


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles_and_toml_is_valid(page: str) -> None:
    assert [f"{page}:{line}: {why}" for line, why in wrong_blocks((ROOT / page).read_text())] == []


def test_the_guides_hold_commands() -> None:
    """The tests above cannot fail where nothing is found."""
    guides = sorted((ROOT / "docs" / "guides").glob("*.md"))
    found = [command[0] for guide in guides for _, command in gansweep_commands(guide.read_text())]
    assert {"run", "resume", "submit", "sample", "evaluate", "explain", "validate"} <= set(found)


def test_every_built_in_space_is_in_its_guide() -> None:
    text = (ROOT / "docs" / "guides" / "spaces.md").read_text()
    assert [name for name in builtin_spaces() if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("gansweep runn --data digits", "no command"),
        ("gansweep run --dat digits", "--dat"),
        ("gansweep sample runs/a", "--out"),
        ("gansweep rerun runs/a seven", "seven"),
        ("gansweep sample runs/a --out a.png --format tar", "--format"),
        ("gansweep run --set batchsize=64", "batchsize"),
        ("gansweep run --sampler tp", "sampler"),
        ("gansweep run --recipe sgan", "sgan"),
        ("gansweep run --space photo", "photo"),
        ("gansweep run --time-budget soon", "soon"),
        ("gansweep resume runs/a --time-budget soon", "soon"),
        ("gansweep evaluate runs/a --data digitz", "digitz"),
        ("gansweep submit --tials 8", "--tials"),
        ("cd runs && FOO=1 gansweep rn \\\n  --quiet", "no command"),
        ("echo | .venv/bin/gansweep rn", "no command"),
        ("python -m pipeline rn", "no command"),
    ],
)
def test_a_wrong_command_is_found(command: str, why: str) -> None:
    ((line, found),) = wrong_commands(f"# A page\n\n```bash\n# gansweep nothing\n{command}   # it\n```\n")
    assert (line, why in found) == (5, True), found


@pytest.mark.parametrize(
    "block",
    [
        "python\ndef f(:\n",
        "toml\nlr_g = \n",
        "toml\n[search]\nlr = { float = [1.0, 2.0] }\n",
        "toml\n[[rule]]\nwhen = { size = 3 }\n",
    ],
)
def test_a_wrong_block_is_found(block: str) -> None:
    assert len(wrong_blocks(f"```{block}```\n")) == 1
    assert wrong_blocks("```toml\n[search]\nlr_g = { float = [0.1, 0.2] }\n```\n") == []


def wrong_commands(text: str) -> list[tuple[int, str]]:
    """The commands of a page that its parser refuses: the line, and what it says."""
    wrong = []
    for line, command in gansweep_commands(text):
        try:
            check_command(command)
        except Exception as error:
            if not isinstance(error, UserError) and not hasattr(
                error, "format_message"
            ):  # typer's own errors
                raise
            message = error.format_message() if hasattr(error, "format_message") else str(error)
            wrong.append((line, f"gansweep {shlex.join(command)}: {message}"))
    return wrong


def wrong_blocks(text: str) -> list[tuple[int, str]]:
    """The blocks of Python and TOML that cannot be read: the line, and why."""
    wrong = []
    for block in code_blocks(text):
        try:
            if block.language == "python":
                compile_block(block.text)
            elif block.language == "toml":
                check_toml(tomllib.loads(block.text))
        except (SyntaxError, tomllib.TOMLDecodeError, UserError) as error:
            wrong.append((block.line, str(error)))
    return wrong


def compile_block(text: str) -> None:
    """Compile a block: a file, or the rows of a table."""
    try:
        compile(f"{{\n{text}\n}}", "rows", "eval")
    except SyntaxError:
        compile(text, "block", "exec")


def gansweep_commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """The arguments of every `gansweep` in the shell blocks of a page, with the line on which it begins."""
    for block in code_blocks(text):
        if block.language not in SHELLS:
            continue
        held, first = "", block.line
        for number, line in enumerate(block.text.splitlines(), block.line):
            if block.language == "console" and not held and not line.startswith("$ "):
                continue
            first = first if held else number
            held += line.removeprefix("$ ")
            if held.endswith("\\"):
                held = held[:-1]
                continue
            yield from ((first, arguments) for arguments in _arguments(held))
            held = ""


def _arguments(line: str) -> Iterator[list[str]]:
    """The arguments of each `gansweep` in a line of a shell."""
    if "gansweep" not in line and "-m pipeline" not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for separates, group in itertools.groupby(lexer, key=lambda token: token in SEPARATORS):
        words = list(group)
        while words and "=" in words[0]:  # variables of its environment
            words.pop(0)
        if separates or not words:
            continue
        if Path(words[0]).name == "gansweep":
            yield words[1:]
        elif "-m" in words and words[words.index("pipeline") - 1 : -1][:1] == ["-m"]:
            yield words[words.index("pipeline") + 1 :]


def check_command(arguments: list[str]) -> None:
    """Read the arguments as the command does, and check them as far as no file is needed."""
    if (
        all(argument in TOP_FLAGS for argument in arguments) or arguments[0] == "COMMAND"
    ):  # how one is written
        return
    group = COMMANDS.make_context("gansweep", list(arguments))
    name, command, rest = COMMANDS.resolve_command(group, list(arguments))
    if rest == ["--help"]:
        return
    context = command.make_context(name, list(rest))
    values = context.params
    if name == "submit":
        values = COMMANDS.commands["run"].make_context("run", list(context.args)).params
    if name in ("run", "submit"):
        check_run(options_from(values, RunOptions))
    elif name == "resume":
        options = options_from(values, ResumeOptions)
        for duration in (options.time_budget, options.hang_after):
            parse_duration(duration)
        parse_wait(options.wait or 0)
    elif name == "evaluate":
        check_source(values["data"])
        SweepConfig(**{key: values[key] for key in SweepConfig.fields().keys() & values.keys() - {"seed"}})
    elif name in ("data", "init"):
        check_source(values["source"])
    elif name == "sample":
        shared = ("n", "seed", "label", "labels", "truncation", "device")
        SampleOptions(format=values["format_"], **{key: values[key] for key in shared})


def check_run(options: RunOptions) -> None:
    """The values of the options of `run`, without its space where that is a file of the reader's."""
    if options.recipe:
        named_recipe(options.recipe, "--recipe")
    check_source(options.data)
    name = str(options.space)
    build_request(replace(options, space="" if name.endswith(".toml") else name))


def check_source(source: str) -> None:
    """A source is the name of a data set, `kind:PATH`, or the user's own function."""
    kind, _, path = source.partition(":")
    row = DATA_SOURCES.get(kind)
    if (row is None or bool(row.path) != bool(path)) and not DATA_SOURCES.is_user_code(source):
        raise ConfigError("no source {seen}", seen=source, fix="correct it")


def check_toml(tables: dict[str, Any]) -> None:
    """A block with [search] is a whole space; one with rules alone is checked as rules."""
    if "search" in tables:
        space_from_tables(tables)
    elif set(tables) == {"rule"}:
        read_rules(tables["rule"], "rule")
