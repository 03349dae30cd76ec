"""Copies for commands that only look: what they hold, what goes back, addresses without a sweep."""

from __future__ import annotations

import time
from pathlib import Path

import machines
import pytest
from histories import best_of
from sweep_folders import summary_of

from pipeline.errors import SweepError
from pipeline.storage.object_store import ObjectStore
from pipeline.storage.readonly_copy import fetch_sweep_toml, fetched_sweep, readonly_copy, watched_copy

BEST = "trials/3/best-000000001-0123456789abcdef.pt"


@pytest.fixture
def sweep(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sweep without a champion in a store; its address."""
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "cache"))
    store.put("sweep.toml", b"toml")
    store.put("summary.json", summary_of(best=best_of(3)).to_text().encode())
    store.put("trials/3/records.jsonl", b"r")
    store.put(BEST, b"b")
    return store.url


def files(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} - {"lock"}


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    for copy in (readonly_copy, fetched_sweep, watched_copy):
        with copy(str(tmp_path)) as root:
            assert root == tmp_path


def test_only_declared_outputs_go_back(sweep: str, store: ObjectStore) -> None:
    with readonly_copy(sweep, "report.html", "missing.html") as root:
        assert files(root) == {"sweep.toml", "summary.json", "trials/3/records.jsonl"}
        (root / "report.html").write_text("html")
        (root / "sweep.toml").write_text("changed")
    assert store.get("report.html") == b"html"
    assert store.get("sweep.toml") == b"toml"
    assert not store.exists("missing.html")


def test_the_best_generator_is_fetched(sweep: str, store: ObjectStore) -> None:
    with fetched_sweep(sweep) as root:
        assert files(root) == {"sweep.toml", "summary.json", BEST}
    store.put("champion/files.json", b"{}")
    with fetched_sweep(sweep) as root:
        assert "champion/files.json" in files(root)


def test_a_watched_copy_is_refreshed(sweep: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.readonly_copy.REFRESH_SEC", 0.05)
    with watched_copy(sweep) as root:
        assert files(root) == {"sweep.toml", "summary.json"}
        time.sleep(0.1)
        store.put("summary.json", b"{}")
        machines.wait_for(lambda: (root / "summary.json").read_bytes() == b"{}", 10, "the refresh")


def test_an_address_without_a_sweep(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path))
    with pytest.raises(SweepError, match="there is no sweep at .*sweep.toml"), readonly_copy(store.url):
        pass
    with pytest.raises(SweepError, match="there is no sweep at"):
        fetch_sweep_toml(store.url)
