"""Makers of the files of a running sweep that its readers need: summary.json, sweep.toml, spool.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import factories

from pipeline.config import SweepPaths
from pipeline.storage.files import write_text
from pipeline.storage.summary_file import SweepSummary, parse_summary


def summary_content(**changes: Any) -> dict[str, Any]:
    """summary.json of a running sweep: five of ten trials have ended, after 100 seconds."""
    content: dict[str, Any] = {
        "name": "digits",
        "trials": {"complete": 2, "pruned": 3, "failed": 0, "running": 1},
        "trials_asked": 10,
        "time_budget_sec": 0.0,
        "state": "running",
        "best": {"trial": 4, "fid": 12.345, "balance": 0.5, "kimg": 20, "params": {}},
        "leaderboard": [],
        "running": [{"trial": 5, "fid": None, "balance": 0.25, "last_kimg": 10, "verdict": "healthy"}],
        "kimg_total": 120,
        "images_per_sec": 2500.0,
        "wall_seconds": 100.0,
        "disk_bytes": 4_200_000,
    }
    return {**content, **changes}


def summary_of(**changes: Any) -> SweepSummary:
    """The same, read."""
    return parse_summary(json.dumps(summary_content(**changes)))


def write_summary(paths: SweepPaths, **changes: Any) -> None:
    write_text(paths.summary, json.dumps(summary_content(**changes)))


def trial_events(trial: int, *ticks: tuple[int, float, float], end: str = "") -> list[dict[str, Any]]:
    """The events of a trial: (kimg, fid, balance) per tick; `end`: status of its end event, if it has one."""
    found: list[dict[str, Any]] = [{"event": "start", "trial": trial, "params": {}}]
    for i, (kimg, fid, balance) in enumerate(ticks):
        record = factories.record(
            kimg, fid, trial=trial, best_fid=min(tick[1] for tick in ticks[: i + 1]),
            balance=balance, auc=0.99, train_seconds=60.0, eval_seconds=3.0,
        )  # fmt: skip
        found.append({"event": "record", "trial": trial, "record": record.to_dict()})
    return [*found, {"event": "end", "trial": trial, "status": end, "cause": "by asha"}] if end else found


def append_events(path: Path, *events: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def write_running_sweep(root: Path) -> SweepPaths:
    """A sweep in `root` whose trial 0 was pruned at fid 40 and whose trial 5 runs with fid 10."""
    paths = SweepPaths(root)
    root.mkdir(exist_ok=True)
    write_summary(paths)
    write_text(paths.config, "[space.fixed]\nkimg = 40\n[space.search]\nlr_g = { float = [0.1, 0.2] }\n")
    append_events(paths.event_log, *trial_events(0, (10, 80.0, 0.5), (20, 40.0, 0.5), end="KILLED"))
    append_events(paths.event_log, *trial_events(5, (10, 10.0, 0.01)))
    return paths
