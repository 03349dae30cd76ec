"""A generator taken out of the registry, and the addresses of the registry.

Owns: `models:/...`, what is said where there is no such model, the check of files against their registration.
Refuses: running code that lies in a model.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import RegistryError, UserError, first_line, redact
from pipeline.tracking.registry import registered_model
from pipeline.tracking.registry.registered_model import Images, Labels, PackedGenerator, Refused, Vectors
from pipeline.tracking.tracking_uri import check_server, make_folder

FILES_TAG = "gansweep.files"
"""The tag of a version that holds the SHA-256 of its files.json."""

_MODEL = re.compile(r"models:/([^/@]+)(?:@([\w-]+)|/(\d+))")


class LoadedGenerator:
    """A generator ready to draw. Attributes: facts, z_dim, classes (0 = unconditional), size, channels."""

    def __init__(self, packed: PackedGenerator) -> None:
        self._packed = packed
        self.facts: dict[str, Any] = packed.facts
        self.z_dim, self.classes = packed.z_dim, packed.classes
        self.size, self.channels = packed.size, packed.channels

    def sample(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Images, Labels | None]:
        """n images, uint8 (n,H,W,C), and labels, int64 (n,), where the model is conditional.

        Image i is the same bytes for the same model, seed, label and truncation, whatever n is.

        Raises:
            RegistryError: n < 1, seed < 0, a label that the model does not know, truncation not in (0, 2].
        """
        with _translated():
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
        """Images `start` (a multiple of 512) to n of `sample`, in portions of `batch`.

        balanced: label i is i modulo the classes. Raises as `sample` does, before the first image.
        """
        with _translated():
            return self._packed.stream(n, seed, label, batch, truncation, start=start, balanced=balanced)

    def latents(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Vectors, Labels | None]:
        """What `sample` draws its images from: z float32 (n,Z), labels int64 (n,). Raises as it does."""
        with _translated():
            z, labels = self._packed.latents(n, seed, label, truncation)
            return z, labels if self.classes else None

    def render(self, z: Vectors, labels: Labels | None = None, mixed: Vectors | None = None) -> Images:
        """The images uint8 (n,H,W,C) of latents; `mixed` (n,E), points between label vectors, for labels."""
        return self._packed.render(z, labels, mixed)

    def label_vectors(self) -> Vectors:
        """What it makes of each label, float32 (K,E). Raises RegistryError: it knows none."""
        with _translated():
            return self._packed.label_vectors()


def from_packed(folder: Path, device: str = "cpu") -> LoadedGenerator:
    """Load what `pack` wrote. Raises RegistryError where a file is missing or altered."""
    with _translated():
        return LoadedGenerator(PackedGenerator(folder, device))


def load_registered(model: str, *, tracking_uri: str, device: str = "cpu") -> LoadedGenerator:
    """Load `models:/NAME@ALIAS` or `models:/NAME/VERSION`, without running any code that lies in it.

    Raises:
        RegistryError: no such model, alias or version; files other than those registered; registry away.
    """
    with fetched_model(model, tracking_uri=tracking_uri) as folder:
        return from_packed(folder, device)


@contextlib.contextmanager
def fetched_model(model: str, *, tracking_uri: str) -> Iterator[Path]:
    """The packed folder of a registered MODEL, its files as they were registered, for as long as it is held.

    Raises:
        RegistryError: as `load` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        packed = _fetch(model, tracking_uri, folder)
        yield packed


def _fetch(model: str, tracking_uri: str, folder: str) -> Path:
    with registry_errors(tracking_uri):
        client = connect_registry(tracking_uri, write=False)
        version = resolve_version(client, model)
        expected = version.tags.get(FILES_TAG)
        if expected is None:
            raise RegistryError("the model is one that gansweep registered", seen=model, fix="choose another")
        uri = client.get_model_version_download_uri(version.name, version.version)
        root = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=tracking_uri))
        lists = list((root / "artifacts").glob("*/files.json"))
        if len(lists) != 1 or registered_model.digest(lists[0]) != expected:
            raise RegistryError(
                "the files of a model are as they were registered",
                seen=f"{model}: altered or missing files",
                fix="do not use it; choose another version or register it again",
            )
        with _translated():
            registered_model.check_files(lists[0].parent)
        return lists[0].parent


def resolve_version(client: MlflowClient, model: str) -> ModelVersion:
    """The version behind a MODEL; RegistryError listing what there is where it is not there."""
    match = _MODEL.fullmatch(model)
    if match is None:
        raise RegistryError(
            "a model is models:/NAME@ALIAS or models:/NAME/VERSION",
            seen=model,
            fix="for example models:/mnist5k@champion",
        )
    name, alias, number = match.groups()
    try:
        if alias:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RegistryError("the model is in the registry", seen=model, fix=_known(client, name)) from error


def _known(client: MlflowClient, name: str) -> str:
    """What could have been meant: the aliases and versions of `name`, or the models that there are."""
    with contextlib.suppress(MlflowException):
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = '{name}'", max_results=20)
        versions = ", ".join(str(n) for n in sorted(int(one.version) for one in found)) or "none"
        return f"aliases: {', '.join(sorted(aliases)) or 'none'}; versions: {versions}"
    names = [one.name for one in client.search_registered_models(max_results=20)]
    return "models there: " + (", ".join(names) or "none, so run a sweep first")


def connect_registry(uri: str, *, write: bool = True) -> MlflowClient:
    """A client of a store that answers (asking first, for MLflow itself would try for minutes)."""
    check_server(uri, write=write)
    if write:
        make_folder(uri)
    return MlflowClient(uri, uri)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise RegistryError(error.rule, seen=error.seen, fix=error.fix) from error


@contextlib.contextmanager
def registry_errors(uri: str) -> Iterator[None]:
    """Tell whatever a store or a connection raises as one line."""
    try:
        yield
    except UserError:
        raise
    except (MlflowException, OSError) as error:
        raise RegistryError(
            "the registry takes and gives what is asked",
            seen=redact(first_line(error)),
            fix=f"look at {redact(uri)}",
        ) from error
