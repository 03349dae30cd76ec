"""sweep.toml: everything that was resolved, and what a later call may not change.

Owns: the file's content and the comparison with it. Refuses: writing anything else.
"""

from __future__ import annotations

import tomllib
from typing import Any

from pipeline.config import SweepConfig, SweepPaths, check_names
from pipeline.data.dataset import Dataset
from pipeline.errors import SweepError, redact
from pipeline.metrics import frechet
from pipeline.search.space.distribution import to_toml
from pipeline.search.space.parser import space_from_tables
from pipeline.sweep.request import Request

MAY_GROW = (
    "trials",
    "time_budget_sec",
    "gpu_hours",
    "cost_budget",
    "price",
    "max_failures",
    "target_fid",
    "hang_after_sec",
    "wait_sec",
    "cpus_per_trial",
    "gpus_per_trial",
    "require",
    "concurrency",
    "address",
)
"""What a resume may change: how much is searched and with what, not what or how it is judged."""


def measured_facts(dataset: Dataset, evaluator: frechet.Evaluator) -> dict[str, dict[str, Any]]:
    return {
        "data": {
            "source": dataset.source,
            "fingerprint": dataset.fingerprint,
            "size": dataset.size,
            "channels": dataset.channels,
            "classes": list(dataset.classes),
            "train": len(dataset.train),
            "held_out": len(dataset.held),
        },
        "evaluator": {
            "extractor": evaluator.extractor_name,
            "hash": evaluator.hash,
            "samples": evaluator.samples,
        },
    }


def manifest_toml(request: Request, facts: dict[str, dict[str, Any]], uri: str) -> str:
    kept = {"name": request.register or "", "promote": request.promote, "tracking_uri": redact(uri)}
    kept["storage"] = redact(request.storage)
    tables = {"sweep": request.config.to_dict(), **facts, "registry": kept}
    blocks = [
        f"[{t}]\n" + "".join(f"{k} = {to_toml(v)}\n" for k, v in rows.items()) for t, rows in tables.items()
    ]
    return "# Written by gansweep: one resolved sweep.\n\n" + "\n".join(
        [*blocks, request.space.to_toml("space.")]
    )


def read_manifest(paths: SweepPaths) -> dict[str, Any] | None:
    """What sweep.toml says, or None for a new sweep."""
    if not paths.config.is_file():
        if paths.root.is_dir() and any(p for p in paths.root.iterdir() if p.name != "lock"):
            raise SweepError(
                "a new sweep's folder is empty", seen=str(paths.root), fix="choose another --name or --out"
            )
        return None
    try:
        stored = tomllib.loads(paths.config.read_text(encoding="utf-8"))
        check_names(stored["sweep"], SweepConfig.fields())
        space_from_tables(stored["space"], "sweep.toml")
        stored["data"]["fingerprint"], stored["evaluator"]["hash"], stored["registry"]["name"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SweepError(
            "sweep.toml is as gansweep wrote it", seen=f"{paths.config}: {error}", fix="choose another --name"
        ) from error
    return stored


def check_same_request(stored: dict[str, Any], request: Request) -> None:
    ours = {k: v for k, v in request.config.to_dict().items() if k not in MAY_GROW and k != "space"}
    keys = [f"sweep.{key}" for key, value in ours.items() if stored["sweep"].get(key, value) != value]
    keys += request.space.differences(space_from_tables(stored["space"], "sweep.toml"))
    kept = stored["registry"].get("storage", "")
    if bool(kept) != bool(request.storage):
        raise SweepError(
            "a sweep goes on with the study it began with",
            seen=request.storage and redact(request.storage) or "no --storage",
            fix=f"give --storage {kept} (or GANSWEEP_STORAGE) again" if kept else "leave out --storage",
        )
    if keys:
        raise SweepError(
            f"a sweep goes on as it began ({request.paths.root.name} exists)",
            seen="other values of " + ", ".join(keys),
            fix="choose another --name, or give the same values",
        )


def check_same_data(stored: dict[str, Any], facts: dict[str, dict[str, Any]]) -> None:
    pairs = (("data", "fingerprint"), ("evaluator", "hash"))
    keys = [f"{table}.{key}" for table, key in pairs if stored[table][key] != facts[table][key]]
    keys += ["code"] if stored.get("code") != facts.get("code") else []
    if keys:
        raise SweepError(
            "a sweep goes on with the images, the evaluator and the networks it began with",
            seen="another " + ", ".join(keys),
            fix="choose another --name",
        )


def raised_limits(stored: dict[str, Any], config: SweepConfig) -> bool:
    """Whether more is asked for than when the sweep ended."""
    was = stored["sweep"]
    now = config.to_dict()
    bounds = ("time_budget_sec", "gpu_hours", "cost_budget", "max_failures")
    more = [now[k] != was.get(k, 0) and (now[k] == 0 or now[k] > was.get(k, 0) > 0) for k in bounds]
    target, met = now["target_fid"], was.get("target_fid", 0)
    return now["trials"] > was["trials"] or any(more) or target < met
