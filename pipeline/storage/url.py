"""Addresses of object stores, and the folders here that stand for them.

Owns: what an address may look like, its parts, the names of scratch folders. Refuses: opening a store.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pipeline.errors import SweepError
from pipeline.storage.files import cache_root

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs")
OPTIONS = ("endpoint_override", "region", "scheme")
"""What may follow a `?`: where an S3-compatible server answers, and how."""


def is_url(text: str) -> bool:
    """Whether --out, or a sweep, is named by an address rather than by a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) is not None


def check_url(url: str) -> str:
    """The address without what means nothing in it.

    Raises:
        SweepError: another scheme, no bucket, unknown options, or credentials in it (which are not repeated).
    """
    parts = urlsplit(url)
    path = parts.path.strip("/")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in SCHEMES:
        fix = f"write one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}, or name a folder"
        raise SweepError("--out is a folder or an object store", seen=shown, fix=fix)
    if "@" in parts.netloc and not parts.scheme.startswith("abfs"):
        fix = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        raise SweepError("credentials come from the environment", seen=f"some in {shown}", fix=fix)
    if unknown := options.keys() - set(OPTIONS):
        fix = f"an address takes {', '.join(OPTIONS)}; credentials come from the environment"
        raise SweepError("every option of an address is known", seen=sorted(unknown)[0], fix=fix)
    if not parts.netloc or not path or ".." in path.split("/"):
        fix = f"write {parts.scheme}://BUCKET/PREFIX"
        raise SweepError("an address has a bucket and a prefix", seen=shown, fix=fix)
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
    """The folder on this machine that stands for `url`; each role has one of its own.

    role: `sweep` of the process that drives it, `node` of trials, `copy` of those who only look.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", urlsplit(url).path.rpartition("/")[2])
    return cache_root() / "stores" / role / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def lock_url(url: str) -> int:
    """A number that stands for the sweep at `url` in a database's locks: signed, 64 bits."""
    parts = urlsplit(url)
    named = f"{parts.scheme}://{parts.netloc}{parts.path}".encode()
    return int.from_bytes(hashlib.sha256(named).digest()[:8], "big", signed=True)
