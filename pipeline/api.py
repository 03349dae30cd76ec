"""A sweep from Python: `run` and `resume` with the options of the commands, which return a `Result`."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from pipeline.errors import nearest
from pipeline.reporting.log_lines import log_to_terminal
from pipeline.storage.process_environment import check_current_folder, settle_environment
from pipeline.sweep.options import ResumeOptions, RunOptions, option_infos
from pipeline.sweep.result import Result
from pipeline.tracking.mlflow_environment import own_mlflow_runs

P = ParamSpec("P")
OptionsT = TypeVar("OptionsT", RunOptions, ResumeOptions)


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
    return _search(options)


def _resume(options: ResumeOptions) -> Result:
    """Go on with the sweep in a folder or an object store; trials and budgets may grow.

    Takes the options of the command `gansweep resume`, and raises as `run` does.
    """
    return _search(options)


def _search(options: RunOptions | ResumeOptions) -> Result:
    from pipeline.sweep.build_request import build_request
    from pipeline.sweep.run import run_sweep

    log_to_terminal(quiet=options.quiet)
    check_current_folder()
    settle_environment()
    with own_mlflow_runs():
        result = run_sweep(build_request(options))
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


def _take_options(
    options: Callable[P, OptionsT], function: Callable[[OptionsT], Result]
) -> Callable[P, Result]:
    """`function` with the fields of the dataclass as its arguments, for type checkers and notebooks too."""
    name, signature = function.__name__.lstrip("_"), inspect.signature(options)

    def door(*args: P.args, **given: P.kwargs) -> Result:
        for keyword in given:
            if keyword not in signature.parameters:
                known = nearest(keyword, signature.parameters)
                raise TypeError(f"{name}() has no option {keyword!r}; {known}")
        try:
            signature.bind(*args, **given)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        return function(_with_environment(options(*args, **given)))

    door.__name__ = door.__qualname__ = name
    door.__doc__ = function.__doc__
    vars(door)["__signature__"] = signature.replace(return_annotation=Result)
    return door


run = _take_options(RunOptions, _run)
resume = _take_options(ResumeOptions, _resume)
