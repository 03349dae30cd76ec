"""A packed generator as a version of a registered model: logged, verified in a fresh process, described."""

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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from pipeline.storage.fault_points import reach
from pipeline.tracking._compat import default_store
from pipeline.tracking.registry import registered_model
from pipeline.tracking.registry.load import FILES_TAG, LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.model_card import CARD_FOLDER, SECTIONS
from pipeline.tracking.registry.registered_model import Images
from pipeline.tracking.tracking_uri import default_artifacts, ensure_experiment

SOURCE_TAG, VERIFIED_TAG = "gansweep.source", "gansweep.verified"
PROBE_SEED = 11
"""Seed of the samples that the verification compares."""
PROBE_SEC = 600.0
"""Longest time for the verifying process to load the model and sample from it."""


def source_hash(packed: Path, metadata: ModelMetadata) -> str:
    """Identity of a generator: a hash of its weights and of the images it was trained on."""
    weights = registered_model.sha256_of(packed / "generator.safetensors")
    return hashlib.sha256(f"{weights} {metadata.fingerprint}".encode()).hexdigest()


def _flatten(facts: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """JSON values as tags: nested mappings as a.b, no empty values, text cut to MLflow's limits."""
    tags: dict[str, str] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            tags |= _flatten(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            text = value if isinstance(value, str) else json.dumps(value)
            tags[re.sub(r"[^\w ./-]", "_", prefix + key)[:250]] = text[:5000]
    return tags


def add_version(
    client: MlflowClient, uri: str, name: str, packed: Path, metadata: ModelMetadata, verify: Verifier | None
) -> ModelVersion:
    """Log the model, verify it, and only then register it: one that fails never enters the registry.

    Models that an earlier attempt logged for the same run, and that no version holds, are deleted.

    uri: of the store. verify: None = it is not verified.

    Raises:
        RegistryError: the verification failed; the logged model has been deleted.
    """
    tags = {
        **_flatten(metadata.to_json()),
        SOURCE_TAG: source_hash(packed, metadata),
        FILES_TAG: registered_model.sha256_of(packed / "files.json"),
    }
    generator, run_id = LoadedGenerator(packed), metadata.run_id or None
    if run_id:
        _delete_abandoned(client, _logged_name(name), run_id)
        if (packed / CARD_FOLDER).is_dir():
            client.log_artifacts(run_id, str(packed / CARD_FOLDER), "model_card")
    model_id = _log(client, uri, name, packed, generator, run_id)
    try:
        reach("logged")
        if verify is not None:
            tags[VERIFIED_TAG] = verify(f"models:/{model_id}")
        with default_store(uri):
            version = client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                model_id=model_id,
                tags=tags,
                description=_description(name, generator, tags),
            )
    except Exception:
        with contextlib.suppress(MlflowException, OSError):  # the first error is the one to raise
            client.delete_logged_model(model_id)
        raise
    return version


def _delete_abandoned(client: MlflowClient, logged_name: str, run_id: str) -> None:
    """Delete the logged models of a run that no version holds: a kill came before they were registered."""
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    held = {version.source for version in client.search_model_versions(f"run_id = '{run_id}'")}
    for model in logged:
        if model.name == logged_name and f"models:/{model.model_id}" not in held:
            client.delete_logged_model(model.model_id)


def _log(
    client: MlflowClient, uri: str, name: str, packed: Path, generator: LoadedGenerator, run_id: str | None
) -> str:
    """Write the MLflow model of a packed generator into the store; returns the id of the logged model."""
    if run_id:
        experiment = client.get_run(run_id).info.experiment_id
    else:
        experiment = ensure_experiment(client, "gansweep-models", default_artifacts(uri))
    logged = client.create_logged_model(
        experiment, _logged_name(name), source_run_id=run_id, model_type="generator"
    )
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(packed, f"{folder}/generator")  # MLflow keeps the folder's name
        mlflow.pyfunc.save_model(
            f"{folder}/model",
            python_model=str(Path(registered_model.__file__)),
            artifacts={"generator": f"{folder}/generator"},
            signature=_signature(generator),
            input_example=(np.zeros(1), {"n": 1, "seed": 0, "label": -1, "truncation": 1.0}),
            pip_requirements=[  # as on an index: torch 2.14.1 instead of 2.14.1+cpu
                f"{package}=={importlib.metadata.version(package).partition('+')[0]}"
                for package in ("mlflow", "numpy", "pandas", "torch")
            ],
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


def _logged_name(name: str) -> str:
    """The name of a logged model, for which MLflow's rule is stricter than for a registered one."""
    return re.sub(r"[/:.%\"']", "-", name)


def _signature(generator: LoadedGenerator) -> ModelSignature:
    shape = (-1, generator.size, generator.size, generator.channels)
    params = [ParamSpec(name, "long", value) for name, value in (("n", 16), ("seed", 0), ("label", -1))]
    outputs = Schema([TensorSpec(np.dtype("uint8"), shape)])
    schema = ParamSchema([*params, ParamSpec("truncation", "double", 1.0)])
    return ModelSignature(outputs=outputs, params=schema)


_PROBE = f"""
import sys
sys.modules["pipeline"] = None  # the model must load without the package that made it
import mlflow, numpy
model, folder, n = mlflow.pyfunc.load_model(sys.argv[1]), sys.argv[2], int(sys.argv[3])
images = model.predict([0], params={{"n": 5, "seed": {PROBE_SEED}}})
numpy.save(folder + "/few.npy", images, allow_pickle=False)
if n:  # in chunks, for there may be many
    many = numpy.lib.format.open_memmap(folder + "/many.npy", "w+", numpy.uint8, (n, *images.shape[1:]))
    begin = 0
    for images, _ in model.unwrap_python_model().generator.stream(n, {PROBE_SEED}, batch=512):
        many[begin : begin + len(images)] = images
        begin += len(images)
    many.flush()
"""


@dataclass(frozen=True)
class Verifier:
    """Verifies a logged model in a fresh process, with pickle forbidden.

    uri: of the store. packed: folder of the generator that was logged.
    evaluator: of the fid in `metadata`; None = the fid is not measured again.

    Raises:
        RegistryError: the evaluator is not the one that `metadata` names.
    """

    uri: str
    packed: Path
    metadata: ModelMetadata
    evaluator: Evaluator | None = None

    def __post_init__(self) -> None:
        if self.evaluator is not None and self.evaluator.hash != self.metadata.evaluator:
            raise _unverified("its images or extractor have changed since its fid was measured")

    def __call__(self, model: str) -> str:
        """Verify `model`, an MLflow URI; returns what was verified, in a line.

        Raises:
            RegistryError: it does not load, gives other images than `packed`, or has another fid.
        """
        evaluator = self.evaluator if self.metadata.fid is not None else None
        with tempfile.TemporaryDirectory() as folder:
            self._probe(model, folder, 0 if evaluator is None else 2 * evaluator.samples)
            few = np.load(f"{folder}/few.npy", allow_pickle=False)
            expected, _ = LoadedGenerator(self.packed).sample(len(few), PROBE_SEED)
            # Another number of threads may change a rounding, and thereby a pixel by one level.
            if few.shape != expected.shape or np.abs(few.astype(int) - expected).max() > 1:
                raise _unverified("it gives other images")
            if evaluator is None:
                return "loaded fresh, draws the same images"
            many = np.load(f"{folder}/many.npy", mmap_mode="r", allow_pickle=False)
            return self._verify_fid(evaluator, many)

    def _probe(self, model: str, folder: str, n: int) -> None:
        store = {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_REGISTRY_URI": self.uri}
        environment = {**os.environ, **store, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, model, folder, str(n)],
                cwd=folder,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=PROBE_SEC,
            )
        except subprocess.TimeoutExpired:
            raise _unverified(f"no images after {PROBE_SEC:g} s") from None
        if done.returncode != 0:
            message = (done.stderr.strip() or "no message").splitlines()[-1]
            raise _unverified(f"it does not load: {redact(message)}")

    def _verify_fid(self, evaluator: Evaluator, images: Images) -> str:
        """Measure the fid of two batches; one in the 95 % interval is enough: 5 in 100 miss it by chance."""
        low, high = self.metadata.interval
        found, begin = [], 0

        def sample(count: int) -> torch.Tensor:
            nonlocal begin
            begin += count
            return torch.from_numpy(np.array(images[begin - count : begin]))

        for _ in range(2):
            fid = evaluator.score(sample)
            found.append("none" if fid is None else f"{fid:.4g}")
            if fid is not None and low <= fid <= high:
                return f"loaded fresh, draws the same images, fid {fid:.4g} in [{low:.4g}, {high:.4g}]"
        raise _unverified(f"its fid is {' and '.join(found)}, not in [{low:.4g}, {high:.4g}]")


def _unverified(reason: str) -> RegistryError:
    return RegistryError(
        "the model failed its verification",
        rule="it must load in a fresh process without pickle, give the same images and have its fid",
        seen=reason,
        fix="it gets no alias; see gansweep doctor",
    )


def _description(name: str, generator: LoadedGenerator, tags: Mapping[str, str]) -> str:
    """A description in Markdown, in the card's order, in the registry's limit of 5,000 characters."""
    size, classes = generator.size, f", {generator.classes} classes" if generator.classes else ""
    use = f'mlflow.pyfunc.load_model("models:/{name}@champion").predict([0], params={{"n": 16, "seed": 0}})'
    text = (
        f"A GAN generator: uint8 images (n,{size},{size},{generator.channels}){classes}. Its card with "
        f"pictures lies in artifacts/generator/{CARD_FOLDER}.\n\n```python\n{use}\n```\n\n"
        "| fact | value |\n|---|---|\n"
    )
    first = {key: rank for rank, key in enumerate(" ".join(SECTIONS.values()).split())}
    for key in sorted(tags, key=lambda key: (first.get(key, len(first)), key)):
        row = f"| {key} | {tags[key][:200].replace('|', '/')} |\n"
        text += row if len(text) + len(row) <= 5000 else ""
    return text
