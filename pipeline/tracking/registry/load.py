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
from pipeline.tracking.moved_store import location_now
from pipeline.tracking.registry import registered_model
from pipeline.tracking.registry.class_names import find_class
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.registered_model import Images, Labels, PackedGenerator, Vectors
from pipeline.tracking.tracking_uri import check_server, open_store

FILES_TAG = "gansweep.files"
"""Tag of a version: the SHA-256 of its files.json."""

_MODEL = re.compile(r"models:/([^/@]+)(?:@([\w-]+)|/(\d+))")


class LoadedGenerator(PackedGenerator):
    """A generator ready to sample; `metadata` holds what it claims.

    A label is the number of a class, or a text as `class_number` takes it.

    Raises:
        RegistryError: a file in the packed folder is missing or altered.
    """

    error = RegistryError

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        super().__init__(folder, device)
        self.metadata = ModelMetadata.from_json(self.facts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its classes by number; empty where they have none, or it is unconditional."""
        names = self.metadata.class_names
        return names if len(names) == self.classes else ()

    def class_number(self, label: int | str) -> int:
        """The number of a class that is given by its number or its name: see `find_class`.

        Raises:
            RegistryError: it is unconditional, or no class, or several, have this number or name.
        """
        if not self.classes:
            raise RegistryError(
                "label {seen} was given for an unconditional model",
                rule="only a conditional model has labels",
                seen=label,
                fix="leave it out",
            )
        number = find_class(label, self.class_names, self.classes) if isinstance(label, str) else int(label)
        self.check(1, 0, number, 1.0)
        return number

    def sample(
        self, n: int, seed: int = 0, label: int | str | None = None, truncation: float = 1.0
    ) -> tuple[Images, Labels | None]:
        number = None if label is None else self.class_number(label)
        return super().sample(n, seed, number, truncation)

    def latents(
        self, n: int, seed: int = 0, label: int | str | None = None, truncation: float = 1.0
    ) -> tuple[Vectors, Labels | None]:
        number = None if label is None else self.class_number(label)
        return super().latents(n, seed, number, truncation)

    def stream(
        self,
        n: int,
        seed: int = 0,
        label: int | str | None = None,
        batch: int = 256,
        truncation: float = 1.0,
        *,
        start: int = 0,
        balanced: bool = False,
    ) -> Iterator[tuple[Images, Labels | None]]:
        number = None if label is None else self.class_number(label)
        return super().stream(n, seed, number, batch, truncation, start=start, balanced=balanced)


@contextlib.contextmanager
def fetched_model(model: str, *, tracking_uri: str) -> Iterator[Path]:
    """Context manager: a temporary copy of a registered MODEL's packed folder, its files as registered.

    Raises:
        RegistryError: no such model, alias or version; altered files; the registry does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        with registry_errors(tracking_uri):
            client = connect_registry(tracking_uri, write=False)
            version = resolve_version(client, model)
            stored = client.get_model_version_download_uri(version.name, version.version)
            uri = location_now(tracking_uri, stored)
            expected = version.tags.get(FILES_TAG)
            if expected is None:
                raise RegistryError(
                    "gansweep has not registered {seen}", seen=model, fix="choose another model"
                )
            root = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=tracking_uri))
        lists = list((root / "artifacts").glob("*/files.json"))
        if len(lists) != 1 or registered_model.sha256_of(lists[0]) != expected:
            raise RegistryError(
                "files of {seen} are altered or missing",
                rule="they must be as they were registered",
                seen=model,
                fix="do not use it; choose another version or register it again",
            )
        registered_model.check_files(lists[0].parent, RegistryError)
        yield lists[0].parent


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
    return open_store(uri) if write else MlflowClient(uri, uri)


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
