"""A packed generator becomes a version: logged, verified in a fresh process, tagged, promoted.

Owns: `register`, the rule of promotion, roll-back. Refuses: a version that fails its verification.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from pipeline import registered_model
from pipeline.errors import RegistryError
from pipeline.registry.loading import FILES_TAG, LoadedGenerator, connect, from_packed, resolve, talking
from pipeline.registry.packing import finite
from pipeline.tracker import default_artifacts, ensure_experiment, redact

CHAMPION, CANDIDATE = "champion", "candidate"
PROBE_SEED = 11
PROBE_SEC = 300.0

_SOURCE, _REASON = "gansweep.source", "gansweep.alias_reason"


@dataclass(frozen=True)
class Registered:
    """A version of the registry. alias: the one it was given (or holds), None = none; reason: why."""

    name: str
    version: int
    alias: str | None
    uri: str
    reason: str


def register(
    packed: Path,
    *,
    tracking_uri: str,
    name: str,
    facts: Mapping[str, Any],
    run_id: str | None = None,
    alias: str | None = "auto",
    verify: bool = True,
) -> Registered:
    """Make a packed generator a version of model `name`; the same weights and data make no second one.

    Args:
        facts: become the version's tags (nested ones as a.b) and card. `fid` (None = unmeasured), `evaluator`
            (hash) and `fingerprint` matter here; `withhold` lists reasons to give no alias.
        run_id: the MLflow run that it comes from.
        alias: "auto" = champion if it beats the present one by the same evaluator, else candidate; any other
            alias is given as it is; None gives none.
        verify: load it in a fresh process first, pickle forbidden, and compare its images.

    Raises:
        RegistryError: the packed folder is altered, the registry is away or refuses, the version does not
            load or draws other images; nothing has been registered then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,199}", name):
        raise RegistryError("a model's name is letters, digits, '.', '_', '-'", seen=name, fix="use --name")
    with talking(tracking_uri):
        expected = from_packed(packed)
        source = _source(packed, facts)
        client = connect(tracking_uri)
        with contextlib.suppress(MlflowException):  # it is there already
            client.create_registered_model(name)
        found = client.search_model_versions(f"name = '{name}' and tags.`{_SOURCE}` = '{source}'")
        if found:
            version, news = max(found, key=lambda one: int(one.version)), "registered before"
        else:
            tags = {
                **_flatten(facts),
                _SOURCE: source,
                FILES_TAG: registered_model.digest(packed / "files.json"),
            }
            version = _add(client, tracking_uri, name, packed, expected, tags, run_id, verify)
            news = "registered"
        return _give_alias(client, version, facts, alias, news)


def _source(packed: Path, facts: Mapping[str, Any]) -> str:
    weights = registered_model.digest(packed / "generator.safetensors")
    return hashlib.sha256(f"{weights} {facts.get('fingerprint', '')}".encode()).hexdigest()


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Tags: nested mappings as a.b, nothing for what is empty, values cut to what MLflow takes."""
    tags: dict[str, str] = {}
    for key, value in finite(facts).items():
        if isinstance(value, Mapping):
            tags |= _flatten(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            text = value if isinstance(value, str) else json.dumps(value)
            tags[re.sub(r"[^\w ./-]", "_", prefix + key)[:250]] = text[:5000]
    return tags


def _add(
    client: MlflowClient,
    uri: str,
    name: str,
    packed: Path,
    expected: LoadedGenerator,
    tags: dict[str, str],
    run_id: str | None,
    verify: bool,
) -> ModelVersion:
    """Log, verify, and only then register: what fails never stands in the registry."""
    model_id = _log(client, name, packed, expected, run_id, default_artifacts(uri))
    try:
        if verify:
            _probe(f"models:/{model_id}", uri, expected)
        with _as_default(uri):  # an sqlite registry looks the model up in the process's default store
            return client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                model_id=model_id,
                tags=tags,
                description=_card(name, tags),
            )
    except Exception:
        with contextlib.suppress(MlflowException, OSError):  # what went wrong first is what counts
            client.delete_logged_model(model_id)
        raise


@contextlib.contextmanager
def _as_default(uri: str) -> Iterator[None]:
    """Make `uri` MLflow's default store for a moment."""
    before = os.environ.get("MLFLOW_TRACKING_URI")  # MLflow mirrors its setting there
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type, unused-ignore]


def _log(
    client: MlflowClient,
    name: str,
    packed: Path,
    expected: LoadedGenerator,
    run_id: str | None,
    artifacts: str | None,
) -> str:
    """Write the MLflow model of a packed generator into the store; returns its id."""
    if run_id:
        experiment = client.get_run(run_id).info.experiment_id
    else:
        experiment = ensure_experiment(client, "gansweep-models", artifacts)
    logged = client.create_logged_model(experiment, name, source_run_id=run_id, model_type="generator")
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(
            f"{folder}/model",
            python_model=str(Path(registered_model.__file__)),
            artifacts={"generator": str(packed)},
            signature=_signature(expected),
            input_example=(np.zeros(1), {"n": 1, "seed": 0, "label": -1, "truncation": 1.0}),
            pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "numpy", "pandas", "torch")],
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_id=logged.model_id,
                model_uuid=logged.model_id,
            ),
        )
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _release(package: str) -> str:
    """Its version as an index knows it: torch 2.14.1+cpu is 2.14.1 there."""
    return importlib.metadata.version(package).partition("+")[0]


