"""Where a trial works: on another node, while the store is unreachable, in a shared folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_stores import FailingStore, contents, write_files

from pipeline.storage.object_store import ObjectStore
from pipeline.storage.trial_storage import trial_storage
from pipeline.training.checkpoint import TrialFolder


def test_a_trial_goes_on_on_another_node(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "one"))
    first = trial_storage("", store.url)
    folder = TrialFolder(first.root / "trials/7")
    for kimg in (1, 2, 3):
        folder.save(kimg, {"kimg": kimg})
        assert first.publish(folder.root) == ""
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "two"))
    second = trial_storage("", store.url)
    assert second.root != first.root
    again = TrialFolder(second.root / "trials/7")
    write_files(again.root, **{"best-000000009-0123456789abcdef_DOT_pt": "of an earlier run on this node"})
    second.fetch(again.root)
    state = again.restore()
    assert state is not None
    assert state["kimg"] == 3
    assert sorted(p.name[:15] for p in again.root.glob("*.pt")) == ["state-000000002", "state-000000003"]
    assert not second.stop_requested()
    store.put("stop", b"")
    assert trial_storage("", store.url).stop_requested()


def test_a_trial_goes_on_while_the_store_is_unreachable(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path))
    monkeypatch.setattr("pipeline.storage.trial_storage.PUBLISH_SEC", 0.1)
    storage, failing = trial_storage("", store.url), FailingStore(store)
    storage._sync.store = failing  # type: ignore[attr-defined]
    write_files(storage.root, trials__0__records_DOT_jsonl="r")
    problem = storage.publish(storage.root / "trials/0")
    assert problem.startswith(f"{store.url} is unreachable")
    assert "the trial goes on" in problem
    failing.left = 10
    assert storage.publish(storage.root / "trials/0") == ""
    assert store.exists("trials/0/records.jsonl")


def test_a_shared_folder_needs_no_copies(tmp_path: Path) -> None:
    storage = trial_storage(str(tmp_path), "")
    assert storage.root == tmp_path
    storage.fetch(tmp_path / "trials/0")
    assert storage.publish(tmp_path / "trials/0") == ""
    assert not storage.stop_requested()
    (tmp_path / "stop").touch()
    assert storage.stop_requested()
    assert contents(tmp_path) == {"stop": b""}
