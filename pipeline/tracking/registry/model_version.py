"""A packed generator becomes a version of a registered model: logged, verified in a fresh process, described.

Owns: what stands in the MLflow model, its tags and description, the verification. Refuses: a version that
fails it; choosing aliases.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from pipeline.errors import RegistryError, redact
from pipeline.metrics.frechet import Evaluator
from pipeline.tracking.registry import registered_model
from pipeline.tracking.registry.load import FILES_TAG, LoadedGenerator, from_packed
from pipeline.tracking.registry.model_card import FOLDER as CARD
from pipeline.tracking.registry.pack import finite
from pipeline.tracking.registry.registered_model import Images
from pipeline.tracking.tracking_uri import default_artifacts, ensure_experiment

SOURCE, VERIFIED = "gansweep.source", "gansweep.verified"
PROBE_SEED = 11
PROBE_SEC = 600.0


def source_of(packed: Path, facts: Mapping[str, Any]) -> str:
    """What tells one generator from another: a hash of its weights and of the images it was trained on."""
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


def add_version(
    client: MlflowClient,
    uri: str,
    name: str,
    packed: Path,
    facts: Mapping[str, Any],
    *,
    run_id: str | None,
    verified_by: Verifier | None,
) -> ModelVersion:
    """Log, verify, and only then register: what fails never stands in the registry."""
    tags = {
        **_flatten(facts),
        SOURCE: source_of(packed, facts),
        FILES_TAG: registered_model.digest(packed / "files.json"),
    }
    generator = from_packed(packed)
    model_id = _log(client, name, packed, generator, run_id, default_artifacts(uri))
    try:
        if verified_by is not None:
            tags[VERIFIED] = verified_by(f"models:/{model_id}")
        with _as_default(uri):  # an sqlite registry looks the model up in the process's default store
            version = client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                model_id=model_id,
                tags=tags,
                description=_description(name, generator, tags),
            )
    except Exception:
        with contextlib.suppress(MlflowException, OSError):  # what went wrong first is what counts
            client.delete_logged_model(model_id)
        raise
    if run_id and (packed / CARD).is_dir():
        client.log_artifacts(run_id, str(packed / CARD), "model_card")
    return version


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
    generator: LoadedGenerator,
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
        shutil.copytree(packed, f"{folder}/generator")  # MLflow keeps the folder's name
        mlflow.pyfunc.save_model(
            f"{folder}/model",
            python_model=str(Path(registered_model.__file__)),
            artifacts={"generator": f"{folder}/generator"},
            signature=_signature(generator),
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
model, folder, n = mlflow.pyfunc.load_model(sys.argv[1]), sys.argv[2], int(sys.argv[3])
images = model.predict([0], params={{"n": 5, "seed": {PROBE_SEED}}})
numpy.save(folder + "/few.npy", images, allow_pickle=False)
if n:  # by portions, for they may be many
    many = numpy.lib.format.open_memmap(folder + "/many.npy", "w+", numpy.uint8, (n, *images.shape[1:]))
    begin = 0
    for images, _ in model.unwrap_python_model().generator.stream(n, {PROBE_SEED}, batch=512):
        many[begin : begin + len(images)] = images
        begin += len(images)
    many.flush()
"""


@dataclass(frozen=True)
class Verifier:
    """Looks at a logged model from a fresh process, pickle forbidden.

    uri: of the store. packed: what was logged. evaluator: of the fid in `facts`; None = it is not measured.
    """

    uri: str
    packed: Path
    facts: Mapping[str, Any]
    evaluator: Evaluator | None = None

    def __post_init__(self) -> None:
        if self.evaluator is not None and self.evaluator.hash != self.facts.get("evaluator"):
            raise _unverified("images or an extractor that have changed since its fid was measured")

    def __call__(self, model: str) -> str:
        """What was found; RegistryError unless it loads, draws what we draw, and its fid is its fid."""
        evaluator = self.evaluator if self.facts.get("fid") is not None else None
        with tempfile.TemporaryDirectory() as folder:
            self._probe(model, folder, 0 if evaluator is None else 2 * evaluator.samples)
            few = np.load(f"{folder}/few.npy", allow_pickle=False)
            wanted, _ = from_packed(self.packed).sample(len(few), PROBE_SEED)
            # One level of difference is what another number of threads may do to a rounding.
            if few.shape != wanted.shape or np.abs(few.astype(int) - wanted).max() > 1:
                raise _unverified("other images")
            if evaluator is None:
                return "loaded fresh, draws the same images"
            return self._measured(evaluator, np.load(f"{folder}/many.npy", mmap_mode="r", allow_pickle=False))

    def _probe(self, model: str, folder: str, n: int) -> None:
        allowed = {key: value for key, value in os.environ.items() if key != "MLFLOW_REGISTRY_URI"}
        environment = {
            **allowed,
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        }
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, model, folder, str(n)],
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

    def _measured(self, evaluator: Evaluator, images: Images) -> str:
        """The fid measured again; of an honest model 5 in 100 draws lie outside, so there are two."""
        low, high = (float(self.facts.get(key, self.facts["fid"])) for key in ("fid_low", "fid_high"))
        found = []
        for half in (images[: evaluator.samples], images[evaluator.samples :]):
            fid = fid_of(evaluator, half)
            found.append("none" if fid is None else f"{fid:.4g}")
            if fid is not None and low <= fid <= high:
                return f"loaded fresh, draws the same images, fid {fid:.4g} in [{low:.4g}, {high:.4g}]"
        raise _unverified(f"fid {' and '.join(found)}, not in [{low:.4g}, {high:.4g}]")


def fid_of(evaluator: Evaluator, images: Images) -> float | None:
    """The fid of `evaluator.samples` images uint8 (n,H,W,C), which may lie on disk."""
    begin = 0

    def sample(count: int) -> torch.Tensor:
        nonlocal begin
        begin += count
        return torch.from_numpy(np.array(images[begin - count : begin]))

    return evaluator.score(sample)


def _unverified(seen: str) -> RegistryError:
    rule = "a model loads in a fresh process without pickle, draws the same images, and has the fid it claims"
    return RegistryError(rule, seen=seen, fix="it gets no alias; see gansweep doctor")


_JUDGED = (
    "fid fid_low fid_high n extractor evaluator balance overfit memorisation collapse kimg data fingerprint "
    "trial sweep git.commit git.dirty"
)


def _description(name: str, generator: LoadedGenerator, tags: Mapping[str, str]) -> str:
    """The version's description, in Markdown, judgement first; a registry takes 5,000 characters."""
    first = [key for key in _JUDGED.split() if key in tags]
    rows = [
        f"| {key} | {tags[key][:200].replace('|', '/')} |"
        for key in [*first, *(key for key in sorted(tags) if key not in first)]
    ]
    size, kinds = generator.size, f", {generator.classes} classes" if generator.classes else ""
    use = f'mlflow.pyfunc.load_model("models:/{name}@champion").predict([0], params={{"n": 16, "seed": 0}})'
    text = (
        f"A GAN generator: uint8 images (n,{size},{size},{generator.channels}){kinds}. Its card with "
        f"pictures lies in artifacts/generator/{CARD}.\n\n```python\n{use}\n```\n\n"
        "| fact | value |\n|---|---|\n"
    )
    for row in rows:
        if len(text) + len(row) < 5000:
            text += row + "\n"
    return text
