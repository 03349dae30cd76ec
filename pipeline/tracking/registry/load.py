"""Loading a registered generator: `models:/...` addresses, and the check of files against their registration.

Code that lies in a model is never run.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import RegistryError, UserError, first_line, redact
from pipeline.tracking.registry import registered_model
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.registered_model import (
    Images,
    Labels,
    PackedGenerator,
    PackedGeneratorError,
    Vectors,
)
from pipeline.tracking.tracking_uri import check_server, make_folder

FILES_TAG = "gansweep.files"
"""Tag of a version: the SHA-256 of its files.json."""

_MODEL = re.compile(r"models:/([^/@]+)(?:@([\w-]+)|/(\d+))")


class LoadedGenerator:
    """A generator ready to sample.

    Attributes:
        metadata: what it claims: its fid, training, images and origin.
        z_dim: dimension of its latents.
        classes: how many labels it takes, 0 = unconditional.
        size, channels: of its images.
    """

    def __init__(self, packed: PackedGenerator) -> None:
        self._packed = packed
        self.metadata = ModelMetadata.from_json(packed.facts)
        self.z_dim, self.classes = packed.z_dim, packed.classes
        self.size, self.channels = packed.size, packed.channels

    def sample(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Images, Labels | None]:
        """n images, uint8 (n,H,W,C), and labels, int64 (n,), where the model is conditional.

        Image i is the same bytes for the same model, seed, label and truncation, whatever n is.

        Raises:
            RegistryError: n < 1, seed < 0, a label that the model lacks, truncation not in (0, 2].
        """
        with _as_registry_error():
            return self._packed.sample(n, seed, label, truncation)

    def stream(
        self,
        n: int,
        seed: int = 0,
        label: int | None = None,
        batch: int = 256,
        truncation: float = 1.0,
        *,
        start: int = 0,
        balanced: bool = False,
    ) -> Iterator[tuple[Images, Labels | None]]:
        """Images `start` (a multiple of 512) to n of `sample`, in chunks of `batch` images.

        balanced: label i is i modulo the classes. Raises as `sample` does, before the first image.
        """
        with _as_registry_error():
            return self._packed.stream(n, seed, label, batch, truncation, start=start, balanced=balanced)

    def latents(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Vectors, Labels | None]:
        """Inputs of the images of `sample`: z float32 (n,Z), labels int64 (n,). Raises as `sample` does."""
        with _as_registry_error():
            z, labels = self._packed.latents(n, seed, label, truncation)
            return z, labels if self.classes else None

    def render(self, z: Vectors, labels: Labels | None = None, embeddings: Vectors | None = None) -> Images:
        """The images uint8 (n,H,W,C) of latents and labels, or label embeddings (n,E) in their place."""
        return self._packed.render(z, labels, embeddings)

    def label_embeddings(self) -> Vectors:
        """The embedding of each label, float32 (K,E). Raises RegistryError: the model has none."""
        with _as_registry_error():
            return self._packed.label_embeddings()


def from_packed(folder: Path, device: str = "cpu") -> LoadedGenerator:
    """Load what `pack_generator` wrote. Raises RegistryError where a file is missing or altered."""
    with _as_registry_error():
        return LoadedGenerator(PackedGenerator(folder, device))


def load_registered(model: str, *, tracking_uri: str, device: str = "cpu") -> LoadedGenerator:
    """Load `models:/NAME@ALIAS` or `models:/NAME/VERSION`, without running any code that lies in it.

    Raises:
        RegistryError: no such model, alias or version; altered files; the registry does not answer.
    """
    with fetched_model(model, tracking_uri=tracking_uri) as folder:
        return from_packed(folder, device)


@contextlib.contextmanager
def fetched_model(model: str, *, tracking_uri: str) -> Iterator[Path]:
    """Context manager: a temporary copy of a registered MODEL's packed folder, its files as registered.

    Raises:
        RegistryError: as `load_registered` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield _fetch(model, tracking_uri, folder)


def _fetch(model: str, tracking_uri: str, folder: str) -> Path:
    with registry_errors(tracking_uri):
        client = connect_registry(tracking_uri, write=False)
        version = resolve_version(client, model)
        expected = version.tags.get(FILES_TAG)
        if expected is None:
            raise RegistryError("gansweep has not registered {seen}", seen=model, fix="choose another model")
        uri = client.get_model_version_download_uri(version.name, version.version)
        root = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=tracking_uri))
        lists = list((root / "artifacts").glob("*/files.json"))
        if len(lists) != 1 or registered_model.sha256_of(lists[0]) != expected:
            raise RegistryError(
                "files of {seen} are altered or missing",
                rule="they must be as they were registered",
                seen=model,
                fix="do not use it; choose another version or register it again",
            )
        with _as_registry_error():
            registered_model.check_files(lists[0].parent)
        return lists[0].parent


def resolve_version(client: MlflowClient, model: str) -> ModelVersion:
    """The version of a MODEL.

    Raises:
        RegistryError: there is none; lists the aliases and versions that exist, or the models.
    """
    match = _MODEL.fullmatch(model)
    if match is None:
        raise RegistryError(
            "{seen} is no address of a model",
            rule="models:/NAME@ALIAS or models:/NAME/VERSION",
            seen=model,
            fix="write for example models:/mnist5k@champion",
        )
    name, alias, number = match.groups()
    try:
        if alias:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RegistryError(
            "{seen} is not in the registry", seen=model, fix=_existing(client, name)
        ) from error


def _existing(client: MlflowClient, name: str) -> str:
    """The aliases and versions of model `name`, or the models in the registry."""
    with contextlib.suppress(MlflowException):
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = '{name}'", max_results=20)
        versions = ", ".join(str(n) for n in sorted(int(one.version) for one in found)) or "none"
        return f"aliases: {', '.join(sorted(aliases)) or 'none'}; versions: {versions}"
    names = [one.name for one in client.search_registered_models(max_results=20)]
    return "models in it: " + (", ".join(names) or "none, so run a sweep first")


def connect_registry(uri: str, *, write: bool = True) -> MlflowClient:
    """A client of the store, after `check_server`: MLflow itself would retry for minutes."""
    check_server(uri, write=write)
    if write:
        make_folder(uri)
    return MlflowClient(uri, uri)


@contextlib.contextmanager
def _as_registry_error() -> Iterator[None]:
    try:
        yield
    except PackedGeneratorError as error:
        raise RegistryError(error.problem, rule=error.rule, seen=error.seen, fix=error.fix) from error


@contextlib.contextmanager
def registry_errors(uri: str) -> Iterator[None]:
    """Raise errors of the store or the connection as RegistryError."""
    try:
        yield
    except UserError:
        raise
    except (MlflowException, OSError) as error:
        raise RegistryError(
            "a request to the registry failed",
            seen=redact(first_line(error)),
            fix=f"check {redact(uri)}",
        ) from error
