"""What must hold before a sweep begins: bounds, folder and study can be used, the space fits the images, the
tracking store answers.

Owns: these checks. Refuses: writing anything.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import budgets, networks, node, registry
from pipeline.config import TrialConfig
from pipeline.data import Dataset
from pipeline.errors import ConfigError, RegistryError, SweepError
from pipeline.networks import ImageShape
from pipeline.resources import Cluster, check_gpus, share_of
from pipeline.spaces import Space
from pipeline.sweep.connect import LOCAL, check_nodes, look, unwritable
from pipeline.sweep.remote import check_remote
from pipeline.sweep.request import Request
from pipeline.sweep.waiting import wait_for_machine
from pipeline.tracker import check_server, first_line, redact


def check_request(request: Request) -> None:
    """What this machine alone can tell: bounds, the folder, a GPU that is asked of a machine without one.

    Raises:
        UserError: one of them cannot be.
    """
    config = request.config
    check_gpus(config.gpus_per_trial)
    budgets.check(config)
    if request.store:
        check_remote(request)
    else:
        check_out(request.out)
    if config.address == LOCAL and not config.require:
        share_of(config, Cluster([{"CPU": 1e9, "GPU": node.gpus()}]))


def check_cluster(request: Request) -> None:
    """What a connected cluster can tell: it holds a trial, and its nodes see the folder.

    Raises:
        UserError: it does not.
    """
    if request.config.address == LOCAL:
        return
    cluster = look()
    share = share_of(request.config, cluster)
    request.say(f"cluster: {cluster}; trials at a time: {share.concurrency}, each {share}")
    if request.measure or not request.dry_run:
        wait_for_machine(share, request.config.wait_sec, request.say)
    check_nodes(request.url or request.paths.root.parent, request.say)


def check_out(out: Path) -> None:
    """Raise SweepError where sweeps cannot be kept in `out`."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise unwritable(out, NotADirectoryError(20, "not a folder"))
    if not os.access(there, os.W_OK | os.X_OK):
        raise unwritable(out, PermissionError(13, "permission denied"))


def check_storage(url: str, name: str, *, new: bool) -> None:
    """Look whether the study's database answers, and for a new sweep that it holds no study of its name.

    Raises:
        SweepError: it does not, in one line without the password.
    """
    if not url:
        return
    import optuna

    shown = redact(url)
    if "://" not in url:
        raise SweepError("--storage is a database URL", seen=shown, fix="write postgresql://HOST/DATABASE")
    try:
        names = _study_names(optuna, url)
    except Exception as error:  # SQLAlchemy's, the driver's, Optuna's own
        raise SweepError(
            "the study's database answers",
            seen=f"{shown} ({redact(first_line(error))})",
            fix="start it, correct --storage, or export PGUSER and PGPASSWORD",
        ) from error
    if new and name in names:
        raise SweepError(
            "a new sweep's study is new",
            seen=f"{name} exists in {shown}",
            fix="choose another --name, or go on in the --out that it began in",
        )


def _study_names(optuna: Any, url: str) -> list[str]:
    timeout = {"connect_timeout": 10} if url.startswith(("postgresql", "mysql")) else {}
    store = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": timeout})
    try:
        return list(optuna.study.get_all_study_names(store))
    finally:
        store.engine.dispose()


def check_space(space: Space, dataset: Dataset) -> None:
    """Build G and D of every architecture and conditioning that the space can draw, on these images.

    Raises:
        ConfigError: one of them cannot be.
    """
    shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes) if dataset.labelled else 0)
    for architecture in possible(space, "architecture"):
        for conditional in possible(space, "conditional"):
            chosen = {"architecture": architecture, "conditional": conditional}
            if networks.is_own(architecture):
                _check_own(space.config({**_smallest(space), **chosen}), shape)
            else:
                networks.check(TrialConfig(**chosen, width_g=2, width_d=2), shape)


def _check_own(config: TrialConfig, shape: ImageShape) -> None:
    """Try a pair of the user's, and whether its G could be registered when the sweep is over."""
    generator = networks.check(config, shape)
    with tempfile.TemporaryDirectory() as folder:
        try:
            registry.pack(generator, Path(folder), {})
        except Exception as error:  # torch.export raises dozens of kinds
            raise ConfigError(
                f"{config.architecture}: G can be exported, so that it can be registered",
                seen=str(error).strip().splitlines()[0],
                fix="use plain tensor operations, the same ones for every input",
            ) from error


def _smallest(space: Space) -> dict[str, Any]:
    """The first choice or the low end of everything that is searched."""
    ends = {name: d.choices[0] if d.choices else d.low for name, d in space.search.items()}
    return {name: int(end) if space.search[name].whole else end for name, end in ends.items()}


def on_images(request: Request, size: int, labelled: bool) -> Request:
    """The request with numbers for what recipes leave to the images."""
    space = request.space.on_images(size, labelled)
    if request.recipe:
        space = space.start(request.recipe, size, labelled, request.kept)
    return dataclasses.replace(request, space=space)


def possible(space: Space, name: str) -> tuple[Any, ...]:
    if name in space.search:
        return space.search[name].choices
    return (space.fixed.get(name, TrialConfig.fields()[name].default),)


def check_tracking(uri: str, *, new: bool, say: Callable[[str], None]) -> None:
    try:
        check_server(uri)
    except RegistryError as error:
        if new:
            raise
        say(f"warning: {error}; records stay in the spool until it answers")
