"""A data set out of a generator: any number of images, streamed into files, resumable.

Owns: the three layouts of such a folder, its `dataset.json`, what a second call may go on with.
Refuses: keeping more than a portion of it in memory; how a generator draws.

    folder   [CLASS/]000000000.png   readable again as --data folder:DIR
    npz      part-00000.npz          images uint8 (n,H,W,C), labels int64 (n,)
    parquet  part-00000.parquet      image {bytes: PNG, path}, label int64: the columns that Hugging Face
                                     data sets have
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.image_files import Labels, Pixels
from pipeline.errors import ConfigError
from pipeline.storage.files import read_json, replacing, write_text

FORMATS = ("folder", "npz", "parquet")
MOST = 10**9
_FORMAT = 1
_PORTION_BYTES = 2**22
_STEP = 512  # where a generator's stream may begin

Portion = tuple[Pixels, Labels | None]


class GeneratorSource(Protocol):
    """What is drawn from: `pipeline.tracking.registry.load.LoadedGenerator` is one."""

    classes: int
    size: int
    channels: int

    def stream(
        self, n: int, seed: int = 0, label: int | None = None, batch: int = 256, truncation: float = 1.0,
        *, start: int = 0, balanced: bool = False,
    ) -> Iterator[Portion]: ...  # fmt: skip


@dataclass(frozen=True)
class ExportRequest:
    """What is drawn. identity: of the generator. labels: `data` (as frequent as there) or `balanced`."""

    n: int
    format: str
    identity: str
    model: str = ""
    seed: int = 0
    label: int | None = None
    labels: str = "data"
    truncation: float = 1.0
    device: str = "cpu"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(
                "--format is folder, npz or parquet", seen=self.format, fix="write --format folder"
            )
        if self.labels not in ("data", "balanced"):
            raise ConfigError("--labels is data or balanced", seen=self.labels, fix="write --labels balanced")
        if not 1 <= self.n <= MOST:
            raise ConfigError(f"-n lies in [1, {MOST}]", seen=self.n, fix="write -n 100000")
        if self.label is not None and self.labels == "balanced":
            raise ConfigError(
                "--label asks for one class, --labels balanced for all of them",
                seen="both",
                fix="leave one out",
            )


def export_dataset(
    source: GeneratorSource,
    out: Path,
    request: ExportRequest,
    advance: Callable[[int, int], None] = lambda done, n: None,
) -> int:
    """Write the data set that is asked for into the folder `out`; returns how many images were new.

    Interrupted, it goes on where it was when it is called again; with a larger n it goes on to that. The
    bytes are those of an unbroken run. advance: told (images there, n) after each portion.

    Raises:
        ConfigError: `out` holds something else, or another data set.
        RegistryError: the generator cannot draw what is asked.
    """
    portion = max(_STEP, _PORTION_BYTES // (source.size**2 * source.channels) // _STEP * _STEP)
    done = _begin(out, request, portion)
    begin = min(done, request.n)
    if begin < request.n:
        begin = begin // portion * portion  # a last part that was not full is written again
    # Also where nothing is left to do: an impossible request is told.
    portions = source.stream(
        request.n, request.seed, request.label, portion, request.truncation,
        start=begin if begin < request.n else 0, balanced=request.labels == "balanced",
    )  # fmt: skip
    advance(begin, request.n)
    there = begin
    while there < request.n:
        images, labels = next(portions)
        _WRITERS[request.format](out, there, portion, images, labels, request.class_names)
        there += len(images)
        _note(out, request, portion, there)
        advance(there, request.n)
    return max(0, request.n - done)


def write_npz(out: Path, portions: Iterator[Portion], n: int, shape: tuple[int, int, int]) -> None:
    """Write one npz of n images as they come: `images` uint8 (n,H,W,C) and perhaps `labels`; atomically."""
    kept: list[Labels] = []
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            _header(member, (n, *shape), "|u1")
            for images, labels in portions:
                member.write(np.ascontiguousarray(images).data)
                kept += [] if labels is None else [labels]
        if kept:
            with archive.open("labels.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.concatenate(kept), allow_pickle=False)


def _header(member: IO[bytes], shape: tuple[int, ...], descr: str) -> None:
    np.lib.format.write_array_header_1_0(member, {"descr": descr, "fortran_order": False, "shape": shape})


# ---- dataset.json: what a folder holds, and how far it is


def _begin(out: Path, request: ExportRequest, portion: int) -> int:
    """How many images the folder has, after refusing one that holds something else."""
    stored = read_json(out / "dataset.json")
    if not stored:
        if out.exists() and (not out.is_dir() or any(not p.name.startswith(".") for p in out.iterdir())):
            raise ConfigError("a new data set's folder is empty", seen=str(out), fix="choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        _note(out, request, portion, 0)
        return 0
    wanted = _described(request, portion, 0)
    keys = [key for key in wanted if key not in ("n", "done", "model") and stored.get(key) != wanted[key]]
    done = stored.get("done")
    if keys or not isinstance(done, int):
        raise ConfigError(
            f"a data set goes on as it began ({out.name} exists)",
            seen="another " + ", ".join(keys or ["dataset.json"]),
            fix="choose another --out, or ask for the same",
        )
    if request.n < int(stored.get("n", 0)):
        raise ConfigError(
            "a data set only grows", seen=f"-n {request.n}", fix=f"write -n {stored['n']} or more"
        )
    return done


def _note(out: Path, request: ExportRequest, portion: int, done: int) -> None:
    write_text(out / "dataset.json", json.dumps(_described(request, portion, done), indent=1) + "\n")


def _described(request: ExportRequest, portion: int, done: int) -> dict[str, Any]:
    fields = {**asdict(request), "class_names": list(request.class_names)}
    return {"dataset": _FORMAT, **fields, "portion": portion, "done": done}


# ---- the layouts: (folder, index of the first image, images per part, images, labels, names of classes)


def _write_folder(
    out: Path, first: int, portion: int, images: Pixels, labels: Labels | None, names: Sequence[str]
) -> None:
    places = [out] * len(images)
    if labels is not None:
        folders = {int(label): out / _class_folder(int(label), names) for label in np.unique(labels)}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        places = [folders[int(label)] for label in labels]

    def write(index: int) -> None:
        (places[index] / f"{first + index:09d}.png").write_bytes(_png(images[index]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # zlib lets go of the interpreter
        for _ in pool.map(write, range(len(images))):
            pass


def _class_folder(label: int, names: Sequence[str]) -> str:
    """The class's name where it can be a folder's; numbers that sort like the labels else."""
    name = names[label] if label < len(names) else ""
    return name if re.fullmatch(r"[\w][\w .-]{0,99}", name) else f"class-{label:05d}"


def _write_npz(
    out: Path, first: int, portion: int, images: Pixels, labels: Labels | None, names: Sequence[str]
) -> None:
    shape = (images.shape[1], images.shape[2], images.shape[3])
    write_npz(_part(out, first, portion, "npz"), iter([(images, labels)]), len(images), shape)


def _write_parquet(
    out: Path, first: int, portion: int, images: Pixels, labels: Labels | None, names: Sequence[str]
) -> None:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(
            "parquet is written by pyarrow", seen="no pyarrow", fix="pip install pyarrow, or --format npz"
        ) from error
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        data = list(pool.map(_png, images))
    rows = [{"bytes": png, "path": f"{first + i:09d}.png"} for i, png in enumerate(data)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns: dict[str, Any] = {"image": pyarrow.array(rows, kind)}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pyarrow.array(labels)
        features["label"] = (
            {"names": list(names), "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
        )
    table = pyarrow.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    with replacing(_part(out, first, portion, "parquet")) as temporary:
        parquet.write_table(table, temporary)


_Writer = Callable[[Path, int, int, Pixels, Labels | None, Sequence[str]], None]
_WRITERS: dict[str, _Writer] = {"folder": _write_folder, "npz": _write_npz, "parquet": _write_parquet}


def _part(out: Path, first: int, portion: int, suffix: str) -> Path:
    return out / f"part-{first // portion:05d}.{suffix}"


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(
        buffer, format="PNG", compress_level=1
    )
    return buffer.getvalue()
