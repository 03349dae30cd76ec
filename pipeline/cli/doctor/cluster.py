"""Checks of Ray: its authentication, and the nodes of a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.cli.doctor.finding import Finding
from pipeline.errors import UserError, first_line
from pipeline.storage.readable import readable_memory


def check_auth() -> Finding:
    """Whether Ray asks for a token, by the environment of this process."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    has_token = os.path.isfile(token) or bool(os.environ.get("RAY_AUTH_TOKEN"))
    if mode == "disabled":
        text = "RAY_AUTH_MODE=disabled, and Ray listens on all interfaces: anyone who reaches it can run code"
        return Finding("ray auth", "bad", text)
    if mode == "token" and not has_token:
        return Finding("ray auth", "warn", "token mode without a token: ray get-auth-token --generate")
    if mode == "token":
        return Finding("ray auth", "ok", "token mode; it travels in plain text: keep the network closed")
    text = (
        "Ray listens on all interfaces. A local sweep's Ray asks for a token; for a cluster "
        "export RAY_AUTH_MODE=token on every node and client"
    )
    return Finding("ray auth", "ok", text)


def check_cluster(address: str | None) -> list[Finding]:
    """The nodes of the cluster at `address` (HOST:PORT or auto); none for None, "" and "local"."""
    if not address or address == "local":
        return []
    from pipeline.cluster.connection import list_nodes  # imports ray

    try:
        return [_node(node) for node in list_nodes(address)]
    except UserError as error:
        return [Finding("cluster", "bad", str(error))]
    except Exception as error:  # ConnectionError, RuntimeError, ray's own
        return [Finding("cluster", "bad", f"{address}: {first_line(error)}")]


def _node(node: dict[str, Any]) -> Finding:
    if not node["Alive"]:
        return Finding("node", "warn", f"{node['NodeManagerAddress']} is dead")
    has = node["Resources"]
    parts = [f"{has.get('CPU', 0):g} CPU", f"{has.get('GPU', 0):g} GPU"]
    parts += [f"{readable_memory(has[key])} {key}" for key in ("memory", "object_store_memory") if key in has]
    return Finding("node", "ok", f"{node['NodeManagerAddress']}: {', '.join(parts)}")
