"""Addresses of sweeps in object stores, and the local folders that hold their working copies.

Responsible for parsing and checking addresses; not for opening a store.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pipeline.errors import SweepError
from pipeline.storage.files import cache_root

SCHEMES = ("s3", "gs", "gcs")
"""pyarrow knows more of them (abfs, hdfs, ...); these are the ones that are tested against a server."""
OPTIONS = ("endpoint_override", "region", "scheme")
"""What may follow a `?`: where another server of the same protocol answers, and how."""


def is_url(text: str) -> bool:
    """Whether --out, or a sweep, is given as an address rather than as a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) is not None


def check_url(url: str) -> str:
    """The normalized address: no slash at its end, no fragment.

    Raises:
        SweepError: the scheme is not supported, the bucket or the prefix is missing, an option is unknown, or
            there are credentials in the address (which the message does not repeat).
    """
    parts = urlsplit(url)
    path = parts.path.strip("/")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in SCHEMES:
        raise SweepError(
            "{seen} is in no object store that gansweep supports",
            rule=f"an address begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}",
            seen=shown,
            fix="use one of these, or a folder",
        )
    if "@" in parts.netloc:
        raise SweepError(
            "there are credentials in the address {seen}",
            rule="credentials come from the environment",
            seen=shown,
            fix="export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS",
        )
    if unknown := options.keys() - set(OPTIONS):
        raise SweepError(
            "an address has no option {seen}",
            rule=f"its options are {', '.join(OPTIONS)}",
            seen=sorted(unknown)[0],
            fix="leave it out; credentials come from the environment",
        )
    if not parts.netloc or not path or ".." in path.split("/"):
        raise SweepError(
            "{seen} is no place for a sweep",
            rule="an address has a bucket and a prefix",
            seen=shown,
            fix=f"write {parts.scheme}://BUCKET/PREFIX",
        )
    return urlunsplit((parts.scheme, parts.netloc, f"/{path}", parts.query, ""))


def join_url(url: str, name: str) -> str:
    """The address one level below `url`."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path}/{name}"))


def parent_url(url: str) -> tuple[str, str]:
    """The address one level above `url`, and the last name of `url`.

    Raises:
        SweepError: there is none above.
    """
    parts = urlsplit(check_url(url))
    above, _, name = parts.path.rpartition("/")
    return check_url(urlunsplit(parts._replace(path=above))), name


def scratch_dir(url: str, role: str = "sweep") -> Path:
    """The folder on this machine that holds a working copy of `url`; each role has a separate one.

    role: `sweep` for the process that runs the sweep, `node` for its trials, `copy` for readers.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", urlsplit(url).path.rpartition("/")[2])
    return cache_root() / "stores" / role / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def advisory_lock_key(url: str) -> int:
    """The key of the sweep at `url` among the advisory locks of a database: a signed 64-bit integer."""
    parts = urlsplit(url)
    named = f"{parts.scheme}://{parts.netloc}{parts.path}".encode()
    return int.from_bytes(hashlib.sha256(named).digest()[:8], "big", signed=True)
