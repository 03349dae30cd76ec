"""A sweep from Python: `run` and `resume` with the options of the commands, which return a `Result`."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from pipeline.errors import nearest
from pipeline.reporting.log_lines import log_to_terminal, wants_live_view
from pipeline.sweep.options import ResumeOptions, RunOptions, SharedOptions, option_infos
from pipeline.sweep.result import Result

if TYPE_CHECKING:
    from pipeline.sweep.request import Request

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])
OptionsT = TypeVar("OptionsT", bound=SharedOptions)


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
    result = run_sweep(request)
    if result.state == "interrupted":
        raise KeyboardInterrupt(f"go on with gansweep.resume({result.location!r})")
    return result


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


run = _take_run(RunOptions, _run)
resume = _take_resume(ResumeOptions, _resume)
