"""A packed generator becomes a version, and a version becomes candidate and champion.

Owns: `register`, the rule of promotion, roll-back. Refuses: how a version is logged and verified
(`pipeline.tracking.registry.model_version`).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import RegistryError
from pipeline.metrics.frechet import Evaluator
from pipeline.tracking.registry import model_version
from pipeline.tracking.registry.load import connect_registry, from_packed, registry_errors, resolve_version

CHAMPION, CANDIDATE = "champion", "candidate"
PROMOTE = ("never", CANDIDATE, CHAMPION)
"""How far a new version may rise by itself."""

_REASON = "gansweep.alias_reason"


@dataclass(frozen=True)
class Registered:
    """A version of the registry. alias: the one it was given (or holds), None = none; reason: why."""

    name: str
    version: int
    alias: str | None
    uri: str
    reason: str


def register_version(
    packed: Path,
    *,
    tracking_uri: str,
    name: str,
    facts: Mapping[str, Any],
    run_id: str | None = None,
    alias: str | None = "auto",
    promote: str = CHAMPION,
    evaluator: Evaluator | None = None,
    verify: bool = True,
) -> Registered:
    """Make a packed generator a version of model `name`; the same weights and data make no second one.

    Args:
        facts: become the version's tags (nested ones as a.b) and description. `fid` (None = unmeasured),
            `fid_low`, `fid_high`, `evaluator` (hash) and `fingerprint` matter here; `withhold` lists reasons
            to give no alias.
        run_id: the MLflow run that it comes from; a card in the packed folder is logged there too.
        alias: "auto" = what `decide` says, `promote` at most; any other alias is given as it is; None = none.
        promote: one of `PROMOTE`.
        evaluator: of the fid in `facts`, which is measured again before an alias is given; None = it is not.
        verify: load it in a fresh process first, pickle forbidden, and compare its images.

    Raises:
        RegistryError: the packed folder is altered, the registry is away or refuses, the version does not
            load, draws other images or has another fid. Nothing has been registered then, nor promoted.
    """
    _check(name, promote)
    if promote == "never" and alias == "auto":
        alias = None
    verifier = (
        model_version.Verifier(tracking_uri, packed, facts, evaluator if alias else None) if verify else None
    )
    with registry_errors(tracking_uri):
        from_packed(packed)  # raises where it was altered
        client = connect_registry(tracking_uri)
        with contextlib.suppress(MlflowException):  # it is there already
            client.create_registered_model(name)
        version = _found(client, name, model_version.source_of(packed, facts))
        if version is None:
            version = model_version.add_version(
                client, tracking_uri, name, packed, facts, run_id=run_id, verified_by=verifier
            )
            return _give_alias(client, version, facts, alias, promote, "registered")
        if alias == "auto" and _REASON in version.tags:  # decided then, and perhaps rolled back since
            return _as_it_stands(client, version)
        if alias and verifier is not None and "fid" not in version.tags.get(model_version.VERIFIED, ""):
            found = verifier(f"models:/{name}/{version.version}")
            client.set_model_version_tag(name, str(version.version), model_version.VERIFIED, found)
        return _give_alias(client, version, facts, alias, promote, "registered before")


def _check(name: str, promote: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,199}", name):
        raise RegistryError("a model's name is letters, digits, '.', '_', '-'", seen=name, fix="use --name")
    if promote not in PROMOTE:
        raise RegistryError(
            "--promote is never, candidate or champion", seen=promote, fix="write --promote candidate"
        )


def _found(client: MlflowClient, name: str, source: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{model_version.SOURCE}` = '{source}'")
    return max(found, key=lambda one: int(one.version), default=None)


def decide_promotion(facts: Mapping[str, Any], champion: Mapping[str, str] | None) -> tuple[str | None, str]:
    """Which alias a new version earns, and why.

    The champion falls only to a fid that is lower by more than the interval: by more than half the width
    of the wider of the two, so that neither a lucky draw nor a loose measurement is enough.

    Args:
        facts: of the new version: `fid`, `fid_low`, `fid_high`, `evaluator` (hash), `withhold` (reasons for
            no alias).
        champion: the tags of the present champion, None where there is none.

    NaN policy: a fid that is missing or not finite earns nothing, and loses to any that is there.
    """
    withhold, fid = facts.get("withhold") or [], _number(facts.get("fid"))
    if withhold:
        return None, "withheld: " + "; ".join(map(str, withhold))
    if fid is None:
        return None, "its fid is missing"
    if champion is None:
        return CHAMPION, "there was no champion"
    if not facts.get("evaluator") or facts["evaluator"] != champion.get("evaluator"):
        return CANDIDATE, "the champion's fid is of another evaluator"
    best = _number(champion.get("fid"))
    if best is None:
        return CHAMPION, "the champion has no fid"
    margin = max(_half_width(facts), _half_width(champion))
    if fid < best - margin:
        return (
            CHAMPION,
            f"fid {fid:.4g} beats the champion's {best:.4g} by more than the interval ({margin:.2g})",
        )
    if fid < best:
        return CANDIDATE, f"fid {fid:.4g} is within the interval ({margin:.2g}) of the champion's {best:.4g}"
    return CANDIDATE, f"fid {fid:.4g} does not beat the champion's {best:.4g}"


def _half_width(facts: Mapping[str, Any]) -> float:
    low, high = _number(facts.get("fid_low")), _number(facts.get("fid_high"))
    return 0.0 if low is None or high is None else max(0.0, (high - low) / 2)


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _give_alias(
    client: MlflowClient,
    version: ModelVersion,
    facts: Mapping[str, Any],
    alias: str | None,
    promote: str,
    news: str,
) -> Registered:
    """Set the alias that was asked for, or in "auto" the one it earns.

    A champion is candidate first: whoever dies in between leaves a verified candidate.
    """
    name, number = str(version.name), int(version.version)
    held: dict[str, str] = client.get_registered_model(name).aliases
    if alias == "auto":
        champion = client.get_model_version(name, held[CHAMPION]).tags if CHAMPION in held else None
        alias, reason = decide_promotion(facts, champion)
        if alias:
            client.set_registered_model_alias(name, CANDIDATE, str(number))
        if alias == CHAMPION and promote == CANDIDATE:
            alias, reason = CANDIDATE, f"candidate at most was asked for, though {reason}"
        if alias == CHAMPION:
            client.set_registered_model_alias(name, CHAMPION, str(number))
            client.delete_registered_model_alias(name, CANDIDATE)
    else:
        reason = "as asked" if alias else "no alias was asked for"
        if alias and int(held.get(alias, 0)) != number:
            client.set_registered_model_alias(name, alias, str(number))
    if alias or facts.get("withhold"):
        client.set_model_version_tag(name, str(number), _REASON, reason[:5000])
    return Registered(name, number, alias, f"models:/{name}/{number}", f"{news}; {reason}")


def _as_it_stands(client: MlflowClient, version: ModelVersion) -> Registered:
    name, number = str(version.name), int(version.version)
    aliases = client.get_registered_model(name).aliases
    own = sorted((key for key, holder in aliases.items() if int(holder) == number), key=CHAMPION.__ne__)
    reason = f"registered before; its alias was decided then: {version.tags[_REASON]}"
    return Registered(name, number, own[0] if own else None, f"models:/{name}/{number}", reason)


def set_alias(model: str, alias: str, *, tracking_uri: str) -> Registered:
    """Give `alias` to an existing version (a roll-back: the one before becomes champion again)."""
    with registry_errors(tracking_uri):
        client = connect_registry(tracking_uri, write=False)
        version = resolve_version(client, model)
        return _give_alias(client, version, {}, alias, CHAMPION, "present")
