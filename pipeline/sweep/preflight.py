"""Checks before a sweep begins, which write nothing: budgets, folder, cluster, space, tracking server."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from pipeline.cluster._compat import accelerator_resources
from pipeline.cluster.autoscaler import wait_for_machine
from pipeline.cluster.connection import LOCAL, check_nodes, cluster_nodes
from pipeline.cluster.local_machine import check_memory, check_shared_memory, raise_limits, usable_cores
from pipeline.cluster.socket_folder import ray_folder
from pipeline.config import SweepConfig, TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.search import budgets
from pipeline.search.resources import Cluster, check_gpus_per_trial, trial_resources
from pipeline.search.space.definition import Space
from pipeline.storage.files import cache_root
from pipeline.storage.folders import (
    CACHE_FIX,
    OUT_FIX,
    Folder,
    check_temporary_folder,
    database_folders,
)
from pipeline.storage.lock import check_locks
from pipeline.storage.summary_file import read_summary
from pipeline.sweep.manifest import Manifest, raised_limits, read_manifest
from pipeline.sweep.remote import check_remote
from pipeline.sweep.request import Request
from pipeline.tables import NETWORKS
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.names import check_no_prompt
from pipeline.tracking.registry.pack import pack_generator
from pipeline.tracking.store_schema import StoreAwayError
from pipeline.tracking.tracking_uri import check_server, default_uri
from pipeline.training.custom_losses import check_loss, check_penalty
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import check_networks
from pipeline.training.process import visible_gpus

log = logging.getLogger(__name__)

_RUN_AGAIN = "go on by the `gansweep run` that it began with, with less for each trial (--cpus-per-trial ...)"
_CHOWN = "make it this user's (chown -R), or choose another --out or --name"


def check_request(request: Request) -> None:
    """UserError where the budgets, the folders or the store, or what this machine has cannot be used."""
    config = request.config
    check_gpus_per_trial(config.gpus_per_trial)
    budgets.check_budgets(config)
    if request.store:
        check_remote(request)
    check_folders(request)
    manifest = read_manifest(request.paths) if request.paths.config.exists() else None
    if config.address == LOCAL and not (manifest and _needs_no_trial(request, manifest)):
        check_machine(config, _RUN_AGAIN if manifest else "")


def _needs_no_trial(request: Request, manifest: Manifest) -> bool:
    """Whether the sweep is finished, and no limit is raised: it runs nothing on this machine."""
    summary = read_summary(request.paths.summary)
    finished = summary is not None and summary.state == "finished"
    return finished and not raised_limits(manifest.config, request.config)


def check_folders(request: Request) -> None:
    """SweepError where a folder that the sweep writes cannot be written, or has no file locks."""
    paths = request.paths
    out, own = out_folder(request), Folder(paths.root, "the sweep's folder", _CHOWN)
    databases = database_folders(request.tracking_uri or default_uri(out.path), request.storage)
    for folder in (out, own, *databases):
        check_locks(folder.check())
    trials = replace(own, path=paths.trials)
    trials.check()
    own.check_content([paths.lock, paths.event_log, paths.study, *trials.path.glob("*")])
    check_temporary_folder()
    cache_root()  # raises where it cannot be written


def out_folder(request: Request) -> Folder:
    """Where the sweep's folder is made on this machine."""
    if request.store:
        return Folder(request.out, "the cache", CACHE_FIX)
    return Folder(request.out, "--out", OUT_FIX)


def check_machine(config: SweepConfig, fix: str = "") -> None:
    """Check what a Ray of its own needs on this machine; tell what it does otherwise than was asked.

    fix: what to do where a trial does not fit, if it is not to change the options.

    Raises:
        ConfigError: a trial does not fit, or Ray cannot start.
    """
    cores = usable_cores()
    kinds = accelerator_resources() if config.require else {}
    machine = Cluster([{"CPU": cores.usable, "GPU": visible_gpus(), **kinds}])
    resources = trial_resources(config, machine, fix)
    trials = min(resources.concurrency, config.trials)
    if cores.limit:
        log.info(f"cores: {cores}")
    packs = config.gpus_per_trial < 0 and resources.gpus
    if config.concurrency > resources.concurrency and not packs:
        log.info(f"--concurrency {config.concurrency}: {resources.concurrency} fit, each {resources}")
    if note := ray_folder().note:
        log.info(note)
    for warning in (*raise_limits(trials), *check_memory(trials), *check_shared_memory()):
        log.warning(warning)


def check_cluster(request: Request) -> None:
    """UserError where the connected cluster has no room for a trial, or a node does not see the folder."""
    if request.config.address == LOCAL:
        return
    cluster = cluster_nodes()
    resources = trial_resources(request.config, cluster)
    log.info(f"cluster: {cluster}; trials at a time: {resources.concurrency}, each {resources}")
    wait_for_machine(resources, request.config.wait_sec)
    check_nodes(request.url or request.paths.root.parent)


def check_space(space: Space, dataset: Dataset) -> None:
    """Try every architecture, conditioning, loss and penalty that the space can propose on these images.

    Raises:
        ConfigError: one of them cannot be used.
    """
    shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes) if dataset.labelled else 0)
    for architecture in space.possible_values("architecture"):
        for conditional in space.possible_values("conditional"):
            chosen = {"architecture": architecture, "conditional": conditional}
            if NETWORKS.is_user_code(architecture):
                _check_custom(space.config({**_smallest(space), **chosen}), shape)
            else:
                check_networks(TrialConfig(**chosen, width_g=2, width_d=2), shape)
    for loss in space.possible_values("loss"):
        check_loss(loss)
    for penalty in space.possible_values("penalty"):
        check_penalty(penalty, shape)


def _check_custom(config: TrialConfig, shape: ImageShape) -> None:
    """Build the user's own networks, and try whether their G could be registered when the sweep is over."""
    generator = check_networks(config, shape)
    with tempfile.TemporaryDirectory() as folder:
        try:
            pack_generator(generator, Path(folder), ModelMetadata())
        except Exception as error:  # torch.export raises dozens of kinds
            raise ConfigError(
                f"{config.architecture}: G cannot be exported",
                rule="torch.export must take it, so that it can be registered",
                seen=str(error).strip().splitlines()[0],
                fix="use plain tensor operations, the same ones for every input",
            ) from error


def _smallest(space: Space) -> dict[str, object]:
    """The first choice or the lower bound of every searched hyper-parameter."""
    lower = {name: d.choices[0] if d.choices else d.low for name, d in space.search.items()}
    return {name: int(value) if space.search[name].whole else value for name, value in lower.items()}


def check_tracking(uri: str, *, new: bool, register: str | None = None) -> None:
    """Check the tracking store, and that its registry takes a model of the name `register`.

    Raises:
        RegistryError: it cannot be used. For a sweep that exists no answer is only a warning.
    """
    try:
        check_server(uri)
        if register:
            check_no_prompt(uri, register, option="--register")
    except StoreAwayError as error:
        if new:
            raise
        log.warning(f"{error}; records stay in the event log until it answers")
