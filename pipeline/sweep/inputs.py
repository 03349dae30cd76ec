"""What a sweep trains and measures with: the images, the evaluator and the user's own code."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pipeline.data.dataset import Dataset
from pipeline.metrics.evaluation import custom_metric
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.loading import load_evaluator, load_images
from pipeline.search.study import check_search
from pipeline.sweep.code import read_sweep_code
from pipeline.sweep.manifest import Manifest, SweepFacts, check_same_inputs, describe_inputs
from pipeline.sweep.preflight import check_space, resolve_for_images
from pipeline.sweep.request import Request
from pipeline.user_code import UserCode, use_code

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepInputs:
    """What a sweep trains and measures with, loaded and checked. facts: what sweep.toml says about it."""

    dataset: Dataset
    evaluator: Evaluator
    code: UserCode
    facts: SweepFacts


def load_inputs(request: Request, manifest: Manifest | None) -> tuple[Request, SweepInputs]:
    """Load them; and the request with the values that the images decide.

    From here on this process may run the user's code. manifest: of the sweep that exists.

    Raises:
        UserError: something cannot be loaded or does not fit, or is another than the sweep began with.
    """
    config = request.config
    log.info(f"images: {config.data}")
    code = read_sweep_code(request.space, config, request.code_folders)
    use_code(code)
    check_search(config, request.space)
    dataset = load_images(config)
    request = resolve_for_images(request, dataset.size, dataset.labelled)
    check_space(request.space, dataset)
    evaluator = load_evaluator(config, dataset)
    few = min(64, len(dataset.train) // 2)
    for metric in config.metric_names:
        custom_metric(metric, dataset.train[:few], dataset.train[few : 2 * few])
    facts = describe_inputs(dataset, evaluator, code)
    if manifest is not None:
        check_same_inputs(manifest.facts, facts)
    return request, SweepInputs(dataset=dataset, evaluator=evaluator, code=code, facts=facts)
