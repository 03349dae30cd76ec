"""What a user types for a place on disk, made absolute: folders, files, `folder:PATH`, `sqlite:///PATH`.

An sqlite address is read as SQLAlchemy reads it: `%3F` in it is a question mark, and what follows the first
plain one is its query. With `uri=true` in the query it holds a `file:` address of sqlite's own.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

from pipeline.errors import ConfigError
from pipeline.tables import DATA_SOURCES

_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]*)(\?.*)?", re.DOTALL)
_FILE_URI = "file:"


@dataclass(frozen=True)
class Address:
    """A text that names a path; `str` writes it. prefix: `folder:`, `sqlite:///`. query: `?timeout=5`."""

    path: str
    prefix: str = ""
    query: str = ""

    def at(self, path: str | Path) -> Address:
        """The same for another path."""
        return dataclasses.replace(self, path=str(path))

    def __str__(self) -> str:
        prefix, path = self.prefix, self.path
        if prefix.endswith(_FILE_URI):
            path = quote(path)
        if prefix.startswith("sqlite"):
            path = re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", path).replace("?", "%3F")
            if path != self.path:  # MLflow would make a folder of the name as it is written here
                prefix = re.sub("^sqlite:", "sqlite+pysqlite:", prefix)
        return f"{prefix}{path}{self.query}"


def parse_sqlite(uri: str) -> Address | None:
    """The parts of an sqlite address, its path as written; None for one in memory and for other stores."""
    match = _SQLITE.fullmatch(uri)
    if match is None:
        return None
    prefix, path, query = match[1], unquote(match[2]), match[3] or ""
    options = parse_qs(query[1:])
    if options.get("uri", [""])[0].lower() in ("true", "1", "yes", "on", "y", "t") and path.startswith(
        _FILE_URI
    ):
        prefix, path = prefix + _FILE_URI, unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", path))
    if path in ("", ":memory:") or options.get("mode") == ["memory"]:
        return None
    return Address(path, prefix, query)


def parse_source(source: str) -> Address | None:
    """The parts of a data source that names a path; None for the others."""
    kind, _, path = source.partition(":")
    row = DATA_SOURCES.get(kind)
    if row is None or not (row.path and path):
        return None
    if "NAME" in row.path and not _looks_like_path(path):
        return None
    return Address(path, f"{kind}:")


def _looks_like_path(text: str) -> bool:
    """Whether a text that may be a name is a path: it exists, or begins as paths do."""
    base = text.rpartition(":")[0]  # of PATH:CONFIG
    return text.startswith(("/", "./", "../", "~")) or any(map(os.path.exists, filter(None, (text, base))))


def sqlite_path(uri: str) -> Path | None:
    """The file of an sqlite address, absolute; None for one in memory and for other stores."""
    address = parse_sqlite(uri)
    return Path(absolute_path(address.path)) if address else None


def sqlite_address(path: Path) -> str:
    """The sqlite address of a file."""
    return str(Address(str(path), "sqlite:///"))


def absolute_path(path: str) -> str:
    """The path from the root on, `~` expanded; a `..` behind a link is followed, other links stay.

    Raises:
        ConfigError: the path is not UTF-8: no file of a sweep could name it.
    """
    full = os.path.expanduser(path)
    if not os.path.isabs(full):
        full = os.path.join(_current_folder(path), full)
    short = os.path.abspath(full)
    if ".." in full.split(os.sep) and os.path.realpath(short) != os.path.realpath(full):
        short = os.path.realpath(full)
    try:
        short.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            "the path {seen} is not UTF-8",
            rule="the files of a sweep name it",
            seen=short,
            fix="rename the folder, or link to it under another name",
        ) from None
    return short


def _current_folder(path: str) -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise ConfigError(
            "the current folder was deleted",
            rule="a relative path is taken from it",
            seen=path,
            fix="cd to another, or give the path from / on",
        ) from None


def absolute_source(source: str) -> str:
    """A data source with its path absolute; one without a path as it is. Raises as `absolute_path`."""
    address = parse_source(source)
    return str(address.at(absolute_path(address.path))) if address else source


def absolute_sqlite(uri: str, option: str = "--tracking-uri") -> str:
    """An sqlite address with its path absolute; other addresses as they are.

    Raises:
        ConfigError: it is in memory, or cannot be read; `option` is named as where it comes from.
    """
    if not re.match(r"sqlite(\+\w+)?:", uri):
        return uri
    address = parse_sqlite(uri)
    if address is None:
        typed = re.sub(r"^sqlite(\+\w+)?:/{0,2}", "", uri) if not _SQLITE.fullmatch(uri) else ""
        raise ConfigError(
            f"{option} {{seen}} names no file",
            rule="a store in memory is lost at the end; three slashes come before a file's name",
            seen=uri,
            fix=f"write {option} sqlite:///{typed or 'FILE.db'}",
        )
    return str(address.at(absolute_path(address.path)))
