"""sweep.toml: the resolved settings of a sweep, and the comparison of a later call with them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import SWEEP_HEAD, SweepConfig, SweepPaths, names_file
from pipeline.errors import SweepError, redact
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import space_from_tables
from pipeline.search.space.toml import dump_toml
from pipeline.storage.addresses import parse_source, sqlite_path
from pipeline.storage.moved_sweep import damaged, read_sweep_toml, with_relative_addresses
from pipeline.storage.summary_file import FidEvaluator, no_sweep
from pipeline.sweep.request import Request
from pipeline.tracking.registry.names import CHAMPION

MAY_GROW = (
    *("trials", "time_budget_sec", "gpu_hours", "cost_budget", "price", "max_failures", "target_fid"),
    "until_plateau",
    *("hang_after_sec", "wait_sec", "cpus_per_trial", "gpus_per_trial", "require", "concurrency", "address"),
)
"""Settings that a resume may change: how much is searched and on which machines, not what is searched or how
it is measured."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The table [data] of sweep.toml.

    size: of an image in pixels. train, held_out: numbers of images. smallest_class: see `ImageFacts`.
    """

    source: str = ""
    fingerprint: str
    size: int = 0
    channels: int = 0
    classes: list[str] = field(default_factory=list)
    train: int = 0
    held_out: int = 0
    smallest_class: int = 0


@dataclass(frozen=True, kw_only=True)
class SweepFacts:
    """What a sweep trains and measures with.

    device: what its trials trained on when it began, cpu or gpu, for which its space was made; a resume may
    train on the other. code: SHA-256 of the user's own modules, by their names.
    """

    data: DataFacts
    evaluator: FidEvaluator
    device: str = "cpu"
    code: Mapping[str, str] = field(default_factory=dict)

    def tables(self) -> dict[str, Mapping[str, object]]:
        """The tables of sweep.toml that describe it; no table `code` where the sweep has none."""
        tables: dict[str, Mapping[str, object]] = {"data": vars(self.data), "evaluator": vars(self.evaluator)}
        tables["machine"] = {"device": self.device}
        return {**tables, "code": self.code} if self.code else tables


@dataclass(frozen=True, kw_only=True)
class RegistryFacts:
    """The table [registry] of sweep.toml; see `Request`. In its addresses passwords are `***`.

    folder: where the sweep lay when it was last run; "" for one in an object store, whose addresses are those
    of the machine that ran it.
    """

    name: str
    promote: str = CHAMPION
    tracking_uri: str = ""
    storage: str = ""
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of sweep.toml; its addresses are absolute, and relative in the file (`moved_sweep`)."""

    config: SweepConfig
    space: Space
    facts: SweepFacts
    registry: RegistryFacts

    def to_toml(self) -> str:
        rows = {"sweep": self.config.to_dict(), **self.facts.tables(), "registry": vars(self.registry)}
        if self.registry.folder:
            rows = with_relative_addresses(rows, Path(self.registry.folder))
        return f"{SWEEP_HEAD}: one resolved sweep.\n\n" + dump_toml({**rows, "space": self.space.tables()})


def manifest_of(request: Request, facts: SweepFacts, uri: str) -> Manifest:
    """The manifest of a sweep. uri: the MLflow store."""
    registry = RegistryFacts(
        name=request.register or "",
        promote=request.promote,
        tracking_uri=_without_password(uri),
        storage=_without_password(request.storage),
        folder="" if request.store else str(request.paths.root),
    )
    return Manifest(config=request.config, space=request.space, facts=facts, registry=registry)


def _without_password(address: str) -> str:
    return address if sqlite_path(address) else redact(address)  # a file may be called token=1


def read_manifest(paths: SweepPaths) -> Manifest | None:
    """The manifest of the sweep in a folder, or None for a new sweep.

    Raises:
        SweepError: sweep.toml is damaged, or is missing in a folder that is not empty.
    """
    if not os.path.isfile(paths.config):  # also where its path cannot be one
        listed = os.path.isdir(paths.root) and os.access(paths.root, os.R_OK)
        if listed and any(path for path in paths.root.iterdir() if path.name != "lock"):
            raise not_empty("folder", str(paths.root))
        return None
    try:
        tables = read_sweep_toml(paths)
        return Manifest(  # a key that an earlier version did not write has its default
            config=SweepConfig.from_dict(tables["sweep"]),
            space=space_from_tables(tables["space"], "sweep.toml"),
            facts=SweepFacts(
                data=DataFacts(**tables["data"]),
                evaluator=FidEvaluator(**tables["evaluator"]),
                device=tables.get("machine", {}).get("device", "cpu"),
                code=tables.get("code", {}),
            ),
            registry=RegistryFacts(**tables["registry"]),
        )
    except (KeyError, TypeError) as error:
        raise damaged(paths.config, error) from error


