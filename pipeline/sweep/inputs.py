"""What a sweep trains and measures with: the images, the evaluator and the user's own code."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cluster.connection import LOCAL, cluster_nodes
from pipeline.config import SweepConfig, SweepPaths
from pipeline.data.dataset import Dataset
from pipeline.data.description import smallest_class
from pipeline.metrics.evaluation import custom_metric
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.loading import load_evaluator, load_images
from pipeline.metrics.second_extractor import load_second
from pipeline.search.space.definition import Space
from pipeline.search.space.notes import space_code_names
from pipeline.search.study import check_search
from pipeline.storage.files import write_bytes
from pipeline.storage.moved_sweep import check_inputs_remain
from pipeline.storage.summary_file import FidEvaluator
from pipeline.sweep.manifest import (
    DataFacts,
    Manifest,
    SweepFacts,
    check_same_code,
    check_same_evaluator,
    check_same_images,
)
from pipeline.sweep.preflight import check_space
from pipeline.sweep.request import Request
from pipeline.sweep.space_choice import (
    describe_choice,
    describe_undrawn_classes,
    facts_of,
    facts_of_sweep,
    resolve_for_images,
    this_machine,
    trial_device,
)
from pipeline.tables import DATA_SOURCES, EXTRACTORS, PRUNERS, SAMPLERS
from pipeline.training.finalists import extra_seed_count, final_samples
from pipeline.training.networks.sizes import can_draw, nearest_sizes
from pipeline.training.process import visible_gpus
from pipeline.user_code import UserCode, read_code, use_code

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepInputs:
    """What a sweep trains and measures with, loaded and checked. device: see `SweepFacts`."""

    dataset: Dataset
    evaluator: Evaluator
    code: UserCode
    device: str = "cpu"

    @property
    def facts(self) -> SweepFacts:
        """What sweep.toml keeps of them."""
        dataset, evaluator = self.dataset, self.evaluator
        return SweepFacts(
            data=DataFacts(
                source=dataset.source,
                fingerprint=dataset.fingerprint,
                size=dataset.size,
                channels=dataset.channels,
                classes=list(dataset.classes),
                train=len(dataset.train),
                held_out=len(dataset.held),
                smallest_class=smallest_class(dataset)[1],
            ),
            evaluator=FidEvaluator(
                extractor=evaluator.extractor_name, hash=evaluator.hash, samples=evaluator.samples
            ),
            device=self.device,
            code=self.code.hashes,
        )


def load_inputs(request: Request, manifest: Manifest | None) -> tuple[Request, SweepInputs]:
    """Load them; and the request with the space, or its values, that the images decide.

    From here on this process may run the user's code. manifest: of the sweep that exists.

    Raises:
        UserError: something cannot be loaded or does not fit, or is another than the sweep began with.
    """
    config = request.config
    if manifest is not None:
        check_inputs_remain(config, request.location)
    log.info(f"images: {config.data}")
    code = _use_code(request.space, config, request.code_folders, manifest)
    check_search(config, request.space)
    dataset = _load_drawable(config, request.space, request.out)
    if manifest is None:
        cluster = this_machine() if config.address == LOCAL else cluster_nodes()
        facts = facts_of(dataset, trial_device(config, cluster))
    else:
        _check_same_images(manifest, dataset)
        facts = facts_of_sweep(manifest.facts)
    by_images, request = request.space_by_images, resolve_for_images(request, facts)
    if by_images:
        choice = describe_choice(facts, request.config.space, request.space)
        log.info(f"space: {choice}; --space NAME takes another")
    if undrawn := describe_undrawn_classes(dataset, request.space):
        log.info(f"space: {undrawn}")
    check_space(request.space, dataset)
    if manifest is None:
        evaluator = load_evaluator(config, dataset)
    else:
        evaluator = _load_same_evaluator(config, manifest, dataset)
    second = load_second(config, dataset, evaluator, _measured_on_cpu(config, evaluator))
    evaluator = replace(evaluator, second=second)
    few = min(64, len(dataset.train) // 2)
    for metric in config.metric_names:
        custom_metric(metric, dataset.train[:few], dataset.train[few : 2 * few])
    return request, SweepInputs(dataset, evaluator, code, facts.device)


def _check_same_images(manifest: Manifest, dataset: Dataset) -> None:
    has_copies = dataset.train_groups is not None
    check_same_images(manifest.facts, dataset.fingerprint, has_copies=has_copies)


def _load_same_evaluator(config: SweepConfig, manifest: Manifest, dataset: Dataset) -> Evaluator:
    """That of a sweep that exists; `auto` is what it was then: earlier versions chose another extractor."""
    began = manifest.facts.evaluator.extractor
    if config.extractor == "auto" and began:
        config = replace(config, extractor=began)
    evaluator = load_evaluator(config, dataset)
    check_same_evaluator(manifest.facts, evaluator.hash)
    return evaluator


def _load_drawable(config: SweepConfig, space: Space, out: Path) -> Dataset:
    """The images; where no size is asked for, of the nearest one that the space's architectures can draw."""
    dataset = load_images(config, out=out)
    architectures = space.possible_values("architecture")
    if config.image_size or all(can_draw(name, dataset.size) for name in architectures):
        return dataset
    limited = next(name for name in architectures if not can_draw(name, dataset.size))
    size = nearest_sizes(limited, dataset.size)[0]
    log.info(
        f"images: {limited} cannot draw {dataset.size} px: prepared at {size} px; --image-size takes another"
    )
    return load_images(replace(config, image_size=size), out=out)


