"""Everything `gansweep doctor` checks, as a list of findings.

Changes nothing, and imports neither torch nor mlflow: torch is imported by another process, and a tracking
server is only asked whether it answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.cli.doctor.cluster import check_auth, check_cluster
from pipeline.cli.doctor.data import check_digits, check_inception
from pipeline.cli.doctor.finding import Finding, Level
from pipeline.cli.doctor.machine import (
    check_bfloat16,
    check_cores,
    check_disk,
    check_memory,
    check_python,
    check_shared_memory,
    check_store,
)
from pipeline.cli.doctor.ports import check_ray_ports
from pipeline.cli.doctor.reachability import check_tracking
from pipeline.cli.doctor.software import check_torch, check_versions
from pipeline.storage.url import is_url

Check = tuple[str, Callable[[], list[Finding]]]


def diagnose(out: Path | str, tracking_uri: str | None = None, address: str | None = None) -> list[Finding]:
    """Check everything a sweep needs; takes about as long as importing torch once.

    Args:
        out: the folder below which sweeps are written, which need not exist; or an object store's address.
        tracking_uri: the MLflow store to check; None = the one that `gansweep run` would create in `out`.
        address: a Ray cluster to connect to, whose nodes are listed; None or "local" connects to none.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(out) / 'mlflow.db'}"
    return run_checks(
        [
            ("python", lambda: [check_python()]),
            ("cores", lambda: [check_cores()]),
            ("memory", lambda: [check_memory(), check_shared_memory()]),
            ("disk", lambda: [check_store(str(out)) if is_url(str(out)) else check_disk(Path(out))]),
            ("torch", check_torch),
            ("bf16", lambda: [check_bfloat16()]),
            ("versions", check_versions),
            ("data", lambda: [check_digits(), check_inception()]),
            ("tracking", lambda: [check_tracking(uri)]),
            ("ray", lambda: [check_auth(), check_ray_ports(), *check_cluster(address)]),
        ]
    )


def run_checks(checks: Sequence[Check]) -> list[Finding]:
    """All findings of `checks` (name, function), in their order; a check that raises is a warning."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(_guarded, checks))
    return [finding for findings in found for finding in findings]


def worst_level(findings: list[Finding]) -> Level:
    """The most serious level among `findings`; "ok" where there are none."""
    levels: tuple[Level, ...] = ("bad", "warn")
    return next((level for level in levels if any(f.level == level for f in findings)), "ok")


def _guarded(check: Check) -> list[Finding]:
    name, function = check
    try:
        return function()
    except Exception as error:
        return [Finding(name, "warn", f"could not be checked: {type(error).__name__}: {error}")]
