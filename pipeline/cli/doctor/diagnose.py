"""Everything `gansweep doctor` checks, as a list of findings.

Changes nothing, and does not import torch, which another process does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.cli.doctor import environment, machine, places
from pipeline.cli.doctor.cluster import check_auth, check_cluster
from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.ports import check_ray_ports
from pipeline.cli.doctor.reachability import check_study, check_tracking
from pipeline.cli.doctor.software import check_digits, check_torch, check_versions, check_weights
from pipeline.errors import UserError
from pipeline.storage.addresses import absolute_path, absolute_sqlite
from pipeline.storage.url import check_url, is_url
from pipeline.sweep.option_texts import check_storage
from pipeline.tracking.tracking_uri import default_uri


def diagnose(out: Path | str, tracking_uri: str = "", address: str = "", storage: str = "") -> list[Finding]:
    """Check everything a sweep needs; takes about as long as importing torch once.

    Args:
        out: the folder below which sweeps are written, which need not exist; or an object store's address.
        tracking_uri: the MLflow store to check; empty = the one that `gansweep run` would use.
        address: a Ray cluster to connect to, whose nodes are listed; empty or "local" connects to none.
        storage: the study's database to check; empty = none.
    """
    try:
        store = check_url(str(out)) if is_url(str(out)) else ""
        folder = Path() if store else Path(absolute_path(str(out)))
        check_storage(storage)
        storage = absolute_sqlite(storage, "--storage")
        uri = absolute_sqlite(tracking_uri) or ("" if store else default_uri(folder))
    except UserError as error:
        return [Finding("addresses", "bad", str(error))]
    cluster = address not in ("", "local")
    return run_checks(
        {
            "python": lambda: [machine.check_python()],
            "environment": environment.check_environment,
            "cores": lambda: [machine.check_cores()],
            "memory": lambda: [] if cluster else machine.check_memory(),  # trials run elsewhere
            "limits": lambda: [] if cluster else machine.check_limits(),
            "sockets": lambda: [] if cluster else [machine.check_sockets()],
            "disk": lambda: (
                places.check_store(store) if store else places.check_folders(folder, uri, storage)
            ),
            "cache": places.check_scratch,
            "torch": check_torch,
            "bf16": lambda: [machine.check_bfloat16()],
            "versions": check_versions,
            "data": lambda: [check_digits(), *check_weights()],
            "tracking": lambda: [check_tracking(uri), *check_study(storage, folder, uri)],
            "ray": lambda: [check_auth(), check_ray_ports(), *check_cluster(address)],
        }
    )


def run_checks(checks: Mapping[str, Callable[[], list[Finding]]]) -> list[Finding]:
    """All findings, in the order of the checks; a check that raises is a warning."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = pool.map(_guarded, *zip(*checks.items(), strict=True))
        return [finding for findings in found for finding in findings]


def _guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except UserError as error:
        return [Finding(name, "bad", str(error))]
    except Exception as error:
        return [Finding(name, "warn", f"could not be checked: {type(error).__name__}: {error}")]
