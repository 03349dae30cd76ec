"""From the options of `run` or `resume` to a `Request`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import SweepConfig, SweepPaths, names_file
from pipeline.errors import ConfigError
from pipeline.reporting.log_lines import wants_live_view
from pipeline.reporting.webhook import check_webhook
from pipeline.search.budgets import UNLIMITED
from pipeline.search.resources import check_gpus_per_trial
from pipeline.search.space.builtin import find_space, load_space
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import check_fixed
from pipeline.search.space.parser import space_from_tables
from pipeline.storage.addresses import absolute_path, absolute_source, absolute_sqlite
from pipeline.storage.readonly_copy import fetch_sweep_toml
from pipeline.storage.url import check_url, is_url, parent_url, scratch_dir
from pipeline.sweep import option_texts
from pipeline.sweep.manifest import read_existing, read_manifest
from pipeline.sweep.options import ResumeOptions, RunOptions, SpaceLike
from pipeline.sweep.request import Request
from pipeline.sweep.space_choice import name_for_data
from pipeline.tracking.moved_store import without_gaps
from pipeline.tracking.registry.names import check_registration

_LIMITS = ("gpu_hours", "cost_budget", "max_failures", "target_fid", "until_plateau")
_UNCHANGED = (
    *("image_size", "split", "fit", "background", "frames"),
    *(
        "seed",
        "sampler",
        "pruner",
        "price",
        "require",
        "address",
        "extractor",
        "second_extractor",
        "second_opinion",
        "fid_samples",
        "final_samples",
        "cpus_per_trial",
    ),
)
"""Options that become fields of SweepConfig as they are."""


def build_request(options: RunOptions | ResumeOptions) -> Request:
    """The request that the options of `run` or `resume` mean.

    Raises:
        UserError: an option or the space is wrong, or there is no sweep to resume.
    """
    return _new_sweep(options) if isinstance(options, RunOptions) else _known_sweep(options)


def _new_sweep(options: RunOptions) -> Request:
    store = check_url(str(options.out)) if is_url(str(options.out)) else ""
    fixed = option_texts.parse_settings(options.set)
    if options.kimg is not None:
        fixed["kimg"] = options.kimg
    space, folders = _load_space(options.space, fixed)
    config = _config(options)
    option_texts.check_storage(options.storage)
    out = scratch_dir(store) if store else Path(absolute_path(str(options.out)))
    return Request(
        space=space,
        space_by_images=options.space == "",
        config=config,
        out=out,
        store=store,
        register=_registered_name(options, config.name),
        promote=options.promote,
        recipe=options.recipe,
        overrides=frozenset(fixed),
        code_folders=folders,
        tracking_uri=absolute_sqlite(options.tracking_uri) or _store_of(SweepPaths(out / config.name)),
        storage=absolute_sqlite(options.storage, "--storage"),
        dry_run=options.dry_run,
        notify=check_webhook(options.notify),
        live=wants_live_view(options.quiet),
    )


def _registered_name(options: RunOptions, sweep: str) -> str | None:
    """The name under which the best is registered; None = it is not."""
    if options.register and options.no_register:
        raise ConfigError(
            "--register {seen} and --no-register contradict each other",
            seen=options.register,
            fix="leave one of them out",
        )
    check_registration(options.register or sweep, options.promote, option="--register")
    return None if options.no_register else options.register or sweep


def _load_space(space: SpaceLike, fixed: Mapping[str, object]) -> tuple[Space, tuple[Path, ...]]:
    """The space with some values fixed, and the folders in which the user's own code may lie."""
    folders: tuple[Path, ...] = (Path.cwd(),)
    if space == "":
        return Space(fixed=check_fixed(fixed, "--set"), search={}), folders
    if isinstance(space, Space):
        known = space
    elif isinstance(space, Mapping):
        known = space_from_tables(space)
    else:
        known, folders = load_space(str(space)), (find_space(str(space)).absolute().parent, *folders)
    return known.override(fixed) if fixed else known, folders