def not_empty(kind: str, place: str) -> SweepError:
    """The error for a new sweep's folder or address with files that no sweep has written."""
    return SweepError(
        "{seen} holds other files",
        rule=f"the {kind} of a new sweep must be empty",
        seen=place,
        fix="choose another --name or --out",
    )


def read_existing(root: Path | str, paths: SweepPaths) -> Manifest:
    """The manifest of the sweep in `paths`, which the user named `root`; SweepError where there is none."""
    manifest = read_manifest(paths)
    if manifest is None:
        raise no_sweep(root, "sweep.toml")
    return manifest


def check_same_request(manifest: Manifest, request: Request) -> None:
    """Compare a request with the sweep that exists; settings of `MAY_GROW` may differ.

    Raises:
        SweepError: other settings, another space, or another kind of study.
    """
    before, free = (
        manifest.config.to_dict(),
        {*MAY_GROW, "space", *_moved_keys(manifest.config, request.config)},
    )
    keys = [
        f"sweep.{key}"
        for key, value in request.config.to_dict().items()
        if key not in free and before[key] != value
    ]
    keys += request.space.differences(manifest.space)
    storage = manifest.registry.storage
    if bool(storage) != bool(request.storage):
        raise SweepError(
            "the sweep began with another study",
            rule="a sweep must go on with the study it began with",
            seen=redact(request.storage) if request.storage else "no --storage",
            fix=f"give --storage {storage} (or GANSWEEP_STORAGE) again" if storage else "leave out --storage",
        )
    if keys:
        resume = f"gansweep resume {shlex.quote(request.location)}"
        raise SweepError(
            f"the sweep {request.paths.root.name} exists with other values of {{seen}}",
            rule="a sweep must go on with the settings it began with",
            seen=", ".join(keys),
            fix=f"choose another --name, give the same values, or go on with its own: {resume}",
        )


def _moved_keys(before: SweepConfig, now: SweepConfig) -> Iterator[str]:
    """The settings that name another path of the same kind: what lies there decides, not where it lies."""
    sources = [parse_source(config.data) for config in (before, now)]
    if len({source.prefix if source else None for source in sources}) == 1 and sources[0]:
        yield "data"
    if before.extractor_weights and now.extractor_weights:
        yield "extractor_weights"
    if all(names_file(config.classes) for config in (before, now)):
        yield "classes"


def check_same_code(before: SweepFacts, code: Mapping[str, str]) -> None:
    """SweepError where the hashes of the user's own code are not those of the sweep that exists."""
    _check_same("code", before.code == code)


def check_same_images(before: SweepFacts, fingerprint: str, *, has_copies: bool) -> None:
    """SweepError where the images are not those of the sweep that exists.

    has_copies: whether some images are copies of others, which earlier versions split otherwise.
    """
    reason = f", of {before.data.source}" if before.data.source else ""
    reason += "; an earlier gansweep held out copies of training images" if has_copies else ""
    _check_same(f"data.fingerprint{reason}", before.data.fingerprint == fingerprint)


def check_same_evaluator(before: SweepFacts, evaluator_hash: str) -> None:
    """SweepError where the evaluator is not that of the sweep that exists."""
    _check_same("evaluator.hash", before.evaluator.hash == evaluator_hash)


def _check_same(key: str, agrees: bool) -> None:
    if not agrees:
        raise SweepError(
            "the sweep began with another {seen}",
            rule="a sweep must go on with the images, the evaluator and the code it began with",
            seen=key,
            fix="begin a new sweep with another --name",
        )


def raised_limits(before: SweepConfig, now: SweepConfig) -> bool:
    """Whether `now` raises a limit of the ended sweep: more trials, a larger budget, a lower fid or gain."""
    names = ("time_budget_sec", "gpu_hours", "cost_budget", "max_failures")
    limits = [(getattr(before, name), getattr(now, name)) for name in names]
    more = any(new != old and (new == 0 or new > old > 0) for old, new in limits)
    lower = now.target_fid < before.target_fid or now.until_plateau < before.until_plateau
    return now.trials > before.trials or more or lower
