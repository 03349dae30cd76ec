"""The whole run: from a request to a registered champion, and on again after an interruption.

Owns: the order of things, `sweep.toml`, the lock, signals, Ray's start and end. Refuses: the details of
any of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shlex
import shutil
import signal
import socket
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import evaluation, features, fid, registry, report, spaces
from pipeline.config import SweepConfig, SweepPaths, TrialConfig, check_names
from pipeline.data import Dataset, load
from pipeline.errors import ConfigError, RegistryError, SweepError
from pipeline.files import read_json, write_text
from pipeline.networks import ImageShape, build
from pipeline.search import Ledger, StudyScheduler, StudySearcher, StudyStopper, open_study, rank
from pipeline.spaces import Space, toml
from pipeline.summary import Summary
from pipeline.tracker import (
    Shipper,
    Spool,
    check_server,
    default_artifacts,
    default_uri,
    provenance,
    redact,
)
from pipeline.tracker.listener import Tracker
from pipeline.view import View

MAY_GROW = (
    "trials",
    "time_budget_sec",
    "gpu_hours",
    "cpus_per_trial",
    "gpus_per_trial",
    "concurrency",
    "address",
)
"""What a resume may change: how much is searched and with what, never what is searched or how it is judged."""

RETRIES = 2
"""A trial whose worker died or raised is taken up again from its checkpoint this many times."""

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "10",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours below knows what to save
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",  # a trial leaves at its next step, however long that is
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's own snapshot is not used
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
}


@dataclass(frozen=True)
class Request:
    """What one call asks for. say: told each step in a line. register: a model's name, or None."""

    space: Space
    config: SweepConfig
    out: Path
    register: str | None
    tracking_uri: str = ""
    storage: str = ""
    dry_run: bool = False
    live: bool = False
    say: Callable[[str], None] = print

    @property
    def paths(self) -> SweepPaths:
        return SweepPaths((self.out / self.config.name).resolve())


@dataclass(frozen=True)
class Outcome:
    """What came of it. state: `finished`, `interrupted`, `failed` or `planned` (a dry run)."""

    state: str
    root: Path
    summary: dict[str, Any]
    tracking_uri: str
    plan: tuple[tuple[str, str], ...] = ()


def run(request: Request) -> Outcome:
    """Search, measure the finalists, register the best; or go on with the sweep that is there.

    Raises:
        UserError: before anything is written, where the request cannot be carried out.
    """
    paths, config, space, say = request.paths, request.config, request.space, request.say
    stored = _stored(paths)
    if stored is not None:
        _refuse_differences(stored, request)
    uri = request.tracking_uri or default_uri(request.out)
    _check_tracking(uri, new=stored is None, say=say)
    say(f"images: {config.data}")
    dataset = load(config.data, image_size=config.image_size, say=say)
    check_space(space, dataset)
    extractor = features.build(config.extractor, dataset, weights=config.extractor_weights, say=say)
    evaluator = fid.build_evaluator(dataset, extractor, config.fid_samples, say=say)
    facts = _facts(dataset, evaluator)
    if stored is not None:
        _refuse_other_data(stored, facts)
    plan = _plan(request, dataset, evaluator, uri)
    if request.dry_run:
        return Outcome("planned", paths.root, {}, uri, plan)
    before = read_json(paths.summary)
    if stored is not None and before.get("state") == "finished" and not _grown(stored, config):
        say("this sweep is finished; raise --trials or a budget to go on")
        return Outcome("finished", paths.root, before, uri, plan)

    paths.root.mkdir(parents=True, exist_ok=True)
    with _locked(paths), contextlib.closing(Spool(paths.spool)) as spool:
        write_text(paths.config, _sweep_toml(request, facts, uri))
        study = open_study(config.name, request.storage or paths.study, config, space)
        summary = Summary(paths, config, facts["evaluator"])
        shipper = _ship(request, spool, uri, facts)
        listeners = (Tracker(spool, paths), summary)
        ledger = Ledger(study, space, config, paths, listeners, float(before.get("wall_seconds", 0.0)))
        summary.ledger = ledger
        ledger.replay()
        summary.write(force=True)
        try:
            with View(paths, live=request.live, say=say):
                _search(request, ledger, dataset, evaluator)
            if ledger.interrupted:
                return _close(summary, "interrupted", request, spool, shipper, uri)
            _finish(request, ledger, summary, dataset, evaluator, spool, shipper, uri)
            return _close(summary, "finished", request, spool, shipper, uri)
        except BaseException:
            _close(summary, "failed", request, spool, shipper, uri)
            raise


