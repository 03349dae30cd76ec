"""What must hold before a sweep begins: the space fits the images, the tracking store answers.

Owns: these checks. Refuses: writing anything.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import networks, registry
from pipeline.config import TrialConfig
from pipeline.data import Dataset
from pipeline.errors import ConfigError, RegistryError
from pipeline.networks import ImageShape
from pipeline.spaces import Space
from pipeline.sweep.request import Request
from pipeline.tracker import (
    check_server,
)


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
