"""Checks before a sweep begins, which write nothing: budgets, folder, cluster, space, tracking server."""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from pathlib import Path

from pipeline.cluster.autoscaler import wait_for_machine
from pipeline.cluster.connection import LOCAL, check_nodes, cluster_nodes, out_not_writable
from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.search import budgets
from pipeline.search.resources import Cluster, check_gpus_per_trial, trial_resources
from pipeline.search.space.definition import Space
from pipeline.sweep.remote import check_remote
from pipeline.sweep.request import Request
from pipeline.tables import NETWORKS
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.names import check_no_prompt
from pipeline.tracking.registry.pack import pack_generator
from pipeline.tracking.store_schema import StoreAwayError
from pipeline.tracking.tracking_uri import check_server
from pipeline.training.custom_losses import check_loss, check_penalty
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import check_networks
from pipeline.training.process import visible_gpus

log = logging.getLogger(__name__)


def check_request(request: Request) -> None:
    """UserError where the budgets, the output folder or store, or on one machine its GPUs cannot be used."""
    config = request.config
    check_gpus_per_trial(config.gpus_per_trial)
    budgets.check_budgets(config)
    if request.store:
        check_remote(request)
    else:
        check_out(request.out)
    if config.address == LOCAL and not config.require:
        trial_resources(config, Cluster([{"CPU": 1e9, "GPU": visible_gpus()}]))


def check_cluster(request: Request) -> None:
    """UserError where the connected cluster has no room for a trial, or a node does not see the folder."""
    if request.config.address == LOCAL:
        return
    cluster = cluster_nodes()
    resources = trial_resources(request.config, cluster)
    log.info(f"cluster: {cluster}; trials at a time: {resources.concurrency}, each {resources}")
    wait_for_machine(resources, request.config.wait_sec)
    check_nodes(request.url or request.paths.root.parent)


def check_out(out: Path) -> None:
    """SweepError where sweeps cannot be written below `out`, which need not exist."""
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise out_not_writable(out, NotADirectoryError(20, "not a folder"))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise out_not_writable(out, PermissionError(13, "permission denied"))


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


def resolve_for_images(request: Request, size: int, labelled: bool) -> Request:
    """The request with the values that its recipes derive from the images, which are `size` px wide."""
    space = request.space.on_images(size, labelled)
    if request.recipe:
        space = space.start_from(request.recipe, size, labelled, request.overrides)
    return dataclasses.replace(request, space=space)


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
