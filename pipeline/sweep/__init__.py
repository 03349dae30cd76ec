"""The whole run: from a request to a registered champion, and on again after an interruption.

Owns: the order of things (request: what is asked; checks: what must hold; stored: sweep.toml; lock, shipping;
remote: a sweep in an object store; cluster: what runs on Ray; finale: what comes after). Refuses: the details
of any of them.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from pipeline import features, fid, networks, registry, spaces, stores
from pipeline.config import SweepConfig, SweepPaths
from pipeline.contract import read_summary
from pipeline.data import Dataset, load
from pipeline.errors import GansweepError, SweepError
from pipeline.files import no_space, write_text
from pipeline.gallery import Gallery
from pipeline.notify import Notifier
from pipeline.resources import check_gpus
from pipeline.search import Ledger, open_study
from pipeline.summary import Summary
from pipeline.sweep.checks import (
    check_cluster,
    check_request,
    check_space,
    check_storage,
    check_tracking,
    on_images,
    possible,
)
from pipeline.sweep.cluster import try_largest, work
from pipeline.sweep.connect import connected
from pipeline.sweep.disk import disk_needed
from pipeline.sweep.finale import close, finish
from pipeline.sweep.lock import held
from pipeline.sweep.remote import Bringer, carried
from pipeline.sweep.request import Outcome, Request
from pipeline.sweep.shipping import ship
from pipeline.sweep.stored import (
    facts_of,
    grown,
    read_stored,
    refuse_differences,
    refuse_other_data,
    sweep_toml,
)
from pipeline.tracker import Spool, default_uri, redact
from pipeline.tracker.listener import Tracker

__all__ = ["Outcome", "Request", "check_space", "resume", "run"]


def run(request: Request) -> Outcome:
    """Search, measure the finalists, register the best; or go on with the sweep that is there.

    Raises:
        UserError: before anything is written, where the request cannot be carried out.
    """
    check_request(request)
    with connected(request.config.address):
        check_cluster(request)
        with carried(request) as request:
            return _run(request)


def _run(request: Request) -> Outcome:
    """The whole run, once this machine and the cluster can carry it."""
    paths, config, say = request.paths, request.config, request.say
    stored = read_stored(paths)
    if stored is not None:
        seen = stored["data"]
        refuse_differences(stored, on_images(request, seen["size"], bool(seen["classes"])))
    uri = request.tracking_uri or default_uri(request.out)
    check_tracking(uri, new=stored is None, say=say)
    check_storage(request.storage, config.name, new=stored is None)
    say(f"images: {config.data}")
    dataset = load(config.data, image_size=config.image_size, say=say)
    request = on_images(request, dataset.size, dataset.labelled)
    space = request.space
    own = networks.hashes([*possible(space, "architecture"), config.extractor], request.code)
    networks.use_code(request.code)
    check_space(space, dataset)
    extractor = features.build(
        config.extractor, dataset, weights=config.extractor_weights, code=request.code, say=say
    )
    evaluator = fid.build_evaluator(dataset, extractor, config.fid_samples, say=say)
    facts = {**facts_of(dataset, evaluator), **({"code": own} if own else {})}
    if stored is not None:
        refuse_other_data(stored, facts)
    plan = _plan(request, dataset, evaluator, uri)
    if request.dry_run:
        plan += try_largest(request, dataset, evaluator) if request.measure else ()
        return Outcome("planned", paths.root, {}, uri, request.place, plan)
    before = read_summary(paths.summary)
    over = before.get("state") == "finished" and not _unregistered(before, request)
    if stored is not None and over and not grown(stored, config):
        say("this sweep is finished; raise --trials or a budget to go on")
        return Outcome("finished", paths.root, before, uri, request.place, plan)

    paths.root.mkdir(parents=True, exist_ok=True)
    with held(paths), contextlib.closing(Spool(paths.spool, say)) as spool:
        write_text(paths.config, sweep_toml(request, facts, uri))
        if own and request.code is not None:
            networks.copy_code(own, request.code, paths.code)
            networks.use_code(paths.code)
        study = open_study(config.name, request.storage or paths.study, config, space, say)
        summary = Summary(paths, config, facts["evaluator"], say)
        spool.artifact(None, paths.config)
        if request.courier:
            spool.settled = request.courier.sealed
            request.courier.carry()  # the sweep's id is known before MLflow hears of it
        shipper = ship(paths, config, spool, uri, facts, space.hash)
        listeners = (Tracker(spool, paths), summary)
        spent = float(before.get("wall_seconds", 0.0))
        ledger = Ledger(study, space, config, paths, listeners, spent, say)
        summary.ledger = ledger
        ledger.replay()
        summary.write(force=True)
        with Notifier(request.notify, config.name, say, summary.content) as notifier:
            first = (Bringer(request.courier, paths),) if request.courier else ()
            ledger.listeners = (*first, *listeners, notifier)
            ledger.before_end = Gallery(paths).hang
            try:
                found = work(request, ledger, dataset, evaluator)
                if ledger.interrupted:
                    return close(summary, "interrupted", request, spool, shipper, uri)
                finish(request, ledger, summary, dataset, evaluator, found, shipper, uri)
                return close(summary, "finished", request, spool, shipper, uri)
            except BaseException as error:
                close(summary, "failed", request, spool, shipper, uri)
                if no_space(error, paths.root):
                    again = f"free some, then: gansweep resume {request.place}"
                    raise GansweepError(f"the disk is full: {again}") from error
                raise


def resume(place: Path | str, changes: dict[str, Any], **more: Any) -> Outcome:
    """Go on with the sweep in a folder or a store; `changes` to its SweepConfig are limited to `MAY_GROW`.

    Raises:
        SweepError: there is no sweep.
    """
    if stores.is_url(str(place)):
        more["store"], _ = stores.parent(str(place))
        root = stores.sweep_toml(str(place)).resolve()
    else:
        root = Path(place)
    stored = read_stored(SweepPaths(root))
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
    return run(
        Request(
            space=spaces.from_tables(stored["space"], "sweep.toml"),
            config=config,
            out=root.resolve().parent,
            register=kept["name"] or None,
            code=root / "code",
            promote=kept.get("promote", registry.CHAMPION),
            **more,
        )
    )


def _unregistered(summary: dict[str, Any], request: Request) -> bool:
    """Whether a sweep is over but for its champion, which a registry or a disk did not take."""
    return bool(request.register and summary.get("best") and not summary.get("registered"))


def _plan(
    request: Request, dataset: Dataset, evaluator: fid.Evaluator, uri: str
) -> tuple[tuple[str, str], ...]:
    config, full = request.config, request.space.config({})
    labels = f", {len(dataset.classes)} classes" if dataset.labelled else ""
    budget = f"{config.trials} trials of at most {full.kimg} kimg"
    budget += f", {config.time_budget_sec:g} s" if config.time_budget_sec else ""
    size = f"{dataset.size}x{dataset.size}x{dataset.channels}"
    shape = networks.ImageShape(dataset.size, dataset.channels, len(dataset.classes))
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
