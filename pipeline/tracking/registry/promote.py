"""Registration of a packed generator as a model version, its promotion to candidate or champion, roll-back.

`pipeline.tracking.registry.model_version` logs and verifies a version.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import RegistryError
from pipeline.metrics.frechet import Evaluator
from pipeline.storage.fault_points import reach
from pipeline.storage.making import alone_with
from pipeline.storage.summary_file import RegisteredVersion
from pipeline.tracking.registry import model_version, registered_model
from pipeline.tracking.registry.load import connect_registry, registry_errors, resolve_version
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.names import (
    CANDIDATE,
    CHAMPION,
    check_alias,
    check_no_prompt,
    check_registration,
)
from pipeline.tracking.tracking_uri import check_server

_REASON = "gansweep.alias_reason"


def register_version(
    packed: Path,
    metadata: ModelMetadata,
    *,
    tracking_uri: str,
    name: str,
    alias: str | None = "auto",
    promote: str = CHAMPION,
    evaluator: Evaluator | None = None,
    verify: bool = True,
) -> RegisteredVersion:
    """Register a packed generator as a version of model `name`; the same weights and data make no second one.

    Args:
        metadata: becomes the version's tags (nested values as a.b) and description. A card in the packed
            folder is logged to the run `metadata.run_id` too.
        alias: "auto" = by `decide_promotion`, `promote` at most; another alias is set as given; None = none.
        promote: one of `names.PROMOTE`.
        evaluator: of the fid in `metadata`, to measure it again before an alias is set; None = it is not.
        verify: load it in a fresh process first, pickle forbidden, and compare its images.

    Raises:
        RegistryError: the packed folder is altered, a request to the registry fails, the version does not
            load, gives other images or has another fid. Then nothing has been registered or promoted.
    """
    check_registration(name, promote)
    if alias is not None:
        check_alias(alias)
    if promote == "never" and alias == "auto":
        alias = None
    measured_by = evaluator if alias else None
    verifier = model_version.Verifier(tracking_uri, packed, metadata, measured_by) if verify else None
    with registry_errors(tracking_uri):
        registered_model.check_files(packed, RegistryError)
        client = connect_registry(tracking_uri)
        check_no_prompt(tracking_uri, name)
        with contextlib.suppress(MlflowException):  # it exists already
            client.create_registered_model(name)
        version = _find_version(client, name, model_version.source_hash(packed, metadata))
        if version is None:
            version = model_version.add_version(client, tracking_uri, name, packed, metadata, verifier)
            reach("version")
            return _give_alias(client, version, metadata, alias, promote, "registered")
        if alias == "auto" and _REASON in version.tags:  # decided then; it may have been rolled back since
            return _unchanged(client, version)
        if alias and verifier is not None and "fid" not in version.tags.get(model_version.VERIFIED_TAG, ""):
            verified = verifier(f"models:/{name}/{version.version}")
            client.set_model_version_tag(name, str(version.version), model_version.VERIFIED_TAG, verified)
        return _give_alias(client, version, metadata, alias, promote, "registered before")


def _find_version(client: MlflowClient, name: str, source: str) -> ModelVersion | None:
    found = client.search_model_versions(
        f"name = '{name}' and tags.`{model_version.SOURCE_TAG}` = '{source}'"
    )
    return max(found, key=lambda one: int(one.version), default=None)


def decide_promotion(new: ModelMetadata, champion: ModelMetadata | None) -> tuple[str | None, str]:
    """Which alias a new version earns, and why. champion: the present one, None = there is none.

    A fid replaces the champion only if it is lower by more than half the width of the wider of the two
    confidence intervals, so that neither chance nor an imprecise measurement is enough. A fid that is
    missing or not finite earns no alias, and any other fid beats it.
    """
    fid = new.fid
    if new.withhold:
        return None, "withheld: " + "; ".join(new.withhold)
    if fid is None:
        return None, "its fid is missing"
    if champion is None:
        return CHAMPION, "there was no champion"
    if not new.evaluator or new.evaluator != champion.evaluator:
        return CANDIDATE, "the champion's fid is of another evaluator"
    best = champion.fid
    if best is None:
        return CHAMPION, "the champion has no fid"
    margin = max(0.0, *((high - low) / 2 for low, high in (new.interval, champion.interval)))
    if fid < best - margin:
        reason = f"fid {fid:.4g} beats the champion's {best:.4g} by more than the interval ({margin:.2g})"
        return CHAMPION, reason
    if fid < best:
        return CANDIDATE, f"fid {fid:.4g} is within the interval ({margin:.2g}) of the champion's {best:.4g}"
    return CANDIDATE, f"fid {fid:.4g} does not beat the champion's {best:.4g}"


def _give_alias(
    client: MlflowClient,
    version: ModelVersion,
    metadata: ModelMetadata,
    alias: str | None,
    promote: str,
    status: str,
) -> RegisteredVersion:
    """Set `alias`, or for "auto" the one that `decide_promotion` gives; one sweep decides at a time."""
    name, number = str(version.name), int(version.version)
    with alone_with(client.tracking_uri):
        if alias == "auto":
            alias, reason = _promote(client, name, number, metadata, promote)
        else:
            reason = "as asked" if alias else "no alias was asked for"
            if alias and int(client.get_registered_model(name).aliases.get(alias, 0)) != number:
                client.set_registered_model_alias(name, alias, str(number))
    if alias or metadata.withhold:
        client.set_model_version_tag(name, str(number), _REASON, reason[:5000])
    return RegisteredVersion(name, number, alias, f"models:/{name}/{number}", f"{status}; {reason}")


def _promote(
    client: MlflowClient, name: str, number: int, metadata: ModelMetadata, promote: str
) -> tuple[str | None, str]:
    """Give a version the alias that it earns, and return that and why.

    A champion becomes candidate first: a kill in between leaves a verified candidate.
    """
    aliases: dict[str, str] = client.get_registered_model(name).aliases
    champion = None  # also where a kill has kept out why this version became it
    if int(aliases.get(CHAMPION, number)) != number:
        champion = ModelMetadata.from_json(client.get_model_version(name, aliases[CHAMPION]).tags)
    alias, reason = decide_promotion(metadata, champion)
    if alias:
        client.set_registered_model_alias(name, CANDIDATE, str(number))
        reach("candidate")
    if alias == CHAMPION and promote == CANDIDATE:
        alias, reason = CANDIDATE, f"candidate at most was asked for, though {reason}"
    if alias == CHAMPION:
        client.set_registered_model_alias(name, CHAMPION, str(number))
        client.delete_registered_model_alias(name, CANDIDATE)
        reach("champion")
    return alias, reason


def _unchanged(client: MlflowClient, version: ModelVersion) -> RegisteredVersion:
    name, number = str(version.name), int(version.version)
    aliases = client.get_registered_model(name).aliases
    held = sorted((key for key, holder in aliases.items() if int(holder) == number), key=CHAMPION.__ne__)
    reason = f"registered before; its alias was decided then: {version.tags[_REASON]}"
    return RegisteredVersion(name, number, held[0] if held else None, f"models:/{name}/{number}", reason)


def set_alias(model: str, alias: str, *, tracking_uri: str) -> RegisteredVersion:
    """Give `alias` to an existing version, for example for a roll-back to the champion before.

    Raises:
        RegistryError: there is no such version, or a request to the registry fails.
    """
    check_alias(alias)
    with registry_errors(tracking_uri):
        check_server(tracking_uri, write=False)
        client = connect_registry(tracking_uri)
        version = resolve_version(client, model)
        return _give_alias(client, version, ModelMetadata(), alias, CHAMPION, "present")
