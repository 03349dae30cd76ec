"""The head of a cluster as a client sees it: its dashboard's address, over HTTP, with the token.

Owns: is it there, does it let us in, which Ray and Python it runs, what its nodes have. Refuses: jobs.

Every question has a time limit: Ray's own client waits for ever for a host that swallows packets.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.cluster.jobs.launcher import version_of
from pipeline.errors import ConfigError
from pipeline.search.resources import Cluster, Node

DEFAULT = "http://127.0.0.1:8265"
TIMEOUT_SEC = 10.0


def address_of(text: str) -> str:
    """The dashboard's address, with its scheme and without a trailing slash.

    Raises:
        ConfigError: it is no http address.
    """
    address = text if "://" in text else f"http://{text}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ConfigError(
            "--address is the dashboard's address",
            seen=f"{parts.scheme}://{parts.hostname or ''}",
            fix=f"write {DEFAULT} (`ray dashboard cluster.yaml` opens a tunnel to it)",
        )
    return address.rstrip("/")


def headers() -> dict[str, str]:
    """What lets this machine in: its token, where Ray looks for one; nothing where it is not to be used."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return {}
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    found = os.environ.get("RAY_AUTH_TOKEN", "")
    found = found or (path.read_text(encoding="utf-8").strip() if path.is_file() else "")
    return {"Authorization": f"Bearer {found}"} if found else {}


def check_head_answers(address: str) -> None:
    """Look whether the cluster answers, lets us in and runs this machine's versions.

    Raises:
        ConfigError: it does not.
    """
    ray = str(ask_head(address, "/api/version").get("ray_version"))
    python = str(ask_head(address, "/api/v0/cluster_metadata").get("data", {}).get("pythonVersion", ""))
    here = {"ray": str(version_of("ray")), "python": platform.python_version()}
    if ray != here["ray"] or _minor(python or here["python"]) != _minor(here["python"]):
        raise ConfigError(
            "the cluster and this machine have the same ray and python",
            seen=f"ray {ray}, python {python} there; ray {here['ray']}, python {here['python']} here",
            fix="install what constraints.txt pins on both",
        )


def head_nodes(address: str) -> Cluster:
    """What the cluster's nodes have; `grows` where a launcher or an operator began them."""
    rows = ask_head(address, "/api/v0/nodes?detail=1")["data"]["result"]["result"]
    nodes: list[Node] = [row["resources_total"] for row in rows if row["state"] == "ALIVE"]
    summary = ask_head(address, "/nodes?view=summary")["data"]["summary"]
    return Cluster(nodes, grows=any(node["raylet"].get("nodeTypeName") for node in summary))


def ask_head(address: str, path: str) -> dict[str, Any]:
    """The answer of the dashboard, as JSON.

    Raises:
        ConfigError: it does not answer, does not let us in, or is something else.
    """
    known = headers()
    request = urllib.request.Request(address + path, headers=known)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as answer:
            content: dict[str, Any] = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise _closed(address, known) if error.code in (401, 403) else _silent(address, error) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _silent(address, error) from error
    return content


def _closed(address: str, known: dict[str, str]) -> ConfigError:
    return ConfigError(
        "the cluster takes this machine's token",
        seen=f"{address} refuses {'it' if known else 'us: there is none'}",
        fix="put the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN",
    )


def _silent(address: str, error: Exception) -> ConfigError:
    foreign = isinstance(error, http.client.HTTPException | ValueError)
    reason = "it speaks no HTTP" if foreign else getattr(error, "reason", None) or error
    return ConfigError(
        "a Ray cluster's dashboard answers at --address",
        seen=f"{address} ({reason})",
        fix="start the cluster, open the tunnel (ray dashboard cluster.yaml), or correct HOST:PORT "
        "(the dashboard's port is 8265, Ray's own 6379)",
    )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
