"""The plan of a sweep, as a dry run prints it: what is resolved, the disk space it needs, its time."""

from __future__ import annotations

from pipeline.cluster.runner import estimate_sweep
from pipeline.errors import redact
from pipeline.search.samplers import sampler_notes
from pipeline.storage.folders import database_folders
from pipeline.sweep.disk import DiskNeed, check_disk, disk_needed
from pipeline.sweep.inputs import SweepInputs
from pipeline.sweep.outlook import outlook
from pipeline.sweep.preflight import out_folder
from pipeline.sweep.request import Request
from pipeline.sweep.result import Rows
from pipeline.training.networks.blocks import ImageShape


def plan_sweep(request: Request, inputs: SweepInputs, uri: str, *, new: bool) -> Rows:
    """Rows of (heading, text). uri: the MLflow store.

    Of a new sweep, trains the largest trial for a moment; one that exists has its own past to judge by.
    """
    config, full = request.config, request.space.config({})
    dataset, evaluator = inputs.dataset, inputs.evaluator
    labels = f", {len(dataset.classes)} classes" if dataset.labelled else ""
    budget = f"{config.trials} trials of at most {full.kimg} kimg"
    budget += f", {config.time_budget_sec:g} s" if config.time_budget_sec else ""
    size = f"{dataset.size}x{dataset.size}x{dataset.channels}"
    return (
        ("sweep", request.url or str(request.paths.root)),
        ("images", f"{len(dataset.train)} + {len(dataset.held)} held out, {size}{labels}"),
        ("space", f"{config.space} ({len(request.space.search)} searched, hash {request.space.hash})"),
        ("search", f"{config.sampler} + {config.pruner}, {budget}"),
        *(("note", note) for note in sampler_notes(config, request.space)),
        ("fid", f"{evaluator.extractor_name}, {evaluator.samples} samples, evaluator {evaluator.hash}"),
        ("second opinion", evaluator.second.extractor_name if evaluator.second else "none"),
        ("disk", str(_disk_needed(request, inputs))),
        ("tracking", redact(uri)),
        ("registers", request.register or "nothing"),
        *_estimates(request, inputs, new=new),
    )


def _estimates(request: Request, inputs: SweepInputs, *, new: bool) -> Rows:
    if not new:
        return outlook(request)
    return estimate_sweep(request.config, request.space, inputs.dataset, inputs.evaluator, inputs.code)


def check_free_space(request: Request, inputs: SweepInputs, *, new: bool) -> None:
    """SweepError where the disk has no room for a trial of a new sweep; warnings where it has too little."""
    databases = database_folders(request.tracking_uri, request.storage)
    check_disk(_disk_needed(request, inputs), out_folder(request), databases, new=new)


def _disk_needed(request: Request, inputs: SweepInputs) -> DiskNeed:
    dataset = inputs.dataset
    shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes))
    return disk_needed(request.space, request.config, shape)