def resume(root: Path, changes: dict[str, Any], **more: Any) -> Outcome:
    """Go on with the sweep in `root`; `changes` to its SweepConfig are limited to `MAY_GROW`.

    Raises:
        SweepError: there is no sweep in `root`.
    """
    stored = _stored(SweepPaths(root))
    if stored is None:
        raise SweepError(
            "a sweep's folder holds a sweep.toml", seen=str(root), fix="name the folder that `run` made"
        )
    config = SweepConfig.from_dict({**stored["sweep"], **changes})
    kept = stored["registry"]
    uri = more.pop("tracking_uri", "") or ("" if "***" in kept["tracking_uri"] else kept["tracking_uri"])
    return run(
        Request(
            space=spaces.from_tables(stored["space"], "sweep.toml"),
            config=config,
            out=root.resolve().parent,
            register=kept["name"] or None,
            tracking_uri=uri,
            **more,
        )
    )


def check_space(space: Space, dataset: Dataset) -> None:
    """Build G and D of every architecture and conditioning that the space can draw, on these images.

    Raises:
        ConfigError: one of them cannot be.
    """
    shape = ImageShape(dataset.size, dataset.channels, len(dataset.classes) if dataset.labelled else 0)
    names = ("architecture", "conditional")
    options = [_possible(space, name) for name in names]
    for architecture in options[0]:
        for conditional in options[1]:
            small = TrialConfig(architecture=architecture, conditional=conditional, width_g=2, width_d=2)
            build(small, shape)


def _possible(space: Space, name: str) -> tuple[Any, ...]:
    if name in space.search:
        return space.search[name].choices
    return (space.fixed.get(name, TrialConfig.fields()[name].default),)


# ---- the search


