"""Proxies that the environment names: which one an address is asked through, and none for this machine."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

LOOPBACK = ("localhost", "127.0.0.1", "127.0.1.1", "127.0.0.0/8", "0.0.0.0", "::1", "[::1]")
"""Entries of no_proxy: programs differ in which of them they understand. Debian gives a machine's own name
127.0.1.1."""


def ask_loopback_directly() -> None:
    """Add this machine to the `no_proxy` of this process and of those that it starts.

    What no_proxy names already is kept. Without a proxy in the environment nothing changes.
    """
    if not getproxies_environment().keys() - {"no"}:
        return
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        known = _entries(os.environ.get(name) or os.environ.get(other) or "")
        if "*" not in known:
            os.environ[name] = ",".join(dict.fromkeys([*known, *LOOPBACK]))


def proxy_for(url: str) -> str:
    """The variable of the environment that sends requests for `url` through a proxy; empty = none does."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return ""
    if not host or is_loopback(host) or _is_excepted(host, parts.netloc.rpartition("@")[2]):
        return ""
    names = (f"{parts.scheme}_proxy", "all_proxy")
    return next((n for name in names for n in (name, name.upper()) if os.environ.get(n)), "")


def is_loopback(host: str) -> bool:
    """Whether a host's name or number stands for this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_excepted(host: str, with_port: str) -> bool:
    """Whether no_proxy names the host: by name, by suffix, or by a network (10.0.0.0/8)."""
    if proxy_bypass(with_port) or proxy_bypass(host):
        return True
    entries = _entries(os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "")
    return any(_in_network(host, entry) for entry in entries if "/" in entry)


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _entries(no_proxy: str) -> list[str]:
    return [entry for entry in (one.strip() for one in no_proxy.split(",")) if entry]