def _measured_on_cpu(config: SweepConfig, evaluator: Evaluator) -> int:
    """How many generated images the finalists' second opinion takes; 0 where a GPU measures them."""
    if config.gpus_per_trial > 0 or (config.gpus_per_trial < 0 and visible_gpus()):
        return 0
    seeds = extra_seed_count(config.final_seeds, config.time_budget_sec, 0.0)
    return config.finalists * (1 + seeds) * final_samples(evaluator, config.final_samples)


def load_same_inputs(paths: SweepPaths, manifest: Manifest) -> SweepInputs:
    """Those of a sweep that exists; from here on this process may run the user's code, of its folder.

    Raises:
        UserError: something cannot be loaded, or is another by now.
    """
    check_inputs_remain(manifest.config, str(paths.root))
    code = _use_code(manifest.space, manifest.config, [paths.code], manifest)
    dataset = _load_drawable(manifest.config, manifest.space, paths.root.parent)
    _check_same_images(manifest, dataset)
    evaluator = _load_same_evaluator(manifest.config, manifest, dataset)
    return SweepInputs(dataset, evaluator, code, manifest.facts.device)


def _use_code(
    space: Space, config: SweepConfig, folders: Sequence[Path], manifest: Manifest | None
) -> UserCode:
    """The user's own code, allowed to run once it is known to be what the sweep began with."""
    code = read_code(code_names(space, config), folders)
    if manifest is not None:
        check_same_code(manifest.facts, code.hashes)
    use_code(code)
    return code


def code_names(space: Space, config: SweepConfig) -> Iterator[str]:
    """Every `module:name` that a sweep can run."""
    yield from space_code_names(space)
    chosen = (
        (SAMPLERS, config.sampler),
        (PRUNERS, config.pruner),
        (DATA_SOURCES, config.data),
        (EXTRACTORS, config.extractor),
        (EXTRACTORS, config.second_extractor),
    )
    yield from (name for table, name in chosen if table.is_user_code(name))
    yield from config.metric_names


def write_code(code: UserCode, paths: SweepPaths) -> None:
    """Copy the modules into the sweep's folder, from where a resume and a rerun take them."""
    for module, content in code.files.items():
        paths.code.mkdir(exist_ok=True)
        write_bytes(paths.code / f"{module}.py", content)
