"""The exceptions of gansweep, and what a caller should do about each.

GansweepError
|-- UserError             the input is wrong: shown as one line, exit code 2; fix it and run again
|   |-- ConfigError       a hyper-parameter or an option is unknown or out of bounds
|   |-- SpaceError        a file of search_spaces/ cannot be read or contradicts itself
|   |-- DataError         the images cannot be used as they are
|   |-- EvaluatorError    the extractor, its weights or its statistics do not fit
|   |-- SweepError        the sweep's folder cannot be used (another sweep, in use, missing)
|   `-- RegistryError     the tracking store or the registry does not have or take what was asked
|-- CheckpointError       a checkpoint is missing or damaged: use the one before
`-- TrialError            a trial cannot go on: it ends as failed, the sweep goes on
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable


class GansweepError(Exception):
    """Base of everything gansweep raises on purpose."""


class UserError(GansweepError):
    """The caller's input is wrong: the command shows one line, `PROBLEM (RULE); FIX`, and exits with 2.

    Args:
        problem: what is wrong: `port {seen} is in use`. Without `{seen}`, the value follows after a colon.
        rule: what must hold instead: `a free port is needed`; empty where the problem says it.
        seen: the value that broke the rule. None is shown only in the place of `{seen}`.
        fix: what to type or change: `try --port 8001`.
    """

    def __init__(self, problem: str, *, rule: str = "", seen: object = None, fix: str) -> None:
        text = problem
        if "{seen}" in problem:
            text = problem.replace("{seen}", _one_line(seen))
        elif seen is not None:
            text = f"{problem}: {_one_line(seen)}"
        super().__init__(_printable(f"{text}{f' ({rule})' if rule else ''}; {fix}"))
        self.problem, self.rule, self.seen, self.fix = problem, rule, seen, fix

    def __reduce__(self) -> tuple[object, ...]:  # keyword arguments do not survive pickling by themselves
        make = functools.partial(type(self), rule=self.rule, seen=self.seen, fix=self.fix)
        return make, (self.problem,)


class ConfigError(UserError):
    """A hyper-parameter or an option is unknown or out of bounds."""


class SpaceError(UserError):
    """A search space cannot be read or contradicts itself."""


class DataError(UserError):
    """The images cannot be used as they are."""


class EvaluatorError(UserError):
    """The extractor, its weights or its statistics do not fit."""


class SweepError(UserError):
    """The sweep's folder cannot be used."""


class RegistryError(UserError):
    """The tracking store or the registry does not have or take what was asked."""


class CheckpointError(GansweepError):
    """A checkpoint is missing or damaged; the caller uses the one before."""


class TrialError(GansweepError):
    """A trial cannot go on; it ends as failed and the sweep goes on."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint at the valid name that was probably meant: `did you mean 'lr_g'?`, or a list of all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else "valid names: " + ", ".join(names)


def redact(text: str) -> str:
    """`text` with the user names, passwords and tokens of the URIs in it replaced by `***`."""
    text = re.sub(r"://[^/\s]*@", "://***@", text)
    return re.sub(r"(?i)\b(password|passwd|token|secret|sslpassword)=[^&\s]+", r"\1=***", text)


def first_line(error: Exception) -> str:
    """The error's type and the first line of its text, at most 300 characters."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _one_line(value: object) -> str:
    try:
        text = " ".join((value if isinstance(value, str) else repr(value)).split()) or "nothing"
    except ValueError:  # Python refuses to write integers of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 200 else text[:197] + "..."


def _printable(text: str) -> str:
    """`text` with line breaks, terminal controls and undecodable bytes of file names as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
