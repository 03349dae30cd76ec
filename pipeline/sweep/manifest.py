"""sweep.toml: the resolved settings of a sweep, and the comparison of a later call with them."""

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
"""Settings that a resume may change: how much is searched and on which machines, not what is searched or how
it is measured."""


def measured_facts(dataset: Dataset, evaluator: frechet.Evaluator) -> dict[str, dict[str, Any]]:
    """The tables `data` and `evaluator` of sweep.toml."""
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
    """The text of sweep.toml; passwords in addresses are replaced by `***`.

    Args:
        facts: the tables of `measured_facts`, and `code` (hashes of the user's own files) where needed.
        uri: the MLflow store.
    """
    registry = {"name": request.register or "", "promote": request.promote, "tracking_uri": redact(uri)}
    registry["storage"] = redact(request.storage)
    tables = {"sweep": request.config.to_dict(), **facts, "registry": registry}
    blocks = [
        f"[{t}]\n" + "".join(f"{k} = {to_toml(v)}\n" for k, v in rows.items()) for t, rows in tables.items()
    ]
    return "# Written by gansweep: one resolved sweep.\n\n" + "\n".join(
        [*blocks, request.space.to_toml("space.")]
    )


def no_sweep(root: object) -> SweepError:
    """The error for a folder, or an address, in which there is no sweep."""
    return SweepError(
        "there is no sweep in {seen}",
        rule="a sweep's folder holds a sweep.toml",
        seen=str(root),
        fix="name the folder that `run` made",
    )


def read_manifest(paths: SweepPaths) -> dict[str, Any] | None:
    """The content of sweep.toml, or None for a new sweep.

    Raises:
        SweepError: sweep.toml is damaged, or is missing in a folder that is not empty.
    """
    if not paths.config.is_file():
        if paths.root.is_dir() and any(p for p in paths.root.iterdir() if p.name != "lock"):
            raise SweepError(
                "{seen} holds other files",
                rule="the folder of a new sweep must be empty",
                seen=str(paths.root),
                fix="choose another --name or --out",
            )
        return None
    try:
        stored = tomllib.loads(paths.config.read_text(encoding="utf-8"))
        check_names(stored["sweep"], SweepConfig.fields())
        space_from_tables(stored["space"], "sweep.toml")
        stored["data"]["fingerprint"], stored["evaluator"]["hash"], stored["registry"]["name"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SweepError(
            "sweep.toml cannot be read",
            rule="it must be as gansweep wrote it",
            seen=f"{paths.config}: {error}",
            fix="choose another --name",
        ) from error
    return stored


def check_same_request(stored: dict[str, Any], request: Request) -> None:
    """Compare a request with the sweep that exists; settings of `MAY_GROW` may differ.

    Args:
        stored: the content of sweep.toml.

    Raises:
        SweepError: other settings, another space, or another kind of study.
    """
    asked = {k: v for k, v in request.config.to_dict().items() if k not in MAY_GROW and k != "space"}
    keys = [f"sweep.{key}" for key, value in asked.items() if stored["sweep"].get(key, value) != value]
    keys += request.space.differences(space_from_tables(stored["space"], "sweep.toml"))
    storage = stored["registry"].get("storage", "")
    if bool(storage) != bool(request.storage):
        raise SweepError(
            "the sweep began with another study",
            rule="a sweep must go on with the study it began with",
            seen=redact(request.storage) if request.storage else "no --storage",
            fix=f"give --storage {storage} (or GANSWEEP_STORAGE) again" if storage else "leave out --storage",
        )
    if keys:
        raise SweepError(
            f"the sweep {request.paths.root.name} exists with other values of {{seen}}",
            rule="a sweep must go on with the settings it began with",
            seen=", ".join(keys),
            fix="choose another --name, or give the same values",
        )


def check_same_data(stored: dict[str, Any], facts: dict[str, dict[str, Any]]) -> None:
    """Compare images, evaluator and the user's own files with those of the sweep that exists.

    Args:
        stored: the content of sweep.toml.
        facts: as `manifest_toml` takes them.

    Raises:
        SweepError: one of them is another by now.
    """
    pairs = (("data", "fingerprint"), ("evaluator", "hash"))
    keys = [f"{table}.{key}" for table, key in pairs if stored[table][key] != facts[table][key]]
    keys += ["code"] if stored.get("code") != facts.get("code") else []
    if keys:
        raise SweepError(
            "the sweep began with another {seen}",
            rule="a sweep must go on with the images, the evaluator and the networks it began with",
            seen=", ".join(keys),
            fix="choose another --name",
        )


def raised_limits(stored: dict[str, Any], config: SweepConfig) -> bool:
    """Whether `config` raises a limit of the ended sweep: more trials, a larger budget, a lower fid."""
    before = stored["sweep"]
    now = config.to_dict()
    limits = ("time_budget_sec", "gpu_hours", "cost_budget", "max_failures")
    more = [now[k] != before.get(k, 0) and (now[k] == 0 or now[k] > before.get(k, 0) > 0) for k in limits]
    lower_target = now["target_fid"] < before.get("target_fid", 0)
    return now["trials"] > before["trials"] or any(more) or lower_target
