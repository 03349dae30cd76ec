"""The space of a sweep: which one, where the images choose it, and what it becomes on these images."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path

from pipeline.config import SweepConfig, TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.data.description import smallest_class
from pipeline.data.findings import printable
from pipeline.search.resources import Cluster, gpus_of_trial
from pipeline.search.space.builtin import load_builtin
from pipeline.search.space.definition import Space
from pipeline.search.space.notes import augmentation, outline
from pipeline.search.space.rules import ImageFacts, Rule
from pipeline.storage.addresses import parse_source
from pipeline.sweep.manifest import SweepFacts
from pipeline.sweep.request import Request
from pipeline.training.networks.sizes import nearest_sizes
from pipeline.training.process import visible_gpus

SMALL_GREY = 32
"""Up to this side in pixels the space made for digits is taken for labelled grey images."""


def space_for(facts: ImageFacts) -> str:
    """The name of the built-in space for these images."""
    small = facts.channels == 1 and facts.size <= SMALL_GREY
    return "mnist5k" if small and facts.labelled else "photos"


def resolve_for_images(request: Request, facts: ImageFacts) -> Request:
    """The request with its space, as the images choose it, and with the values that they decide.

    Raises:
        SpaceError: such a value is out of its range, or nothing is left to search.
    """
    config, space = request.config, request.space
    if request.space_by_images:
        config = replace(config, space=space_for(facts))
        space = load_builtin(config.space).override(space.fixed)
    space = space.on_images(facts, request.recipe, request.overrides)
    return replace(request, config=config, space=space, space_by_images=False)


def facts_of(dataset: Dataset, device: str) -> ImageFacts:
    """What a space may depend on, of images that are loaded. device: `trial_device`."""
    return ImageFacts(
        size=dataset.size,
        channels=dataset.channels,
        images=len(dataset.train),
        classes=len(dataset.classes),
        smallest_class=smallest_class(dataset)[1],
        device=device,
    )


def facts_of_sweep(facts: SweepFacts) -> ImageFacts:
    """The same of a sweep that exists, with the device that it began with."""
    data = facts.data
    return ImageFacts(
        size=max(1, data.size),  # early versions did not write it
        channels=data.channels,
        images=data.train,
        classes=len(data.classes),
        smallest_class=data.smallest_class,
        device=facts.device,
    )


def this_machine() -> Cluster:
    """The GPUs of this machine, as `trial_device` takes them."""
    return Cluster([{"GPU": visible_gpus()}])


def trial_device(config: SweepConfig, cluster: Cluster) -> str:
    """What the trials of a new sweep train on, cpu or gpu."""
    return "gpu" if gpus_of_trial(config, cluster) else "cpu"


def drawable_size(size: int) -> int:
    """The side at which images of `size` px are prepared where the images choose the space."""
    return nearest_sizes(TrialConfig().architecture, size)[0]


def describe_choice(facts: ImageFacts, name: str, space: Space) -> str:
    """`photos: 1,924 colour images of 64 px, on a CPU: 40 kimg, widths 8-32, augmentation searched (...)`."""
    colour = {1: "grey", 3: "colour"}.get(facts.channels, f"{facts.channels}-channel")
    labelled = "labelled " if facts.labelled else ""
    images = f"{facts.images:,} {labelled}{colour} images of {facts.size} px"
    rules = load_builtin(name).rules if augmentation(space) else ()
    limits = {rule.when["images_below"] for rule in rules if _is_for_few(rule, facts)}
    few = "".join(f" (fewer than {limit:,} images)" for limit in sorted(limits))
    return f"{name}: {images}, on a {facts.device.upper()}: {outline(space)}{few}"


def describe_undrawn_classes(dataset: Dataset, space: Space) -> str:
    """`classes are not drawn: ...` where images have classes that the space leaves out; else ""."""
    if not dataset.labelled or "conditional" in {**space.fixed, **space.search}:
        return ""
    name, count = smallest_class(dataset)
    smallest = f"the smallest ({printable(name)}) has {count:,} images"
    return f"classes are not drawn: {smallest}; --set conditional=true draws them"


def _is_for_few(rule: Rule, facts: ImageFacts) -> bool:
    augments = "augment" in {**rule.fixed, **rule.search}
    return "images_below" in rule.when and augments and rule.holds(facts)


def name_for_data(source: str) -> str:
    """The name of a sweep on these images: that of the folder, the file, the data set or the function.

    source: a value of `SweepConfig.data` with an absolute path.
    """
    address = parse_source(source)
    kind, _, name = source.partition(":")
    if address:
        name = Path(address.path).name if kind == "folder" else Path(address.path).stem
    name = unicodedata.normalize("NFKD", (name or kind).rpartition("/")[2])
    plain = "".join(character for character in name if not unicodedata.combining(character))
    valid = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")
    return valid[:100] or "sweep"
