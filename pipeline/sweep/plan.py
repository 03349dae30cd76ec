"""What a dry run prints: the resolved sweep, the disk space it needs, and how long it may take."""

from __future__ import annotations

from pipeline.cluster.runner import estimate_sweep
from pipeline.config import SweepConfig, TrialConfig
from pipeline.errors import redact
from pipeline.search.samplers import sampler_notes
from pipeline.search.space.definition import Space
from pipeline.storage.readable import readable_bytes
from pipeline.sweep.inputs import SweepInputs
from pipeline.sweep.request import Request
from pipeline.sweep.result import Rows
from pipeline.tables import NETWORKS
from pipeline.training.checkpoint import checkpoint_sizes
from pipeline.training.networks.blocks import ImageShape

_ROW_BYTES = 3000
"""Approximate size of one tick's record in all places together: trial folder, event log, study, MLflow."""
_GRID_IMAGES = 50
_CHECKPOINTS = 3
"""Per running trial: two that are kept and one that is being written."""


def plan_sweep(request: Request, inputs: SweepInputs, uri: str) -> Rows:
    """Rows of (heading, text); trains the largest trial for a moment. uri: the MLflow store."""
    config, full = request.config, request.space.config({})
    dataset, evaluator = inputs.dataset, inputs.evaluator
    labels = f", {len(dataset.classes)} classes" if dataset.labelled else ""
    budget = f"{config.trials} trials of at most {full.kimg} kimg"
    budget += f", {config.time_budget_sec:g} s" if config.time_budget_sec else ""
    size = f"{dataset.size}x{dataset.size}x{dataset.channels}"
    shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes))
    return (
        ("sweep", request.url or str(request.paths.root)),
        ("images", f"{len(dataset.train)} + {len(dataset.held)} held out, {size}{labels}"),
        ("space", f"{config.space} ({len(request.space.search)} searched, hash {request.space.hash})"),
        ("search", f"{config.sampler} + {config.pruner}, {budget}"),
        *(("note", note) for note in sampler_notes(config, request.space)),
        ("fid", f"{evaluator.extractor_name}, {evaluator.samples} samples, evaluator {evaluator.hash}"),
        ("disk", disk_needed(request.space, config, shape)),
        ("tracking", redact(uri)),
        ("registers", request.register or "nothing"),
        *estimate_sweep(config, request.space, dataset, evaluator, inputs.code),
    )


def disk_needed(space: Space, config: SweepConfig, shape: ImageShape) -> str:
    """An upper bound in words: per finished trial, per running one, and in all where trials are limited."""
    full = space.config({})
    found = [
        checkpoint_sizes(_largest(space, architecture), shape)
        for architecture in space.possible_values("architecture")
        if not NETWORKS.is_user_code(architecture)
    ]
    ticks = -(-full.kimg // full.tick_kimg)
    grids = ticks * _GRID_IMAGES * shape.size**2 * shape.channels  # PNG is smaller
    state, best = (max(sizes) for sizes in zip(*found, strict=True)) if found else (0, 0)
    kept = best + grids + ticks * _ROW_BYTES
    all_counted = len(found) == len(space.possible_values("architecture"))
    custom = "" if all_counted else ", custom networks not counted"
    of_trial, running = readable_bytes(kept), readable_bytes(_CHECKPOINTS * state)
    text = f"at most {of_trial} a trial, {running} more while it runs{custom}"
    if config.time_budget_sec or config.gpu_hours:
        return text  # the number of trials is not known
    return f"{text}; {readable_bytes(config.trials * kept)} in all"


def _largest(space: Space, architecture: str) -> TrialConfig:
    """The configuration at the upper bound of every numeric hyper-parameter of the space."""
    upper: dict[str, object] = {}
    for name, d in space.search.items():
        numbers = [choice for choice in d.choices if isinstance(choice, int | float)]
        if name != "architecture" and (numbers or not d.choices):
            upper[name] = max(numbers) if d.choices else int(d.high) if d.whole else d.high
    return space.config({**upper, "architecture": architecture})