def _search(request: Request, ledger: Ledger, dataset: Dataset, evaluator: fid.Evaluator) -> None:
    """Let Ray run trials until the ledger asks for no more."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    import ray
    from ray import tune

    from pipeline import node, worker

    paths, config = request.paths, request.config
    paths.stop.unlink(missing_ok=True)
    with _signals(ledger, paths, request.say), _ray(config.address):
        cpus, gpus, concurrency = _resources(config, ray.cluster_resources())
        ledger.gpus_per_trial = gpus
        trainable = tune.with_parameters(
            worker.train,
            fixed={**request.space.fixed, "seed": config.seed},
            root=str(paths.root),
            threads=max(1, int(cpus)),
            lent=node.lend(dataset, evaluator),
        )
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                metric="objective",
                mode="min",
                search_alg=StudySearcher(ledger),
                scheduler=StudyScheduler(ledger),
                num_samples=-1,
                max_concurrent_trials=concurrency,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(paths.root),
                stop=StudyStopper(ledger),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    paths.stop.unlink(missing_ok=True)
    shutil.rmtree(paths.ray, ignore_errors=True)
    ledger.close()


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    """Ray for the length of the search: one of our own, or the cluster at `address`; ends what it began."""
    import ray

    local = {"include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _signals(ledger: Ledger, paths: SweepPaths, say: Callable[[str], None]) -> Iterator[None]:
    """SIGINT or SIGTERM once: trials leave at their next step and stay resumable; twice: at once."""

    def stop(number: int, frame: object) -> None:
        if ledger.interrupted:
            os._exit(130)
        ledger.interrupted, ledger.reason = True, "interrupted"
        paths.stop.touch()
        say("stopping: trials leave at their last tick (again to leave at once)")

    kept = {sign: signal.signal(sign, stop) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in kept.items():
            signal.signal(sign, handler)


def _resources(config: SweepConfig, cluster: dict[str, float]) -> tuple[float, float, int]:
    """CPUs and GPUs of one trial, and how many run at a time.

    Raises:
        ConfigError: the cluster can never run one such trial.
    """
    cpus, gpus = config.cpus_per_trial, config.gpus_per_trial
    if gpus < 0:
        gpus = 1.0 if cluster.get("GPU", 0) else 0.0
    fits = [cluster.get("CPU", 0.0) // cpus, *([cluster.get("GPU", 0.0) // gpus] if gpus else [])]
    most = int(min(fits))
    if most < 1:
        raise ConfigError(
            f"one trial ({cpus:g} CPU, {gpus:g} GPU) fits into the cluster",
            seen=f"{cluster.get('CPU', 0):g} CPU, {cluster.get('GPU', 0):g} GPU",
            fix="lower --cpus-per-trial or --gpus-per-trial",
        )
    return cpus, gpus, min(config.concurrency or most, most)


# ---- after the search


def _finish(
    request: Request,
    ledger: Ledger,
    summary: Summary,
    dataset: Dataset,
    evaluator: fid.Evaluator,
    spool: Spool,
    shipper: Shipper,
    uri: str,
) -> None:
    """Measure the best trials again, choose by that, register the winner."""
    leaders = [entry for entry in rank(ledger.entries.values()) if entry.best][: request.config.finalists]
    if not leaders:
        request.say("no trial has a fid: nothing to register")
        return
    folders = {entry.number: request.paths.trial(entry.number) for entry in leaders}
    request.say(f"finalists: measuring {len(folders)} again with fresh latents")
    finals = evaluation.finalists(folders, dataset, evaluator, seed=request.config.seed)
    rows = [_final_row(final, ledger) for final in finals]
    summary.extra["finalists"] = rows
    summary.write(force=True)
    winner = finals[0]
    facts = {
        **rows[0]["best"],
        **rows[0]["measurement"],
        "withhold": list(winner.measurement.verdicts),
        "sweep": request.config.name,
        "data": request.config.data,
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.classes),
        "space": request.space.hash,
        "search_seed": request.config.seed,
        "seconds": ledger.entries[winner.trial].records[-1].train_seconds,
        **provenance(),
    }
    registry.pack(winner.generator, request.paths.packed, facts)
    if request.register is not None:
        summary.extra["registered"] = _register(request, shipper, winner.trial, facts, uri)


def _register(
    request: Request, shipper: Shipper, trial: int, facts: dict[str, Any], uri: str
) -> dict[str, Any] | None:
    """Register the packed winner; a registry that is away costs the sweep nothing but this step."""
    shipper.flush(timeout=60.0)
    run = shipper.trial_run_id(trial)
    try:
        done = registry.register(
            request.paths.packed, tracking_uri=uri, name=str(request.register), facts=facts, run_id=run
        )
    except RegistryError as error:
        again = shlex.quote(os.path.relpath(request.paths.root))
        request.say(f"warning: not registered: {error}; later: gansweep register {again}")
        return None
    request.say(f"registered {done.uri}: {done.reason}")
    return dataclasses.asdict(done)


def _final_row(final: evaluation.Final, ledger: Ledger) -> dict[str, Any]:
    entry = ledger.entries[final.trial]
    assert entry.best is not None
    return {
        "best": {
            "trial": final.trial,
            "fid": final.measurement.fid,
            "search_fid": entry.best.fid,
            "balance": entry.best.balance,
            "kimg": entry.best.kimg,
            "params": entry.params,
        },
        "measurement": final.measurement.to_dict(),
    }


def _close(
    summary: Summary, state: str, request: Request, spool: Spool, shipper: Shipper, uri: str
) -> Outcome:
    """Write the last summary and the report, and bring MLflow up to date."""
    summary.state = state
    summary.write(force=True)
    best = summary.content()["best"] or {}
    status = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[state]
    numbers = {
        f"best_{k}": float(best[k]) for k in ("fid", "balance", "kimg", "trial") if best.get(k) is not None
    }
    if state == "finished":
        report.build(request.paths.root)
        spool.artifact(None, request.paths.report)
    spool.finish(status, numbers, {"gansweep.state": state})
    if not shipper.close(timeout=30.0):
        request.say(f"MLflow is {shipper.status}; the spool keeps the rest for the next run or resume")
    return Outcome(state, request.paths.root, summary.content(), uri)


# ---- what is kept in sweep.toml


def _facts(dataset: Dataset, evaluator: fid.Evaluator) -> dict[str, dict[str, Any]]:
    return {
        "data": {
            "source": dataset.source,
            "fingerprint": dataset.fingerprint,
            "size": dataset.size,
            "channels": dataset.channels,
            "classes": list(dataset.classes),
            "train": len(dataset.train),
            "held_out": len(dataset.held),
        },
        "evaluator": {
            "extractor": evaluator.extractor_name,
            "hash": evaluator.hash,
            "samples": evaluator.samples,
        },
    }


def _sweep_toml(request: Request, facts: dict[str, dict[str, Any]], uri: str) -> str:
    kept = {"name": request.register or "", "tracking_uri": redact(uri)}
    tables = {"sweep": request.config.to_dict(), **facts, "registry": kept}
    blocks = [
        f"[{t}]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in rows.items()) for t, rows in tables.items()
    ]
    return "# Written by gansweep: one resolved sweep.\n\n" + "\n".join(
        [*blocks, request.space.to_toml("space.")]
    )


def _stored(paths: SweepPaths) -> dict[str, Any] | None:
    """What sweep.toml says, or None for a new sweep."""
    if not paths.config.is_file():
        if paths.root.is_dir() and any(p for p in paths.root.iterdir() if p.name != "lock"):
            raise SweepError(
                "a new sweep's folder is empty", seen=str(paths.root), fix="choose another --name or --out"
            )
        return None
    try:
        stored = tomllib.loads(paths.config.read_text(encoding="utf-8"))
        check_names(stored["sweep"], SweepConfig.fields())
        spaces.from_tables(stored["space"], "sweep.toml")
        stored["data"]["fingerprint"], stored["evaluator"]["hash"], stored["registry"]["name"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SweepError(
            "sweep.toml is as gansweep wrote it", seen=f"{paths.config}: {error}", fix="choose another --name"
        ) from error
    return stored


def _refuse_differences(stored: dict[str, Any], request: Request) -> None:
    ours = {k: v for k, v in request.config.to_dict().items() if k not in MAY_GROW and k != "space"}
    keys = [f"sweep.{key}" for key, value in ours.items() if stored["sweep"].get(key, value) != value]
    keys += request.space.differences(spaces.from_tables(stored["space"], "sweep.toml"))
    if keys:
        raise SweepError(
            f"a sweep goes on as it began ({request.paths.root.name} exists)",
            seen="other values of " + ", ".join(keys),
            fix="choose another --name, or give the same values",
        )


def _refuse_other_data(stored: dict[str, Any], facts: dict[str, dict[str, Any]]) -> None:
    pairs = (("data", "fingerprint"), ("evaluator", "hash"))
    keys = [f"{table}.{key}" for table, key in pairs if stored[table][key] != facts[table][key]]
    if keys:
        raise SweepError(
            "a sweep goes on with the images and the evaluator it began with",
            seen="another " + ", ".join(keys),
            fix="choose another --name",
        )


def _grown(stored: dict[str, Any], config: SweepConfig) -> bool:
    """Whether more is asked for than when the sweep ended."""
    was = stored["sweep"]
    now = config.to_dict()
    more = [now[k] > was[k] for k in ("trials",)]
    more += [
        now[k] != was[k] and (now[k] == 0 or now[k] > was[k] > 0) for k in ("time_budget_sec", "gpu_hours")
    ]
    return any(more)


def _plan(
    request: Request, dataset: Dataset, evaluator: fid.Evaluator, uri: str
) -> tuple[tuple[str, str], ...]:
    config, full = request.config, request.space.config({})
    labels = f", {len(dataset.classes)} classes" if dataset.labelled else ""
    budget = f"{config.trials} trials of at most {full.kimg} kimg"
    budget += f", {config.time_budget_sec:g} s" if config.time_budget_sec else ""
    size = f"{dataset.size}x{dataset.size}x{dataset.channels}"
    return (
        ("sweep", str(request.paths.root)),
        ("images", f"{len(dataset.train)} + {len(dataset.held)} held out, {size}{labels}"),
        ("space", f"{config.space} ({len(request.space.search)} searched, hash {request.space.hash})"),
        ("search", f"{config.sampler} + {config.pruner}, {budget}"),
        ("fid", f"{evaluator.extractor_name}, {evaluator.samples} samples, evaluator {evaluator.hash}"),
        ("tracking", redact(uri)),
        ("registers", request.register or "nothing"),
    )


def _check_tracking(uri: str, *, new: bool, say: Callable[[str], None]) -> None:
    try:
        check_server(uri)
    except RegistryError as error:
        if new:
            raise
        say(f"warning: {error}; records stay in the spool until it answers")


def _ship(request: Request, spool: Spool, uri: str, facts: dict[str, dict[str, Any]]) -> Shipper:
    tags = {
        **provenance(),
        **{f"{table}.{key}": str(value) for table, rows in facts.items() for key, value in rows.items()},
        "space.hash": request.space.hash,
    }
    spool.artifact(None, request.paths.config)
    return Shipper(
        request.paths.root,
        spool,
        uri,
        experiment=f"gansweep/{request.config.name}",
        artifact_location=default_artifacts(uri),
        parent_tags=tags,
        parent_params=dataclasses.asdict(request.config),
    )


@contextlib.contextmanager
def _locked(paths: SweepPaths) -> Iterator[None]:
    """Hold the sweep's folder; a second process is told who does. The kernel lets go when a process dies."""
    with paths.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise SweepError(
                "one process works on a sweep",
                seen=f"{paths.root.name} held by {file.read().strip() or 'another'}",
                fix="wait for it, or stop it",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
