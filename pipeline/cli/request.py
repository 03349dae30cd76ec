"""From what was typed to what is asked for: the options of `run` become a request.

Owns: how options combine. Refuses: carrying anything out; `submit` checks with it what a job will be asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.cli.options import DEFAULTS, UNLIMITED, seconds, settings, share
from pipeline.cli.terminal import live
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.sweep.request import Request

_BOUNDS = ("gpu_hours", "cost_budget", "max_failures", "target_fid")
_SAME = (
    *("data", "space", "image_size", "seed", "sampler", "pruner", "price", "require", "address"),
    *("extractor", "extractor_weights", "fid_samples", "final_samples", "cpus_per_trial"),
)
"""Options that are fields of SweepConfig as they were typed."""


def request_of(given: Mapping[str, Any]) -> Request:
    """What `run` was asked for; `given` are its parameters by name.

    Raises:
        UserError: an option or the space is wrong.
    """
    from pipeline.reporting.webhook import check_webhook
    from pipeline.search.space.builtin import find_space, load_space
    from pipeline.storage.url import check_url, is_url, scratch_dir
    from pipeline.sweep.request import Request

    store = check_url(given["out"]) if is_url(given["out"]) else ""
    space, fixed = load_space(given["space"]), settings(given["set_"] or [])
    if given["kimg"] is not None:
        fixed["kimg"] = given["kimg"]
    config = config_of(given)
    guard_secret("--storage", given["storage"], "GANSWEEP_STORAGE")
    return Request(
        space=space.override(fixed) if fixed else space,
        config=config,
        out=scratch_dir(store) if store else Path(given["out"]),
        store=store,
        register=None if given["no_register"] else given["register"] or config.name,
        promote=given["promote"],
        recipe=given["recipe"],
        kept=frozenset(fixed),
        code=find_space(given["space"]).absolute().parent,
        tracking_uri=given["tracking_uri"],
        storage=given["storage"],
        dry_run=given["dry_run"],
        measure=given["dry_run"],
        notify=check_webhook(given["notify"]),
        live=live(given["quiet"]),
    )


def config_of(given: Mapping[str, Any]) -> SweepConfig:
    """The SweepConfig among the options of `run`; without --trials a bound lifts their number."""
    bounds: dict[str, Any] = {"time_budget_sec": seconds(given["time_budget"])}
    bounds |= {name: given[name] or 0 for name in _BOUNDS}
    unlimited = any(value for name, value in bounds.items() if name != "max_failures")
    return SweepConfig(
        name=given["name"] or Path(given["space"]).stem,
        trials=given["trials"] or (UNLIMITED if unlimited else DEFAULTS.trials),
        hang_after_sec=seconds(given["hang_after"]),
        wait_sec=patience(given["wait"]),
        final_seeds=-1 if given["final_seeds"] is None else given["final_seeds"],
        gpus_per_trial=share(given["gpus_per_trial"]),
        concurrency=given["concurrency"] or 0,
        **bounds,
        **{name: given[name] for name in _SAME},
    )


def changes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `resume` changes of a SweepConfig: only what was typed."""
    changes = {name: given[name] for name in ("trials", "concurrency", "price", *_BOUNDS)}
    for flag, name in (("time_budget", "time_budget_sec"), ("hang_after", "hang_after_sec")):
        changes[name] = seconds(given[flag]) or None
    changes["wait_sec"] = patience(given["wait"]) if given["wait"] else None
    return {name: value for name, value in changes.items() if value not in (None, "")}


def patience(text: str) -> float:
    """`--wait` in seconds; 0 is for ever."""
    return 0.0 if text.strip() == "0" else seconds(text)


def guard_secret(flag: str, uri: str, variable: str) -> None:
    """Refuse a password on the command line, where every process of the machine can read it.

    Raises:
        ConfigError: `uri` has one that did not come from the environment.
    """
    if os.environ.get(variable) != uri and has_secret(uri):
        parts = urlsplit(uri)
        plain = f"{parts.scheme}://{parts.hostname}{parts.path}"
        raise ConfigError(
            "passwords come from the environment, not from the command line",
            seen=f"one in {flag} {plain}",
            fix=f"export {variable} with the whole URL, or PGUSER and PGPASSWORD, and leave it out here",
        )


def has_secret(uri: str) -> bool:
    """Whether a URL carries a password."""
    try:
        parts = urlsplit(uri)
        return bool(parts.password) or "password=" in parts.query.lower()
    except ValueError:
        return False
