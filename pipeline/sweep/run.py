"""A whole sweep: from a request to a registered champion, and on again after an interruption.

Responsible for the order of the steps. Each step is a module of its own: request (what is asked), preflight
(what must hold), manifest (sweep.toml), remote (a sweep in an object store), `pipeline.cluster.runner` (what
runs on Ray), finalize (what follows the search).
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cluster.connection import connected
from pipeline.cluster.runner import estimate_sweep, run_search
from pipeline.config import SweepConfig, SweepPaths
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import GansweepError, redact
from pipeline.metrics import extractors, frechet
from pipeline.reporting.summary import Summary
from pipeline.reporting.webhook import WebhookNotifier
from pipeline.search.resources import check_gpus_per_trial
from pipeline.search.space.parser import space_from_tables
from pipeline.search.study import check_storage, open_study
from pipeline.search.study_artifacts import StudyArtifacts
from pipeline.search.trial_manager import TrialManager
from pipeline.storage.files import no_space, write_text
from pipeline.storage.lock import sweep_lock
from pipeline.storage.readonly_copy import fetch_sweep_toml
from pipeline.storage.summary_file import read_summary
from pipeline.storage.url import is_url, parent_url
from pipeline.sweep.disk_usage import disk_needed
from pipeline.sweep.finalize import close_sweep, finalize
from pipeline.sweep.manifest import (
    check_same_data,
    check_same_request,
    manifest_toml,
    measured_facts,
    no_sweep,
    raised_limits,
    read_manifest,
)
from pipeline.sweep.preflight import (
    check_cluster,
    check_request,
    check_space,
    check_tracking,
    possible_values,
    resolve_for_images,
)
from pipeline.sweep.remote import FetchTrialFiles, uploaded_sweep
from pipeline.sweep.request import Outcome, Request
from pipeline.tracking.event_callback import EventLogCallback
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.registry.promote import CHAMPION
from pipeline.tracking.sweep_export import start_exporter
from pipeline.tracking.tracking_uri import default_uri
from pipeline.training.finalists import Finalist
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.custom import code_hashes, copy_code, use_code
from pipeline.user_code import UserCode, read_code

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Inputs:
    """What a sweep trains and measures with, loaded and checked.

    facts: the tables of sweep.toml that describe it. code: hashes of the user's own files, by module.
    """

    dataset: Dataset
    evaluator: frechet.Evaluator
    facts: dict[str, dict[str, Any]]
    code: dict[str, str]


def run_sweep(request: Request) -> Outcome:
    """Search, measure the finalists, register the best; or go on with the sweep that exists.

    Raises:
        UserError: before anything is written, where the request cannot be carried out.
    """
    check_request(request)
    with connected(request.config.address):
        check_cluster(request)
        with uploaded_sweep(request) as request:
            return _run(request)


def _run(request: Request) -> Outcome:
    """The sweep, once it is known that this machine and the cluster can run it."""
    paths, config = request.paths, request.config
    stored = read_manifest(paths)
    uri = request.tracking_uri or default_uri(request.out)
    _check_stores(request, stored, uri)
    request, inputs = _load(request, stored)
    plan = _plan(request, inputs.dataset, inputs.evaluator, uri)
    if request.dry_run:
        if request.measure:
            code = _user_code(request)
            plan += estimate_sweep(config, request.space, inputs.dataset, inputs.evaluator, code)
        return Outcome("planned", paths.root, {}, uri, request.location, plan)
    before = read_summary(paths.summary)
    over = before.get("state") == "finished" and not _unregistered(before, request)
    if stored is not None and over and not raised_limits(stored, config):
        log.info("this sweep is finished; raise --trials or a budget to go on")
        return Outcome("finished", paths.root, before, uri, request.location, plan)
    return _search(request, inputs, uri, float(before.get("wall_seconds", 0.0)))


def _check_stores(request: Request, stored: dict[str, Any] | None, uri: str) -> None:
    """Compare the request with the sweep that exists; reach the tracking server and the study's database."""
    if stored is not None:
        data = stored["data"]
        check_same_request(stored, resolve_for_images(request, data["size"], bool(data["classes"])))
    check_tracking(uri, new=stored is None)
    check_storage(request.storage, request.config.name, new=stored is None)


def _load(request: Request, stored: dict[str, Any] | None) -> tuple[Request, _Inputs]:
    """The images, the evaluator and the user's own files; and the request with the values they decide."""
    config = request.config
    log.info(f"images: {config.data}")
    dataset = load_dataset(config.data, image_size=config.image_size)
    request = resolve_for_images(request, dataset.size, dataset.labelled)
    code = code_hashes([*possible_values(request.space, "architecture"), config.extractor], request.code)
    use_code(request.code)
    check_space(request.space, dataset)
    extractor = extractors.build_extractor(
        config.extractor, dataset, weights=config.extractor_weights, code=request.code
    )
    evaluator = frechet.build_evaluator(dataset, extractor, config.fid_samples)
    facts = {**measured_facts(dataset, evaluator), **({"code": code} if code else {})}
    if stored is not None:
        check_same_data(stored, facts)
    return request, _Inputs(dataset, evaluator, facts, code)


