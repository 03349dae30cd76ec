"""Export of a data set of generated images: any number of them, streamed into files, resumable.

At most one chunk of images is in memory. `dataset.json` describes the folder and how far it is. Layouts:

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

import numpy as np
import numpy.typing as npt

from pipeline.data.pictures import to_picture
from pipeline.data.source_types import Labels, Pixels
from pipeline.errors import ConfigError
from pipeline.serving.sample_options import SampleOptions
from pipeline.storage.files import read_json, replacing, write_text
from pipeline.tracking.registry.load import LoadedGenerator

_FORMAT = 1
_CHUNK_BYTES = 2**22
_STEP = 512  # a generator's stream starts at a multiple of this

Chunk = tuple[Pixels, Labels | None]


@dataclass(frozen=True, kw_only=True)
class ExportRequest(SampleOptions):
    """The data set to write.

    Attributes:
        identity: hash of the generator's files.
        model: MODEL as it was given, for information.
        class_names: names of the labels; empty = they have none.
    """

    identity: str
    model: str = ""
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count()


def export_dataset(
    source: LoadedGenerator,
    out: Path,
    request: ExportRequest,
    advance: Callable[[int, int], None] = lambda done, n: None,
) -> int:
    """Write the requested data set into the folder `out`; returns how many images were new.

    An interrupted call is continued by the next one, and a call with a larger n extends the data set. The
    bytes are those of one call without interruption. advance: called with (images written, n) per chunk.

    Raises:
        ConfigError: `out` holds something else, or another data set.
        RegistryError: the generator cannot make what is requested.
    """
    chunk_size = max(_STEP, _CHUNK_BYTES // (source.size**2 * source.channels) // _STEP * _STEP)
    done = _check_folder(out, request, chunk_size)
    begin = done // chunk_size * chunk_size  # a last part that was not full is written again
    # Also where nothing is left to do: it raises for an impossible request.
    chunks = source.stream(
        request.n, request.seed, request.label, chunk_size, request.truncation,
        start=begin, balanced=request.labels == "balanced",
    )  # fmt: skip
    written = begin if done < request.n else request.n
    advance(written, request.n)
    while written < request.n:
        chunk = next(chunks)
        part = out / f"part-{written // chunk_size:05d}.{request.format}"
        _WRITERS[request.format](part, written, chunk, request.class_names)
        written += len(chunk[0])
        _write_state(out, request, chunk_size, written)
        advance(written, request.n)
    return max(0, request.n - done)


def write_npz(out: Path, chunks: Iterator[Chunk], shape: tuple[int, ...]) -> None:
    """Stream images of `shape` (n,H,W,C) into one npz, `labels` int64 (n,) if given; atomically."""
    all_labels: list[Labels] = []
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for images, labels in chunks:
                member.write(np.ascontiguousarray(images).data)
                all_labels += [] if labels is None else [labels]
        if all_labels:
            with archive.open("labels.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.concatenate(all_labels), allow_pickle=False)


# ---- dataset.json: the request, and how many images have been written


def _check_folder(out: Path, request: ExportRequest, chunk_size: int) -> int:
    """How many images of the data set the folder holds; an empty or missing one is prepared for it.

    Raises:
        ConfigError: the folder holds something else.
    """
    stored = read_json(out / "dataset.json")
    if not stored:
        if out.exists() and (not out.is_dir() or any(not p.name.startswith(".") for p in out.iterdir())):
            raise ConfigError(
                "{seen} is not empty",
                rule="a new data set needs an empty folder",
                seen=str(out),
                fix="choose another --out",
            )
        out.mkdir(parents=True, exist_ok=True)
        _write_state(out, request, chunk_size, 0)
        return 0
    requested = _state(request, chunk_size, 0)
    fixed = requested.keys() - {"n", "done", "model"}
    keys = [key for key in requested if key in fixed and stored.get(key) != requested[key]]
    done = stored.get("done")
    if keys or not isinstance(done, int):
        raise ConfigError(
            f"{{seen}} holds a data set with another {', '.join(keys or ['dataset.json'])}",
            rule="a data set is continued by the same request",
            seen=out.name,
            fix="choose another --out, or request the same",
        )
    if request.n < int(stored.get("n", 0)):
        raise ConfigError(
            "-n {seen} is less than the data set was begun with",
            rule="a data set only grows",
            seen=request.n,
            fix=f"write -n {stored['n']} or more",
        )
    return done


def _write_state(out: Path, request: ExportRequest, chunk_size: int, done: int) -> None:
    write_text(out / "dataset.json", json.dumps(_state(request, chunk_size, done), indent=1) + "\n")


def _state(request: ExportRequest, chunk_size: int, done: int) -> dict[str, object]:
    fields = {**asdict(request), "class_names": list(request.class_names)}
    return {"dataset": _FORMAT, **fields, "portion": chunk_size, "done": done}


# ---- layouts: (path of the part, index of its first image, images and labels, names of classes)


def _write_folder(part: Path, first: int, chunk: Chunk, names: Sequence[str]) -> None:
    images, labels = chunk
    parents = [part.parent] * len(images)
    if labels is not None:
        folders = {int(label): part.parent / _class_folder(int(label), names) for label in np.unique(labels)}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        parents = [folders[int(label)] for label in labels]

    def write(index: int) -> None:
        (parents[index] / f"{first + index:09d}.png").write_bytes(_png(images[index]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # zlib releases the interpreter lock
        for _ in pool.map(write, range(len(images))):
            pass


def _class_folder(label: int, names: Sequence[str]) -> str:
    """The name of the class if it can name a folder; else its number, so that folders sort like labels."""
    name = names[label] if label < len(names) else ""
    return name if re.fullmatch(r"[\w][\w .-]{0,99}", name) else f"class-{label:05d}"


def _write_npz(part: Path, first: int, chunk: Chunk, names: Sequence[str]) -> None:
    write_npz(part, iter([chunk]), chunk[0].shape)


def _write_parquet(part: Path, first: int, chunk: Chunk, names: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    images, labels = chunk
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        data = list(pool.map(_png, images))
    rows = [{"bytes": png, "path": f"{first + i:09d}.png"} for i, png in enumerate(data)]
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {"image": pyarrow.array(rows, image_type)}
    features: dict[str, object] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pyarrow.array(labels)
        features["label"] = (
            {"names": list(names), "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
        )
    table = pyarrow.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    with replacing(part) as temporary:
        parquet.write_table(table, temporary)


_WRITERS = {"folder": _write_folder, "npz": _write_npz, "parquet": _write_parquet}


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    to_picture(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
