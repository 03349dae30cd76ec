"""Zip files as anybody packs them, and the names of what is not a zip."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import DataError

_UNPACK = "unpack it and name the folder as folder:PATH"
_FOREIGN = (
    (0, b"Rar!\x1a\x07", "a RAR archive", f"{_UNPACK} (unrar x FILE)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", f"{_UNPACK} (7z x FILE)"),
    (257, b"ustar", "a tar archive", f"{_UNPACK} (tar xf FILE)"),
    (0, b"\x1f\x8b", "a gzip file, as .tar.gz", f"{_UNPACK} (tar xzf FILE)"),
    (0, b"BZh", "a bzip2 file, as .tar.bz2", f"{_UNPACK} (tar xjf FILE)"),
    (0, b"\xfd7zXZ\x00", "an xz file, as .tar.xz", f"{_UNPACK} (tar xJf FILE)"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file, as .tar.zst", f"{_UNPACK} (tar --zstd -xf FILE)"),
    (0, b"MSCF", "a Windows cabinet", _UNPACK),
    (32769, b"CD001", "a disc image", _UNPACK),
    (0, b"PAR1", "a Parquet file", "name it as hf:PATH"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "export its images to files or to an npz"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull"),
    (0, b"\x89PNG", "an image", "put it in a folder and name that as folder:PATH"),
    (0, b"\xff\xd8\xff", "an image", "put it in a folder and name that as folder:PATH"),
    (0, b"\x93NUMPY", "an array of numpy", "save it with numpy.savez and name it as npz:PATH"),
)
_METHODS = {6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES"}
_KNOWN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED, _UTF8 = 0x1, 0x800


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip for reading on several threads.

    Raises:
        DataError: there is no such file, or it is not a zip; the message says what it is and what to do.
    """
    rule, title = "zip:PATH names a zip file", str(path)
    if os.path.isdir(path):
        fix = f"did you mean 'folder:{title}'?"
        raise DataError("{seen} is a folder", rule=rule, seen=title, fix=fix)
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device may never end
        raise DataError("{seen} is no file", rule=rule, seen=title, fix="name a file on a disk")
    try:
        stream = path.open("rb")
    except OSError as error:
        what = "there is no file {seen}" if isinstance(error, FileNotFoundError) else "{seen} cannot be read"
        raise DataError(what, rule=rule, seen=title, fix="check the path and its permissions") from error
    try:
        # Of a stream that it is given, ZipFile does not count who reads, which no lock guards.
        return zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, EOFError) as error:
        stream.close()
        what, fix = _what_it_is(path)
        raise DataError(f"{{seen}} is {what}", rule=rule, seen=title, fix=fix) from error


def member_name(member: zipfile.ZipInfo) -> str:
    """A member's name with `/` between folders and none in front; it ends with `/` if it is a folder.

    Names without the mark of UTF-8 are read as UTF-8 where they can be; backslashes count as `/`.
    """
    name = _unicode_name(member).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) + ("/" if parts and name.endswith("/") else "")


def check_members(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    """Raises:
    DataError: there is no member, or one is encrypted, packed by an unknown method, or an array of an npz.
    """
    members, title = list(members), str(path)
    if not members:
        raise DataError(
            "{seen} holds no files", rule="a zip of images", seen=title, fix="check what was packed"
        )
    if all(member.filename.endswith(".npy") for member in members):
        fix = f"did you mean 'npz:{title}'?"
        raise DataError("{seen} holds arrays", rule="a zip of image files", seen=title, fix=fix)
    if any(member.flag_bits & _ENCRYPTED for member in members):
        fix = f"with its password {_UNPACK}"
        raise DataError("{seen} is encrypted", rule="a zip without a password", seen=title, fix=fix)
    for member in members:
        if member.compress_type not in _KNOWN_METHODS:
            method = _METHODS.get(member.compress_type, f"method {member.compress_type}")
            rule = "a zip is packed by Deflate, bzip2 or LZMA, or not at all"
            raise DataError(f"{{seen}} is packed by {method}", rule=rule, seen=title, fix=_UNPACK)


def _unicode_name(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & _UTF8 or member.filename.isascii():
        return member.filename
    raw = member.orig_filename.encode("cp437", "replace")  # what zipfile took the bytes for
    if field := _unicode_field(member.extra, raw):
        return field
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return member.filename


def _unicode_field(extra: bytes, raw: bytes) -> str:
    """The name in Info-ZIP's extra field 0x7075, if it belongs to the name `raw`; else ""."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 0x7075 and len(field) > 5 and struct.unpack_from("<I", field, 1)[0] == zlib.crc32(raw):
            return field[5:].decode("utf-8", "replace")
    return ""


def _what_it_is(path: Path) -> tuple[str, str]:
    """What a file that cannot be read as a zip is, and what to do about it."""
    with path.open("rb") as stream:
        head = stream.read(2**16)
    if not head:
        return "an empty file", "download or copy it again"
    for offset, magic, what, fix in _FOREIGN:
        if head.startswith(magic, offset):
            return f"{what}, not a zip", fix
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not a zip", "download the file itself"
    if head.startswith((b"PK\x03\x04", b"PK\x07\x08", b"PK00")):
        return (
            "a damaged zip, or a part of one",
            "download or copy it again; of a zip in parts all are needed",
        )
    return "no zip", "name a zip file, or a folder as folder:PATH"
