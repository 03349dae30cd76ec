"""A sweep from Python: `run` and `resume` with the options of the commands, which return a `Result`."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from pipeline.errors import nearest
from pipeline.reporting.log_lines import log_to_terminal, wants_live_view
from pipeline.storage.summary_file import Best, LeaderboardRow, RegisteredVersion
from pipeline.sweep.options import ResumeOptions, RunOptions, SharedOptions, option_infos

if TYPE_CHECKING:
    from pipeline.sweep.request import Outcome, Request

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])
OptionsT = TypeVar("OptionsT", bound=SharedOptions)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a sweep came to.

    Attributes:
        name: of the sweep.
        folder: its files on this machine.
        location: the folder or address by which `resume` and the commands name it.
        state: finished; or planned, after a dry run.
        leaderboard: its trials, best first, at most a hundred.
        best: the best finalist's numbers; None if no trial has a fid.
        registered: the version in the model registry; None if none was asked for, or the registry refused.
        report: report.html; None if the search did not finish.
        tracking_uri: the MLflow store that has the runs.
        plan: what a dry run found, rows of (heading, text).
    """

    name: str
    folder: Path
    location: str
    state: str
    leaderboard: tuple[LeaderboardRow, ...] = ()
    best: Best | None = None
    registered: RegisteredVersion | None = None
    report: Path | None = None
    tracking_uri: str = ""
    plan: tuple[tuple[str, str], ...] = ()

    @property
    def champion(self) -> str | None:
        """The model's address, for `load_generator`, if this sweep's generator became the champion."""
        if self.registered is None or self.registered.alias != "champion":
            return None
        return f"models:/{self.registered.name}@champion"

    def to_dicts(self) -> list[dict[str, object]]:
        """The leaderboard as flat rows, for `pandas.DataFrame`: hyper-parameters are columns as well."""
        return [
            {**{name: value for name, value in vars(row).items() if name != "params"}, **row.params}
            for row in self.leaderboard
        ]

    def __repr__(self) -> str:
        return f"Result({', '.join(f'{name}={text}' for name, text in self._facts())})"

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        return _html_table([("", self.name), *self._facts()[1:], *self.plan]) + _html_table(
            [("trial", "fid", "kimg", "state")]
            + [(str(r.trial), _number(r.fid), _number(r.kimg), r.state) for r in self.leaderboard[:10]]
        )

    def _facts(self) -> list[tuple[str, str]]:
        facts = [("name", self.name), ("state", self.state), ("trials", str(len(self.leaderboard)))]
        if self.best:
            facts += [("fid", _number(self.best.fid)), ("trial", str(self.best.trial))]
        if self.registered:
            facts.append(("registered", self.champion or self.registered.uri))
        return [*facts, ("folder", self.location)]


def _run(options: RunOptions) -> Result:
    """Search, measure the finalists, register the best; the same call again goes on with the sweep.

        result = gansweep.run(data="folder:photos", space="dcgan", time_budget="2h")
        images, labels = gansweep.load_generator(result.champion).sample(16)

    Takes the options of the command `gansweep run`, and as `space` also the tables of a space. Progress goes
    to stderr.

    Raises:
        UserError: an option, the space or the images are wrong; nothing was written.
        KeyboardInterrupt: the trials made checkpoints; `resume` goes on with them.
    """
    from pipeline.sweep.build_request import build_request

    options = _with_environment(options)
    return _sweep(build_request(options, live=wants_live_view(options.quiet)), options.quiet)


def _resume(location: str | Path, /, options: ResumeOptions) -> Result:
    """Go on with the sweep in a folder or an object store; trials and budgets may grow.

    Takes the options of the command `gansweep resume`, and raises as `run` does.
    """
    from pipeline.sweep.build_request import build_resume

    options = _with_environment(options)
    return _sweep(build_resume(location, options, live=wants_live_view(options.quiet)), options.quiet)


def _sweep(request: Request, quiet: bool) -> Result:
    from pipeline.sweep.run import run_sweep

    log_to_terminal(quiet=quiet)
    outcome = run_sweep(request)
    if outcome.state == "interrupted":
        raise KeyboardInterrupt(f"go on with gansweep.resume({outcome.location!r})")
    return result_of(request.config.name, outcome)


def result_of(name: str, outcome: Outcome) -> Result:
    """The result for what a sweep came to."""
    summary, report = outcome.summary, outcome.root / "report.html"
    result = Result(
        name=name,
        folder=outcome.root,
        location=outcome.location,
        state=outcome.state,
        tracking_uri=outcome.tracking_uri,
        plan=outcome.plan,
    )
    if summary is None:
        return result
    return dataclasses.replace(
        result,
        leaderboard=summary.leaderboard,
        best=summary.best,
        registered=summary.registered,
        report=report if report.is_file() else None,
    )


def _with_environment(options: OptionsT) -> OptionsT:
    """The options with those from environment variables that were left out, as the commands take them."""
    known: Mapping[str, Any] = {
        name: os.environ[info.envvar]
        for name, info in option_infos(type(options)).items()
        if info.envvar and info.envvar in os.environ and not getattr(options, name)
    }
    return dataclasses.replace(options, **known)


def _take_run(
    options: Callable[P, RunOptions], function: Callable[[RunOptions], Result]
) -> Callable[P, Result]:
    """`function` with the fields of the dataclass as its keyword arguments, for type checkers too."""

    def run(*args: P.args, **given: P.kwargs) -> Result:
        _check_names("run", given, RunOptions)
        return function(options(*args, **given))

    return _described(run, function, RunOptions)


def _take_resume(
    options: Callable[P, ResumeOptions], function: Callable[[str | Path, ResumeOptions], Result]
) -> Callable[Concatenate[str | Path, P], Result]:
    def resume(location: str | Path, /, *args: P.args, **given: P.kwargs) -> Result:
        _check_names("resume", given, ResumeOptions)
        return function(location, options(*args, **given))

    return _described(resume, function, ResumeOptions)


def _described(door: F, function: Callable[..., Result], options: type[SharedOptions]) -> F:
    """`door` with the text of `function`, and with a signature that a notebook can complete."""
    *positional, _ = inspect.signature(function).parameters.values()
    fields = inspect.signature(options).parameters.values()
    door.__doc__ = function.__doc__
    vars(door)["__signature__"] = inspect.Signature([*positional, *fields], return_annotation=Result)
    return door


def _check_names(function: str, given: Iterable[str], kind: type[SharedOptions]) -> None:
    """Raise TypeError, as Python does, for a keyword that is no option, with the nearest one."""
    valid = option_infos(kind)
    for name in given:
        if name not in valid:
            raise TypeError(f"{function}() has no option {name!r}; {nearest(name, valid)}")


def _html_table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


run = _take_run(RunOptions, _run)
resume = _take_resume(ResumeOptions, _resume)
