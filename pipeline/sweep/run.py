"""A whole sweep: from a request to a registered champion, and on again after an interruption.

Responsible for the order of the steps; each is a module of its own.
"""

from __future__ import annotations

import logging

from pipeline.cluster.connection import connected
from pipeline.cluster.runner import ray_search
from pipeline.cluster.stop_signals import StopSignals
from pipeline.errors import GansweepError
from pipeline.search.study_database import check_storage
from pipeline.storage.fault_points import check_fault_point, reach
from pipeline.storage.files import no_space
from pipeline.storage.summary_file import SweepSummary, read_summary
from pipeline.storage.uploader import Uploader
from pipeline.sweep.finalize import close_sweep, complete_finished, finalize
from pipeline.sweep.inputs import load_inputs
from pipeline.sweep.manifest import Manifest, check_same_request, raised_limits, read_manifest
from pipeline.sweep.open_sweep import OpenSweep, open_sweep
from pipeline.sweep.plan import check_free_space, plan_sweep
from pipeline.sweep.preflight import check_cluster, check_request, check_tracking
from pipeline.sweep.remains import check_stores_remain, keep_addresses
from pipeline.sweep.remote import uploaded_sweep
from pipeline.sweep.request import Request
from pipeline.sweep.result import Result
from pipeline.sweep.space_choice import facts_of_sweep, resolve_for_images
from pipeline.tracking.event_log import has_finished
from pipeline.tracking.tracking_uri import default_uri
from pipeline.training.finalists import Finalist

log = logging.getLogger(__name__)


def run_sweep(request: Request) -> Result:
    """Search, measure the finalists, register the best; or go on with the sweep that exists.

    Raises:
        UserError: before anything is written, where the request cannot be carried out.
    """
    check_fault_point()
    check_request(request)
    with connected(request.config.address):
        check_cluster(request)
        with uploaded_sweep(request) as uploader:
            return _run(request, uploader)


def _run(request: Request, uploader: Uploader) -> Result:
    """The sweep, once it is known that this machine and the cluster can run it."""
    paths = request.paths
    manifest = read_manifest(paths)
    uri = request.tracking_uri or default_uri(request.out)
    _check_stores(request, manifest, uri)
    request, inputs = load_inputs(request, manifest)
    check_free_space(request, inputs, new=manifest is None)
    if request.dry_run:
        plan = plan_sweep(request, inputs, uri, new=manifest is None)
        return Result.of(request, "planned", uri, plan=plan)
    before = read_summary(paths.summary)
    if manifest and before and _is_over(request, manifest, before):
        log.info("this sweep is finished; raise --trials or a budget to go on")
        keep_addresses(request, manifest, inputs.facts, uri)
        complete_finished(request, uri)
        return Result.of(request, "finished", uri, before)
    with open_sweep(request, inputs, uploader, uri, before.wall_seconds if before else 0.0) as sweep:
        return _search(sweep)


def _check_stores(request: Request, manifest: Manifest | None, uri: str) -> None:
    """Compare the request with the sweep that exists; reach the tracking server and the study's database."""
    if manifest is not None:
        check_same_request(manifest, resolve_for_images(request, facts_of_sweep(manifest.facts)))
    new = manifest is None
    check_tracking(uri, new=new, register=request.register)
    check_storage(request.storage, request.config.name, new=new, out=request.out, tracking_uri=uri)
    if manifest is not None:
        check_stores_remain(request, manifest, uri)


def _is_over(request: Request, manifest: Manifest, before: SweepSummary) -> bool:
    """Whether nothing is left to do: no limit is raised, and everything that was asked for is there.

    Earlier versions wrote `finished` before the report and the last event: those are not taken as over.
    """
    unregistered = bool(request.register and before.best and not before.registered)
    over = before.state == "finished" and not unregistered and has_finished(request.paths.event_log)
    return over and not raised_limits(manifest.config, request.config)


def _search(sweep: OpenSweep) -> Result:
    """Search, and close the sweep however the search ends."""
    manager = sweep.manager
    with StopSignals(manager) as signals:
        try:
            found = _find_winner(sweep, signals)
            if manager.interrupted:
                signals.closing()
                return close_sweep(sweep, "interrupted")
            signals.searched()
            undone = finalize(sweep, found)
            signals.closing()
            return close_sweep(sweep, "failed" if undone else "finished", undone)
        except (KeyboardInterrupt, SystemExit):  # Ray's handler of SIGTERM exits while Ray starts
            signals.closing()
            return close_sweep(sweep, "interrupted")
        except BaseException as error:
            signals.closing()
            if manager.interrupted:  # the signal went to Ray's processes as well, as that of `timeout` does
                log.warning(f"while stopping: {type(error).__name__}: {error}")
                return close_sweep(sweep, "interrupted")
            close_sweep(sweep, "failed")
            if no_space(error, sweep.request.paths.root):
                again = f"free some, then: {sweep.request.resume_command(sweep.uri)}"
                raise GansweepError(f"the disk is full: {again}") from error
            raise


def _find_winner(sweep: OpenSweep, signals: StopSignals) -> list[Finalist]:
    """Run the trials, then measure the finalists; the best first."""
    request, inputs, manager = sweep.request, sweep.inputs, sweep.manager
    with ray_search(manager, request.url) as search:
        signals.ray_started()
        search.run(
            inputs.dataset,
            inputs.evaluator,
            inputs.code,
            live=request.live,
            fetch_folder=sweep.uploader.fetch_folder,
        )
        if manager.interrupted:
            return []
        sweep.summary.write()  # with the time that the search took: a resume asks for no more trials
        reach("searched")
        return search.measure_finalists()
