"""The arrays of an npz or npy file: small ones in memory, large ones mapped. Nothing is unpickled."""

from __future__ import annotations

import math
import os
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.data.arrays.array_layout import Array, Header
from pipeline.data.files.ignored_names import reason_to_ignore
from pipeline.data.preparing.prepared import memory_bytes
from pipeline.errors import DataError
from pipeline.storage.readable import readable_memory

IN_MEMORY = 64 * 2**20
"""Arrays of up to so many bytes are read at once."""
_LOCAL_HEADER, _COPY_BYTES = 30, 2**20
SOLE = "images"
"""What the array of an npy file is called, which has no name."""


def array_headers(path: Path) -> dict[str, Header]:
    """Name, shape and dtype of every array; raises whatever a damaged file raises."""
    if _is_npy(path):
        with path.open("rb") as stream:
            return {SOLE: _read_header(stream)[0]}
    with zipfile.ZipFile(path) as archive:
        found = {}
        for member in archive.namelist():
            if member.endswith(".npy") and not reason_to_ignore(os.path.basename(member), False):
                with archive.open(member) as content:
                    found[member.removesuffix(".npy")] = _read_header(content)[0]
        return found


def load_array(path: Path, name: str, scratch: Path) -> Array:
    """One array of the file, every byte checked where the file has checksums.

    A large array is mapped where it lies; one that is compressed, or in Fortran order, is first unpacked into
    a nameless file of `scratch`, which is gone when the array is; or into memory where that has no room.

    Raises:
        DataError: it is too large for both.
        Exception: whatever a damaged file raises.
    """
    if _is_npy(path):
        with path.open("rb") as stream:
            return _load(stream, path, 0, os.path.getsize(path), scratch)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1  # not encrypted
        with archive.open(info) as member:
            return _load(
                member, path, _content_offset(path, info) if stored else None, info.file_size, scratch
            )


def _load(stream: IO[bytes], path: Path, offset: int | None, length: int, scratch: Path) -> Array:
    """The array in `stream`, `length` bytes. offset: where they begin in the file; None = they are packed."""
    header, fortran = _read_header(stream)
    start = stream.tell()
    size = math.prod(header.shape) * header.dtype.itemsize
    if header.dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if start + size != length:
        raise ValueError(f"{header} takes {size} bytes, and there are {length - start}")
    order = "F" if fortran else "C"
    if size > IN_MEMORY and offset is not None:
        while stream.read(_COPY_BYTES):  # the zip's checksum is compared at the end
            pass
        found = np.memmap(path, header.dtype, "r", offset + start, header.shape, order)  # type: ignore[call-overload]
    elif size > IN_MEMORY and (file := _temporary_file(scratch, size)):
        with file:
            shutil.copyfileobj(stream, file, _COPY_BYTES)
            file.flush()
            found = np.memmap(file, header.dtype, "r", 0, header.shape, order)  # type: ignore[call-overload]
    else:
        return np.frombuffer(stream.read(), header.dtype).reshape(header.shape, order=order)  # type: ignore[call-overload,no-any-return]
    return _image_after_image(found, scratch) if fortran else found


def _image_after_image(array: Array, scratch: Path) -> Array:
    """A copy in C order, so that one image is read from one place."""
    file = _temporary_file(scratch, array.nbytes)
    if file is None:
        return np.ascontiguousarray(array)
    with file:
        copied: np.memmap[Any, Any] = np.memmap(file, array.dtype, "w+", 0, array.shape)
        copied[:] = array
        return copied


def _temporary_file(scratch: Path, size: int) -> IO[bytes] | None:
    """A nameless file with room for `size` bytes; None where there is none, and memory has to do."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        free = f"{readable_memory(shutil.disk_usage(scratch).free)} free"
        if size <= shutil.disk_usage(scratch).free:
            return tempfile.TemporaryFile(dir=scratch)
    except OSError as error:  # read-only
        free = str(error)
    if size > memory_bytes() / 2:
        rule = f"unpacking takes {readable_memory(size)} in {scratch}"
        fix = "free the space, or write it with numpy.savez (not compressed), which is read in place"
        raise DataError("the disk is too full: {seen}", rule=rule, seen=free, fix=fix)
    return None


def _content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: its local header has names and extras of its own length."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        name, extra = struct.unpack("<HH", stream.read(_LOCAL_HEADER)[26:])
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)


def _is_npy(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(6) == b"\x93NUMPY"


def _read_header(stream: IO[bytes]) -> tuple[Header, bool]:
    """The header, and whether the array is in Fortran order; the stream is then at the data."""
    if np.lib.format.read_magic(stream) == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:  # only needed for structured types, which are refused anyway
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    return Header(shape, dtype), fortran
