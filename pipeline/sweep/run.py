"""The whole run: from a request to a registered champion, and on again after an interruption.

Owns: the order of things (request: what is asked; checks: what must hold; stored: sweep.toml; lock, shipping;
remote: a sweep in an object store; cluster: what runs on Ray; finale: what comes after). Refuses: the details
of any of them.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

from pipeline.cluster.connection import connected
from pipeline.cluster.runner import run_search, try_largest
from pipeline.config import SweepConfig, SweepPaths
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import GansweepError, SweepError, redact
from pipeline.metrics import extractors, frechet
from pipeline.reporting.summary import Summary
from pipeline.reporting.webhook import WebhookNotifier
from pipeline.search.resources import check_gpus
from pipeline.search.space.parser import space_from_tables
from pipeline.search.study import check_storage, open_study
from pipeline.search.study_artifacts import StudyArtifacts
from pipeline.search.trial_manager import TrialManager
from pipeline.storage.files import no_space, write_text
from pipeline.storage.lock import sweep_lock
from pipeline.storage.readonly_copy import sweep_toml
from pipeline.storage.summary_file import read_summary
from pipeline.storage.url import is_url, parent_url
from pipeline.sweep.disk_usage import disk_needed
from pipeline.sweep.finalize import close_sweep, finalize
from pipeline.sweep.manifest import (
    check_same_data,
    check_same_request,
    manifest_toml,
    measured_facts,
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
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.custom import copy_code, hashes, use_code

log = logging.getLogger(__name__)


def run_sweep(request: Request) -> Outcome:
    """Search, measure the finalists, register the best; or go on with the sweep that is there.

    Raises:
        UserError: before anything is written, where the request cannot be carried out.
    """
    check_request(request)
    with connected(request.config.address):
        check_cluster(request)
        with uploaded_sweep(request) as request:
            return _run(request)


def _run(request: Request) -> Outcome:
    """The whole run, once this machine and the cluster can carry it."""
    paths, config = request.paths, request.config
    stored = read_manifest(paths)
    if stored is not None:
        seen = stored["data"]
        check_same_request(stored, resolve_for_images(request, seen["size"], bool(seen["classes"])))
    uri = request.tracking_uri or default_uri(request.out)
    check_tracking(uri, new=stored is None)
    check_storage(request.storage, config.name, new=stored is None)
    log.info(f"images: {config.data}")
    dataset = load_dataset(config.data, image_size=config.image_size)
    request = resolve_for_images(request, dataset.size, dataset.labelled)
    space = request.space
    own = hashes([*possible_values(space, "architecture"), config.extractor], request.code)
    use_code(request.code)
    check_space(space, dataset)
    extractor = extractors.build_extractor(
        config.extractor, dataset, weights=config.extractor_weights, code=request.code
    )
    evaluator = frechet.build_evaluator(dataset, extractor, config.fid_samples)
    facts = {**measured_facts(dataset, evaluator), **({"code": own} if own else {})}
    if stored is not None:
        check_same_data(stored, facts)
    plan = _plan(request, dataset, evaluator, uri)
    if request.dry_run:
        plan += try_largest(config, space, request.code, dataset, evaluator) if request.measure else ()
        return Outcome("planned", paths.root, {}, uri, request.place, plan)
    before = read_summary(paths.summary)
    over = before.get("state") == "finished" and not _unregistered(before, request)
    if stored is not None and over and not raised_limits(stored, config):
        log.info("this sweep is finished; raise --trials or a budget to go on")
        return Outcome("finished", paths.root, before, uri, request.place, plan)

    paths.root.mkdir(parents=True, exist_ok=True)
    with sweep_lock(paths), contextlib.closing(EventLog(paths.spool)) as spool:
        write_text(paths.config, manifest_toml(request, facts, uri))
        if own and request.code is not None:
            copy_code(own, request.code, paths.code)
            use_code(paths.code)
        study = open_study(config.name, request.storage or paths.study, config, space)
        summary = Summary(paths, config, facts["evaluator"])
        spool.artifact(None, paths.config)
        if request.courier:
            spool.settled = request.courier.sealed
            request.courier.carry()  # the sweep's id is known before MLflow hears of it
        shipper = start_exporter(paths, config, spool, uri, facts, space.hash)
        listeners = (EventLogCallback(spool, paths), summary)
        spent = float(before.get("wall_seconds", 0.0))
        ledger = TrialManager(study, space, config, paths, listeners, spent)
        summary.ledger = ledger
        ledger.replay()
        summary.write(force=True)
        with WebhookNotifier(request.notify, config.name, summary.content) as notifier:
            first = (FetchTrialFiles(request.courier, paths),) if request.courier else ()
            ledger.listeners = (*first, *listeners, notifier)
            ledger.before_end = StudyArtifacts(paths).hang
            try:
                found = run_search(
                    ledger, dataset, evaluator, code=request.code, url=request.url, live=request.live,
                    bring_folder=request.courier.bring_folder if request.courier else None,
                )  # fmt: skip
                if ledger.interrupted:
                    return close_sweep(summary, "interrupted", request, spool, shipper, uri)
                finalize(request, ledger, summary, dataset, evaluator, found, shipper, uri)
                return close_sweep(summary, "finished", request, spool, shipper, uri)
            except BaseException as error:
                close_sweep(summary, "failed", request, spool, shipper, uri)
                if no_space(error, paths.root):
                    again = f"free some, then: gansweep resume {request.place}"
                    raise GansweepError(f"the disk is full: {again}") from error
                raise


def resume_sweep(place: Path | str, changes: dict[str, Any], **more: Any) -> Outcome:
    """Go on with the sweep in a folder or a store; `changes` to its SweepConfig are limited to `MAY_GROW`.

    Raises:
        SweepError: there is no sweep.
    """
    if is_url(str(place)):
        more["store"], _ = parent_url(str(place))
        root = sweep_toml(str(place)).resolve()
    else:
        root = Path(place)
    stored = read_manifest(SweepPaths(root))
    if stored is None:
        raise SweepError(
            "a sweep's folder holds a sweep.toml", seen=str(root), fix="name the folder that `run` made"
        )
    config = SweepConfig.from_dict({**stored["sweep"], **changes})
    check_gpus(
        config.gpus_per_trial, fix="go on by the `gansweep run` that it began with, and --gpus-per-trial 1"
    )
    kept = stored["registry"]
    for address in ("tracking_uri", "storage"):
        known = kept.get(address, "")
        more[address] = more.get(address) or ("" if "***" in known else known)
    return run_sweep(
        Request(
            space=space_from_tables(stored["space"], "sweep.toml"),
            config=config,
            out=root.resolve().parent,
            register=kept["name"] or None,
            code=root / "code",
            promote=kept.get("promote", CHAMPION),
            **more,
        )
    )


def _unregistered(summary: dict[str, Any], request: Request) -> bool:
    """Whether a sweep is over but for its champion, which a registry or a disk did not take."""
    return bool(request.register and summary.get("best") and not summary.get("registered"))


def _plan(
    request: Request, dataset: Dataset, evaluator: frechet.Evaluator, uri: str
) -> tuple[tuple[str, str], ...]:
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
