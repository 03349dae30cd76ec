"""`Result`: what a call of `run` or `resume` came to, for the command and for Python."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.storage.readable import readable_number
from pipeline.storage.summary_file import Best, LeaderboardRow, RegisteredVersion, SweepSummary

if TYPE_CHECKING:
    from pipeline.sweep.request import Request

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """What a sweep came to.

    Attributes:
        state: finished, interrupted or failed; planned after a dry run.
        folder: its files on this machine.
        location: the folder or address by which `resume` and the commands name it.
        summary: the content of summary.json; None after a dry run.
        undone: what was asked for and could not be done; then the state is failed.
        resume_command: goes on with the sweep, or completes it.
        plan: what a dry run found: rows of (heading, text).
    """

    name: str
    state: str
    folder: Path
    location: str
    tracking_uri: str
    summary: SweepSummary | None = None
    undone: tuple[str, ...] = ()
    resume_command: str = ""
    plan: Rows = ()

    @classmethod
    def of(
        cls,
        request: Request,
        state: str,
        uri: str,
        summary: SweepSummary | None = None,
        *,
        undone: tuple[str, ...] = (),
        plan: Rows = (),
    ) -> Result:
        """The result of a request. uri: the MLflow store."""
        return cls(
            name=request.config.name,
            state=state,
            folder=request.paths.root,
            location=request.location,
            tracking_uri=uri,
            summary=summary,
            undone=undone,
            resume_command=request.resume_command(uri),
            plan=plan,
        )

    @property
    def leaderboard(self) -> tuple[LeaderboardRow, ...]:
        """The trials, best first, at most a hundred."""
        return self.summary.leaderboard if self.summary else ()

    @property
    def best(self) -> Best | None:
        """The best finalist's numbers; None if no trial has a fid."""
        return self.summary.best if self.summary else None

    @property
    def registered(self) -> RegisteredVersion | None:
        """The version in the model registry; None if none was asked for, or the registry refused."""
        return self.summary.registered if self.summary else None

    @property
    def champion(self) -> str | None:
        """The model's address, for `load_generator`, if this sweep's generator became the champion."""
        version = self.registered
        return version.model if version and version.alias == "champion" else None

    @property
    def report(self) -> Path | None:
        """report.html; None if the search has not finished."""
        path = self.folder / "report.html"
        return path if path.is_file() else None

    def to_dicts(self) -> list[dict[str, object]]:
        """The leaderboard as flat rows, for `pandas.DataFrame`: hyper-parameters are columns as well."""
        return [
            {**{name: value for name, value in vars(row).items() if name != "params"}, **row.params}
            for row in self.leaderboard
        ]

    def __repr__(self) -> str:
        return f"Result({', '.join(f'{name}={text}' for name, text in self._facts())})"

    def _repr_html_(self) -> str:
        """Two small tables, for notebooks."""
        trials = [
            (str(row.trial), readable_number(row.fid), readable_number(row.kimg), row.state)
            for row in self.leaderboard[:10]
        ]
        return _table([*self._facts(), *self.plan]) + _table([("trial", "fid", "kimg", "state"), *trials])

    def _facts(self) -> list[tuple[str, str]]:
        facts = [("name", self.name), ("state", self.state), ("trials", str(len(self.leaderboard)))]
        if self.best:
            facts += [("fid", readable_number(self.best.fid)), ("trial", str(self.best.trial))]
        if self.registered:
            facts.append(("registered", self.champion or self.registered.uri))
        return [*facts, ("folder", self.location)]


def _table(rows: list[tuple[str, ...]]) -> str:
    cells = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