def _search(request: Request, inputs: _Inputs, uri: str, spent_sec: float) -> Outcome:
    """Search below the sweep's lock, and close the sweep however the search ends.

    spent_sec: search time of earlier processes.
    """
    paths, config, space = request.paths, request.config, request.space
    paths.root.mkdir(parents=True, exist_ok=True)
    with sweep_lock(paths), contextlib.closing(EventLog(paths.event_log)) as event_log:
        _write_manifest(request, inputs, uri)
        study = open_study(config.name, request.storage or paths.study, config, space)
        summary = Summary(paths, config, inputs.facts["evaluator"])
        event_log.artifact(None, paths.config)
        if request.uploader:
            event_log.durable_size = request.uploader.uploaded_bytes
            request.uploader.upload()  # the sweep's id is in the store before MLflow gets it
        exporter = start_exporter(paths, config, event_log, uri, inputs.facts, space.hash)
        callbacks = (EventLogCallback(event_log, paths), summary)
        trial_manager = TrialManager(study, space, config, paths, callbacks, spent_sec)
        summary.manager = trial_manager
        trial_manager.notify_history()
        summary.write(force=True)
        with WebhookNotifier(request.notify, config.name, summary.content) as notifier:
            first = (FetchTrialFiles(request.uploader, paths),) if request.uploader else ()
            trial_manager.callbacks = (*first, *callbacks, notifier)
            trial_manager.before_tell = StudyArtifacts(paths).attach_grid
            try:
                found = _run_trials(request, trial_manager, inputs)
                if trial_manager.interrupted:
                    return close_sweep(summary, "interrupted", request, event_log, exporter, uri)
                finalize(
                    request, trial_manager, summary, inputs.dataset, inputs.evaluator, found, exporter, uri
                )
                return close_sweep(summary, "finished", request, event_log, exporter, uri)
            except BaseException as error:
                close_sweep(summary, "failed", request, event_log, exporter, uri)
                if no_space(error, paths.root):
                    again = f"free some, then: gansweep resume {request.location}"
                    raise GansweepError(f"the disk is full: {again}") from error
                raise


def _user_code(request: Request) -> UserCode:
    """The user's code that the sweep names, for its workers."""
    names = [*possible_values(request.space, "architecture"), request.config.extractor]
    return read_code(names, [request.code or Path.cwd()])


def _write_manifest(request: Request, inputs: _Inputs, uri: str) -> None:
    """Write sweep.toml, and copy the user's own files into the sweep's folder to use them from there."""
    paths = request.paths
    write_text(paths.config, manifest_toml(request, inputs.facts, uri))
    if inputs.code and request.code is not None:
        copy_code(inputs.code, request.code, paths.code)
        use_code(paths.code)


def _run_trials(request: Request, trial_manager: TrialManager, inputs: _Inputs) -> list[Finalist]:
    return run_search(
        trial_manager,
        inputs.dataset,
        inputs.evaluator,
        code=_user_code(request),
        url=request.url,
        live=request.live,
        fetch_folder=request.uploader.fetch_folder if request.uploader else None,
    )


def resume_sweep(location: Path | str, changes: dict[str, Any], **options: Any) -> Outcome:
    """Go on with the sweep in a folder or an object store.

    Args:
        location: the sweep's folder or address.
        changes: new values of fields of SweepConfig, of those in `MAY_GROW`.
        options: further fields of `Request`.

    Raises:
        SweepError: there is no sweep.
    """
    if is_url(str(location)):
        options["store"], _ = parent_url(str(location))
        root = fetch_sweep_toml(str(location)).resolve()
    else:
        root = Path(location)
    stored = read_manifest(SweepPaths(root))
    if stored is None:
        raise no_sweep(root)
    config = SweepConfig.from_dict({**stored["sweep"], **changes})
    check_gpus_per_trial(
        config.gpus_per_trial, fix="go on by the `gansweep run` that it began with, and --gpus-per-trial 1"
    )
    registry = stored["registry"]
    for name in ("tracking_uri", "storage"):
        known = registry.get(name, "")
        options[name] = options.get(name) or ("" if "***" in known else known)
    return run_sweep(
        Request(
            space=space_from_tables(stored["space"], "sweep.toml"),
            config=config,
            out=root.resolve().parent,
            register=registry["name"] or None,
            code=root / "code",
            promote=registry.get("promote", CHAMPION),
            **options,
        )
    )


def _unregistered(summary: dict[str, Any], request: Request) -> bool:
    """Whether a finished sweep lacks its registered version, which a registry or a disk did not take."""
    return bool(request.register and summary.get("best") and not summary.get("registered"))


def _plan(
    request: Request, dataset: Dataset, evaluator: frechet.Evaluator, uri: str
) -> tuple[tuple[str, str], ...]:
    """What a dry run prints: rows of (heading, text)."""
    config, full = request.config, request.space.config({})
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
        ("fid", f"{evaluator.extractor_name}, {evaluator.samples} samples, evaluator {evaluator.hash}"),
        ("disk", disk_needed(request.space, config, shape)),
        ("tracking", redact(uri)),
        ("registers", request.register or "nothing"),
    )
