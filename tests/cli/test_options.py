"""Flags of a command are made from a dataclass of options."""

from __future__ import annotations

import dataclasses

import pytest
import typer
from typer.main import get_command

from pipeline.cli import options
from pipeline.cli.help import epilog_of
from pipeline.cli.options import options_from, take_options
from pipeline.errors import ConfigError
from pipeline.sweep.options import GROUPS, ResumeOptions, RunOptions, option_infos
from pipeline.tables import LOSSES, PRUNERS, SAMPLERS

FROZEN = (
    "space data name out trials kimg time-budget gpu-hours seed set sampler pruner cpus-per-trial "
    "gpus-per-trial concurrency address storage tracking-uri register no-register dry-run quiet recipe "
    "cost-budget price max-failures target-fid until-plateau hang-after wait require promote extractor "
    "extractor-weights second-opinion second-extractor fid-samples final-samples final-seeds image-size "
    "classes split fit background frames notify metric"
).split()
"""The flags of `run`: scripts of others hold on to them."""


def run(options: RunOptions) -> None:
    """Search."""


def resume(options: ResumeOptions) -> None:
    """Go on."""


def parse(command: typer.models.CommandFunctionType, *arguments: str) -> dict[str, object]:
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return dict(get_command(app).make_context("x", list(arguments)).params)


def parse_run(*arguments: str) -> RunOptions:
    return options_from(parse(take_options(run, RunOptions), *arguments), RunOptions)


def test_every_option_is_a_flag_and_no_flag_is_lost() -> None:
    names = {field.name.replace("_", "-") for field in dataclasses.fields(RunOptions)}
    assert names == set(FROZEN)
    app = typer.Typer(add_completion=False)
    app.command()(take_options(run, RunOptions))
    flags = {flag for parameter in get_command(app).params for flag in parameter.opts}
    assert {f"--{name}" for name in FROZEN} <= flags


def test_without_arguments_a_flag_has_the_dataclass_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GANSWEEP_STORAGE", "MLFLOW_TRACKING_URI", "GANSWEEP_NOTIFY"):
        monkeypatch.delenv(name, raising=False)
    assert parse_run() == RunOptions()


def test_flags_arrive_in_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_STORAGE", "postgresql://db/x")
    found = parse_run(
        *("--set", "lr_g=1e-3", "--set", "loss=hinge", "--trials", "3", "--gpu-hours", "0.5"),
        *("--no-register", "-q", "--metric", "mine:sharpness", "--gpus-per-trial", "0.25"),
    )
    assert found == RunOptions(
        set=["lr_g=1e-3", "loss=hinge"],
        trials=3,
        gpu_hours=0.5,
        no_register=True,
        quiet=True,
        metric=["mine:sharpness"],
        gpus_per_trial="0.25",
        storage="postgresql://db/x",
    )


def test_an_option_without_a_default_is_an_argument() -> None:
    given = parse(take_options(resume, ResumeOptions), "runs/x", "--trials", "7")
    assert options_from(given, ResumeOptions) == ResumeOptions("runs/x", trials=7)


@pytest.mark.parametrize("wrong", [("--trials", "0"), ("--gpu-hours", "-1"), ("--seed", "-2")])
def test_bounds_are_those_of_the_options(wrong: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"{wrong[0][2:].replace('-', '_')} = {wrong[1]}"):
        parse_run(*wrong)


def test_a_new_row_of_a_table_is_in_the_help() -> None:
    infos = {field.name: field.metadata["option"].help for field in dataclasses.fields(RunOptions)}
    assert [name for name in SAMPLERS if name not in infos["sampler"]] == []
    assert [name for name in PRUNERS if name not in infos["pruner"]] == []
    assert [name for name in LOSSES if name not in epilog_of("run")] == []


def test_integers() -> None:
    assert options.parse_integers("--seeds", "3, 1,2") == (3, 1, 2)
    assert options.parse_integers("--seeds", "") == ()
    with pytest.raises(ConfigError, match=r"--seeds 1,x .*--seeds 0,1,2"):
        options.parse_integers("--seeds", "1,x")


def test_every_option_has_a_group_and_a_short_help() -> None:
    infos = option_infos(RunOptions)
    assert {info.group for info in infos.values()} == {*GROUPS}
    long = {name for name, info in infos.items() if len(info.help) > 70}
    assert long <= {"data", "recipe", "extractor"}  # lists of names