def _config(options: RunOptions) -> SweepConfig:
    """The SweepConfig of `run`; without `trials`, a limit of another kind makes their number unlimited."""
    named = isinstance(options.space, str | Path)
    space, paths = str(options.space) if named else "given in Python", _paths(options)
    subject = Path(space).stem if space else name_for_data(paths["data"])
    limits: Mapping[str, Any] = {name: getattr(options, name) or 0 for name in _LIMITS}
    seconds = option_texts.parse_duration(options.time_budget)
    unlimited = seconds or any(value for name, value in limits.items() if name != "max_failures")
    return SweepConfig(
        name=options.name or (subject if named else "sweep"),
        space=space,
        trials=options.trials or (UNLIMITED if unlimited else SweepConfig().trials),
        hang_after_sec=option_texts.parse_duration(options.hang_after),
        wait_sec=SweepConfig().wait_sec if options.wait == "" else option_texts.parse_wait(options.wait),
        final_seeds=-1 if options.final_seeds is None else options.final_seeds,
        gpus_per_trial=option_texts.parse_gpus_per_trial(options.gpus_per_trial),
        concurrency=options.concurrency or 0,
        time_budget_sec=seconds,
        metrics=",".join(options.metric),
        **limits,
        **paths,
        **{name: getattr(options, name) for name in _UNCHANGED},
    )


def _classes(classes: str) -> str:
    is_file = names_file(classes) and os.path.exists(os.path.expanduser(classes))
    return absolute_path(classes) if is_file else classes  # else it lies among the images


def _paths(options: RunOptions | ResumeOptions) -> Mapping[str, Any]:
    """The images, the file of their classes and the extractor's weights, by absolute paths."""
    weights = options.extractor_weights
    return {
        "data": absolute_source(options.data),
        "classes": _classes(options.classes),
        "extractor_weights": absolute_path(weights) if weights else "",
    }


def _known_sweep(options: ResumeOptions) -> Request:
    location = str(options.location)
    if is_url(location):
        location = check_url(location)
        (store, folder), root = parent_url(location), fetch_sweep_toml(location)
    else:
        root = Path(absolute_path(location)).resolve()
        store, folder = "", root.name
    manifest = read_existing(location, SweepPaths(root))
    config = SweepConfig.from_dict({**manifest.config.to_dict(), **_changes(options)})
    check_gpus_per_trial(
        config.gpus_per_trial, fix="go on by the `gansweep run` that it began with, and --gpus-per-trial 1"
    )
    option_texts.check_storage(options.storage)
    registry = manifest.registry
    if registry.name:
        option = f"name at [registry] in {location}/sweep.toml"
        check_registration(registry.name, registry.promote, option=option)
    return Request(
        space=manifest.space,
        config=config,
        out=root.parent,
        store=store,
        folder=folder,
        register=registry.name or None,
        promote=registry.promote,
        code_folders=(SweepPaths(root).code,),
        tracking_uri=absolute_sqlite(options.tracking_uri) or without_gaps(registry.tracking_uri),
        storage=absolute_sqlite(options.storage, "--storage") or _known(registry.storage),
        dry_run=options.dry_run,
        notify=check_webhook(options.notify),
        live=wants_live_view(options.quiet),
    )


def _store_of(paths: SweepPaths) -> str:
    """The MLflow store of the sweep in a folder; "" where there is none yet."""
    manifest = read_manifest(paths)
    return without_gaps(manifest.registry.tracking_uri) if manifest else ""


def _known(address: str) -> str:
    """An address of sweep.toml; "" where it had a password, which is not stored."""
    return "" if "***" in address else address


def _changes(options: ResumeOptions) -> dict[str, object]:
    """The fields of SweepConfig that `resume` changes: those that were given."""
    changes: dict[str, object] = {
        name: getattr(options, name) for name in ("trials", "concurrency", "price", *_LIMITS)
    }
    changes["time_budget_sec"] = option_texts.parse_duration(options.time_budget) or None
    changes["hang_after_sec"] = option_texts.parse_duration(options.hang_after) or None
    changes |= _paths(options)
    changes["wait_sec"] = None if options.wait == "" else option_texts.parse_wait(options.wait)
    return {name: value for name, value in changes.items() if value not in (None, "")}
