"""Turns the options of `run` into a `Request`, and those of `resume` into changes of a SweepConfig.

`submit` uses it as well, to check what a job will be asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.cli.options import DEFAULTS, UNLIMITED, parse_duration, parse_gpus_per_trial, parse_settings
from pipeline.cli.terminal import wants_live_view
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.sweep.request import Request

_LIMITS = ("gpu_hours", "cost_budget", "max_failures", "target_fid")
_UNCHANGED = (
    *("data", "space", "image_size", "seed", "sampler", "pruner", "price", "require", "address"),
    *("extractor", "extractor_weights", "fid_samples", "final_samples", "cpus_per_trial"),
)
"""Options that become fields of SweepConfig as they are."""


def build_request(given: Mapping[str, Any]) -> Request:
    """The request that the options of `run` mean.

    Args:
        given: the parameters of `run` by name.

    Raises:
        UserError: an option or the space is wrong.
    """
    from pipeline.reporting.webhook import check_webhook
    from pipeline.search.space.builtin import find_space, load_space
    from pipeline.storage.url import check_url, is_url, scratch_dir
    from pipeline.sweep.request import Request

    store = check_url(given["out"]) if is_url(given["out"]) else ""
    space, fixed = load_space(given["space"]), parse_settings(given["set_"] or [])
    if given["kimg"] is not None:
        fixed["kimg"] = given["kimg"]
    config = build_config(given)
    check_no_password("--storage", given["storage"], "GANSWEEP_STORAGE")
    return Request(
        space=space.override(fixed) if fixed else space,
        config=config,
        out=scratch_dir(store) if store else Path(given["out"]),
        store=store,
        register=None if given["no_register"] else given["register"] or config.name,
        promote=given["promote"],
        recipe=given["recipe"],
        overrides=frozenset(fixed),
        code=find_space(given["space"]).absolute().parent,
        tracking_uri=given["tracking_uri"],
        storage=given["storage"],
        dry_run=given["dry_run"],
        measure=given["dry_run"],
        notify=check_webhook(given["notify"]),
        live=wants_live_view(given["quiet"]),
    )


def build_config(given: Mapping[str, Any]) -> SweepConfig:
    """The SweepConfig of `run`; without --trials, a limit of another kind makes their number unlimited."""
    limits: dict[str, Any] = {"time_budget_sec": parse_duration(given["time_budget"])}
    limits |= {name: given[name] or 0 for name in _LIMITS}
    unlimited = any(value for name, value in limits.items() if name != "max_failures")
    return SweepConfig(
        name=given["name"] or Path(given["space"]).stem,
        trials=given["trials"] or (UNLIMITED if unlimited else DEFAULTS.trials),
        hang_after_sec=parse_duration(given["hang_after"]),
        wait_sec=parse_wait(given["wait"]),
        final_seeds=-1 if given["final_seeds"] is None else given["final_seeds"],
        gpus_per_trial=parse_gpus_per_trial(given["gpus_per_trial"]),
        concurrency=given["concurrency"] or 0,
        **limits,
        **{name: given[name] for name in _UNCHANGED},
    )


def build_changes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of SweepConfig that `resume` changes: those that were given."""
    changes = {name: given[name] for name in ("trials", "concurrency", "price", *_LIMITS)}
    for flag, name in (("time_budget", "time_budget_sec"), ("hang_after", "hang_after_sec")):
        changes[name] = parse_duration(given[flag]) or None
    changes["wait_sec"] = parse_wait(given["wait"]) if given["wait"] else None
    return {name: value for name, value in changes.items() if value not in (None, "")}


def parse_wait(text: str) -> float:
    """`--wait` in seconds; 0 means for ever."""
    return 0.0 if text.strip() == "0" else parse_duration(text)


def check_no_password(flag: str, uri: str, variable: str) -> None:
    """Reject a password on the command line, where every process of the machine can read it.

    Raises:
        ConfigError: `uri` has one, and is not the value of the environment's `variable`.
    """
    if os.environ.get(variable) != uri and has_password(uri):
        parts = urlsplit(uri)
        plain = f"{parts.scheme}://{parts.hostname}{parts.path}"
        raise ConfigError(
            f"there is a password in {flag} {{seen}}",
            rule="passwords come from the environment, not from the command line",
            seen=plain,
            fix=f"export {variable} with the whole URL, or PGUSER and PGPASSWORD, and leave it out here",
        )


def has_password(uri: str) -> bool:
    """Whether a URL carries a password."""
    try:
        parts = urlsplit(uri)
        return bool(parts.password) or "password=" in parts.query.lower()
    except ValueError:
        return False