def _signature(generator: LoadedGenerator) -> ModelSignature:
    shape = (-1, generator.size, generator.size, generator.channels)
    params = [
        ParamSpec("n", "long", 16),
        ParamSpec("seed", "long", 0),
        ParamSpec("label", "long", -1),
        ParamSpec("truncation", "double", 1.0),
    ]
    outputs = Schema([TensorSpec(np.dtype("uint8"), shape)])
    return ModelSignature(outputs=outputs, params=ParamSchema(params))


_PROBE = f"""
import sys
sys.modules["pipeline"] = None  # it must stand without the package that made it
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
images = model.predict([0], params={{"n": 5, "seed": {PROBE_SEED}}})
numpy.save(sys.argv[2], images, allow_pickle=False)
"""


def _probe(model: str, uri: str, expected: LoadedGenerator) -> None:
    """Raise RegistryError unless a fresh process loads `model`, pickle forbidden, and draws what we draw."""
    allowed = {key: value for key, value in os.environ.items() if key != "MLFLOW_REGISTRY_URI"}
    environment = {**allowed, "MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "images.npy"
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, model, str(output)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PROBE_SEC,
            )
        except subprocess.TimeoutExpired:
            raise _unverified(f"no images after {PROBE_SEC:g} s") from None
        if done.returncode != 0:
            raise _unverified(redact((done.stderr.strip() or "no message").splitlines()[-1]))
        images = np.load(output, allow_pickle=False)
    wanted, _ = expected.sample(5, PROBE_SEED)
    # One level of difference is what another number of threads may do to a rounding.
    if images.shape != wanted.shape or np.abs(images.astype(int) - wanted).max() > 1:
        raise _unverified("other images")


def _unverified(seen: str) -> RegistryError:
    rule = "a registered model loads in a fresh process without pickle and draws the same images"
    return RegistryError(rule, seen=seen, fix="nothing was registered; see gansweep doctor")


def _card(name: str, tags: Mapping[str, str]) -> str:
    """The version's description, in Markdown; a registry takes 5,000 characters."""
    rows = [f"| {key} | {value[:200].replace('|', '/')} |" for key, value in sorted(tags.items())]
    use = f'mlflow.pyfunc.load_model("models:/{name}@{CHAMPION}").predict([0], params={{"n": 16, "seed": 0}})'
    text = (
        f"A GAN generator: uint8 images (n,H,W,C).\n\n```python\n{use}\n```\n\n| fact | value |\n|---|---|\n"
    )
    for row in rows:
        if len(text) + len(row) < 5000:
            text += row + "\n"
    return text


def decide(facts: Mapping[str, Any], champion: Mapping[str, str] | None) -> tuple[str | None, str]:
    """Which alias a new version earns, and why.

    Args:
        facts: of the new version: `fid`, `evaluator` (hash), `withhold` (reasons for no alias).
        champion: the tags of the present champion, None where there is none.

    NaN policy: a fid that is missing or not finite never wins, and loses to any that is there.
    """
    withhold, fid = facts.get("withhold") or [], _number(facts.get("fid"))
    if withhold:
        return None, "withheld: " + "; ".join(map(str, withhold))
    if fid is None:
        return CANDIDATE, "its fid is missing"
    if champion is None:
        return CHAMPION, "there was no champion"
    if not facts.get("evaluator") or facts["evaluator"] != champion.get("evaluator"):
        return CANDIDATE, "the champion's fid is of another evaluator"
    best = _number(champion.get("fid"))
    if best is None or fid < best:
        return CHAMPION, f"fid {fid:.4g} beats the champion's {best if best is None else format(best, '.4g')}"
    return CANDIDATE, f"fid {fid:.4g} does not beat the champion's {best:.4g}"


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _give_alias(
    client: MlflowClient, version: ModelVersion, facts: Mapping[str, Any], alias: str | None, news: str
) -> Registered:
    """Set the alias that was asked for, or in "auto" the one it earns; a version keeps those it holds."""
    name, number = str(version.name), int(version.version)
    held: dict[str, str] = client.get_registered_model(name).aliases
    own = [key for key, holder in held.items() if int(holder) == number]
    if alias == "auto" and own:
        alias, reason = CHAMPION if CHAMPION in own else own[0], "it holds this alias"
    elif alias == "auto":
        champion = client.get_model_version(name, held[CHAMPION]).tags if CHAMPION in held else None
        alias, reason = decide(facts, champion)
    else:
        reason = "as asked" if alias else "no alias was asked for"
    if alias and alias not in own:
        client.set_registered_model_alias(name, alias, str(number))
        client.set_model_version_tag(name, str(number), _REASON, reason[:5000])
    return Registered(name, number, alias, f"models:/{name}/{number}", f"{news}; {reason}")


def set_alias(model: str, alias: str, *, tracking_uri: str) -> Registered:
    """Give `alias` to an existing version (a roll-back: the one before becomes champion again)."""
    with talking(tracking_uri):
        client = connect(tracking_uri, write=False)
        version = resolve(client, model)
        return _give_alias(client, version, {}, alias, "present")
