"""SIGKILL at each named point of a sweep's end; the same command, or a resume, completes it."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.result import Result
from faults.sweeps import Sweep, champion
from pipeline.storage.fault_points import FAULT_POINTS, VARIABLE
from pipeline.tracking.cursor import unexported
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.tracking_uri import default_uri

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))

from machines import answers, mlflow_server, postgres, wait_for

_FLAGS = ("--trials", "2", "--kimg", "2", "--concurrency", "1", "--extractor", "pixels")
_FLAGS += ("--fid-samples", "200", "--final-samples", "200")


def end(folder: Path, times: int, rng: random.Random) -> Result:
    """Kill sweeps at every point, `times` each, with files on this machine and with servers.

    The first time each sweep is killed once and completed, after that one sweep at all points in turn.
    """
    return kill(folder, [[point] for point in FAULT_POINTS] + (times - 1) * [list(FAULT_POINTS)])


def kill(folder: Path, groups: list[list[str]]) -> Result:
    """Kill a sweep at each point of a group in turn, and then complete it."""
    result = Result("SIGKILL at each point of the end, then resumed")
    with postgres(folder / "pg") as database, mlflow_server(folder / "server", database) as server:
        wait_for(lambda: answers(f"{server}/health"), 60, "mlflow server")
        os.environ["PGPASSWORD"] = database.password
        stores = ("--storage", database.url("study"), "--tracking-uri", server)

        def in_files(name: str) -> Sweep:
            return Sweep(folder / name, *_FLAGS, name=name)

        def in_servers(name: str) -> Sweep:
            return Sweep(folder / "servers", *_FLAGS, name=name, stores=stores)

        with ThreadPoolExecutor(2) as pool:
            kinds = {"sqlite and a journal": (in_files, ""), "PostgreSQL and a server": (in_servers, server)}
            tables = {
                kind: pool.submit(_complete_each, result, groups, *make) for kind, make in kinds.items()
            }
        for kind, table in tables.items():
            result.notes.append(f"{kind}: {table.result()}")
    return result


def _complete_each(result: Result, groups: list[list[str]], make: Callable[[str], Sweep], uri: str) -> str:
    """Kill a sweep of its own at the points of each group, and complete it; returns how many are complete."""
    reference = make("reference")
    reference.start()
    result.expect(reference.end() == 0, f"the reference sweep failed: {reference.stderr[-300:]}")
    completed = 0
    for index, points in enumerate(groups):
        sweep, broken = make(f"{points[-1]}-{index}"), list[str]()
        for turn, point in enumerate(points):
            sweep.start(resume=turn > 0 and bool(turn % 2), **{VARIABLE: point})
            killed = sweep.end() == -signal.SIGKILL
            result.injected += killed
            broken += [] if killed else [f"not killed at {point}: {sweep.stderr[-300:]}"]
        sweep.start(resume=bool(index % 2))
        if sweep.end() != 0:
            broken.append(f"the resume failed: {sweep.stderr[-300:]}")
        else:
            broken += _missing(sweep, uri or default_uri(sweep.paths.root.parent))
            broken += [] if champion(sweep) == champion(reference) else ["another champion"]
        completed += not broken
        result.broken += [f"{points[-1]}: {text}" for text in broken]
    return f"{completed} of {len(groups)} sweeps complete"


def _missing(sweep: Sweep, uri: str) -> list[str]:
    """What the sweep should have left behind and has not."""
    from mlflow import MlflowClient

    client, paths, name = MlflowClient(uri, uri), sweep.paths, sweep.paths.root.name
    experiment = client.get_experiment_by_name(f"gansweep/{name}")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    logged = client.search_logged_models([experiment.experiment_id])
    versions = client.search_model_versions(f"name = '{name}'")
    aliases = client.get_registered_model(name).aliases
    log = EventLog(paths.event_log)
    log.close()
    parent = [run for run in runs if run.data.tags["gansweep.trial"] == "none"]
    checks = {
        f"the state is {sweep.summary.get('state')}": sweep.summary.get("state") == "finished",
        "there is no report": paths.report.is_file(),
        f"{len(runs)} runs": len(runs) == 3,
        "a run is RUNNING": all(run.info.status != "RUNNING" for run in runs),
        "the parent run is not FINISHED": [run.info.status for run in parent] == ["FINISHED"],
        f"{len(versions)} versions": len(versions) == 1,
        f"{len(logged)} logged models": len(logged) == 1,
        f"aliases {aliases}": {alias: int(number) for alias, number in aliases.items()} == {"champion": 1},
        "MLflow lacks events": not unexported(paths.root, log, uri),
        "an orphan of a write": not [path for path in paths.root.iterdir() if path.name.startswith(".")],
    }
    return [text for text, held in checks.items() if not held]
