"""The head of a cluster as a client sees it: its dashboard, asked over HTTP with the token.

Every request has a time limit: Ray's own client waits for ever for a host that drops packets.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.cluster.versions import version_of, versions_differ
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError, redact
from pipeline.search.resources import Cluster, Node, trial_resources

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TIMEOUT_SEC = 10.0


def dashboard_address(text: str) -> str:
    """The dashboard's address, with its scheme and without a trailing slash.

    Raises:
        ConfigError: it is not an http address.
    """
    address = text if "://" in text else f"http://{text}"
    with contextlib.suppress(ValueError):  # of half an IPv6 address
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and not parts.username:
            return address.rstrip("/")
    raise ConfigError(
        "--address {seen} is not an http address",
        rule="it must be the address of the cluster's dashboard",
        seen=redact(address),
        fix=f"write {DEFAULT_ADDRESS} (`ray dashboard cluster.yaml` opens a tunnel to it)",
    )


def headers() -> dict[str, str]:
    """The HTTP header with this machine's token, from where Ray looks for it; empty where tokens are off."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return {}
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    found = os.environ.get("RAY_AUTH_TOKEN", "")
    found = found or (path.read_text(encoding="utf-8").strip() if path.is_file() else "")
    return {"Authorization": f"Bearer {found}"} if found else {}


def check_head(address: str, config: SweepConfig) -> None:
    """Check that the cluster answers (see `check_head_answers`) and can hold a trial of the sweep."""
    check_head_answers(address)
    trial_resources(config, head_nodes(address))


def check_head_answers(address: str) -> None:
    """Check that the cluster answers, accepts our token and runs this machine's versions.

    Raises:
        ConfigError: it does not.
    """
    ray = str(ask_head(address, "/api/version").get("ray_version"))
    python = str(ask_head(address, "/api/v0/cluster_metadata").get("data", {}).get("pythonVersion", ""))
    our_ray, our_python = version_of("ray"), platform.python_version()
    if ray != our_ray or (python or our_python).split(".")[:2] != our_python.split(".")[:2]:
        raise versions_differ(f"ray {ray}, python {python} there; ray {our_ray}, python {our_python} here")


def head_nodes(address: str) -> Cluster:
    """The cluster's nodes and their resources; `grows` where a launcher or an operator started them."""
    rows = ask_head(address, "/api/v0/nodes?detail=1")["data"]["result"]["result"]
    nodes: list[Node] = [row["resources_total"] for row in rows if row["state"] == "ALIVE"]
    summary = ask_head(address, "/nodes?view=summary")["data"]["summary"]
    return Cluster(nodes, grows=any(node["raylet"].get("nodeTypeName") for node in summary))


def ask_head(address: str, path: str) -> dict[str, Any]:
    """The answer of the dashboard, as JSON.

    Raises:
        ConfigError: it does not answer, does not accept our token, or is something else.
    """
    request = urllib.request.Request(address + path, headers=headers())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as answer:
            content: dict[str, Any] = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _no_answer(address, error) from error
    return content


def _no_answer(address: str, error: Exception) -> ConfigError:
    if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
        refusal = (
            "refuses this machine's token" if headers() else "asks for a token, and this machine has none"
        )
        return ConfigError(
            f"the cluster at {{seen}} {refusal}",
            seen=address,
            fix="put the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN",
        )
    foreign = isinstance(error, http.client.HTTPException | ValueError)
    reason = "it speaks no HTTP" if foreign else getattr(error, "reason", None) or error
    return ConfigError(
        "no Ray dashboard answers at --address {seen}",
        seen=f"{address} ({reason})",
        fix="start the cluster, open the tunnel (ray dashboard cluster.yaml), or correct HOST:PORT "
        "(the dashboard's port is 8265, Ray's own 6379)",
    )
