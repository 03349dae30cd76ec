"""What must hold before a sweep begins: bounds, folder and study can be used, the space fits the images, the
tracking store answers.

Owns: these checks. Refuses: writing anything.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from pipeline.cluster import shared_objects
from pipeline.cluster.autoscaler import wait_for_machine
from pipeline.cluster.connection import LOCAL, check_nodes, cluster_nodes, unwritable
from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import ConfigError, RegistryError
from pipeline.search import budgets
from pipeline.search.resources import Cluster, check_gpus, trial_resources
from pipeline.search.space.definition import Space
from pipeline.sweep.remote import check_remote
from pipeline.sweep.request import Request
from pipeline.tracking.registry.pack import pack_generator
from pipeline.tracking.tracking_uri import check_server
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import check_networks
from pipeline.training.networks.custom import is_custom

log = logging.getLogger(__name__)


def check_request(request: Request) -> None:
    """What this machine alone can tell: bounds, the folder, a GPU that is asked of a machine without one.

    Raises:
        UserError: one of them cannot be.
    """
    config = request.config
    check_gpus(config.gpus_per_trial)
    budgets.check_budgets(config)
    if request.store:
        check_remote(request)
    else:
        check_out(request.out)
    if config.address == LOCAL and not config.require:
        trial_resources(config, Cluster([{"CPU": 1e9, "GPU": shared_objects.gpu_count()}]))


def check_cluster(request: Request) -> None:
    """What a connected cluster can tell: it holds a trial, and its nodes see the folder.

    Raises:
        UserError: it does not.
    """
    if request.config.address == LOCAL:
        return
    cluster = cluster_nodes()
    share = trial_resources(request.config, cluster)
    log.info(f"cluster: {cluster}; trials at a time: {share.concurrency}, each {share}")
    if request.measure or not request.dry_run:
        wait_for_machine(share, request.config.wait_sec)
    check_nodes(request.url or request.paths.root.parent)


def check_out(out: Path) -> None:
    """Raise SweepError where sweeps cannot be kept in `out`."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise unwritable(out, NotADirectoryError(20, "not a folder"))
    if not os.access(there, os.W_OK | os.X_OK):
        raise unwritable(out, PermissionError(13, "permission denied"))


def check_space(space: Space, dataset: Dataset) -> None:
    """Build G and D of every architecture and conditioning that the space can draw, on these images.

    Raises:
        ConfigError: one of them cannot be.
    """
    shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes) if dataset.labelled else 0)
    for architecture in possible_values(space, "architecture"):
        for conditional in possible_values(space, "conditional"):
            chosen = {"architecture": architecture, "conditional": conditional}
            if is_custom(architecture):
                _check_own(space.config({**_smallest(space), **chosen}), shape)
            else:
                check_networks(TrialConfig(**chosen, width_g=2, width_d=2), shape)


def _check_own(config: TrialConfig, shape: ImageShape) -> None:
    """Try a pair of the user's, and whether its G could be registered when the sweep is over."""
    generator = check_networks(config, shape)
    with tempfile.TemporaryDirectory() as folder:
        try:
            pack_generator(generator, Path(folder), {})
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


def resolve_for_images(request: Request, size: int, labelled: bool) -> Request:
    """The request with numbers for what recipes leave to the images."""
    space = request.space.on_images(size, labelled)
    if request.recipe:
        space = space.start(request.recipe, size, labelled, request.kept)
    return dataclasses.replace(request, space=space)


def possible_values(space: Space, name: str) -> tuple[Any, ...]:
    if name in space.search:
        return space.search[name].choices
    return (space.fixed.get(name, TrialConfig.fields()[name].default),)


def check_tracking(uri: str, *, new: bool) -> None:
    try:
        check_server(uri)
    except RegistryError as error:
        if new:
            raise
        log.warning(f"{error}; records stay in the spool until it answers")
