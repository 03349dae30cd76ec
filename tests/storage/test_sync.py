"""A folder and its store: both directions, interrupted uploads, logs, keys of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_stores import FailingStore, contents, write_files

from pipeline.storage.log_segments import Segment
from pipeline.storage.object_store import ObjectStore
from pipeline.storage.sync import FolderSync, is_scratch_file
from pipeline.tracking.event_log import EventLog


def _sync(store: object, root: Path, wanted: object = lambda key: True) -> FolderSync:
    return FolderSync(store, root, wanted)  # type: ignore[arg-type]


def test_a_folder_goes_to_the_store_and_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_files(here, sweep_DOT_toml="a", summary_DOT_json="{}", trials__0__records_DOT_jsonl="r")
    write_files(here, spool_DOT_jsonl="1\n2\nto")
    write_files(here, lock="me", study_DOT_journal="x", reruns__a="x", _DOT_12_tmp="x")
    sync = _sync(store, here)
    assert sync.push() == 4
    assert sync.push() == 0
    other = _sync(store, there)
    assert other.pull()
    expected = {"sweep.toml": b"a", "summary.json": b"{}", "spool.jsonl": b"1\n2\n"}
    assert contents(there) == {**expected, "trials/0/records.jsonl": b"r"}
    write_files(here, summary_DOT_json="{1}", spool_DOT_jsonl="1\n2\ncomplete\n")
    (here / "trials/0/records.jsonl").unlink()
    assert sync.push() == 2
    other.pull()
    assert contents(there) == {**expected, "summary.json": b"{1}", "spool.jsonl": b"1\n2\ncomplete\n"}
    segments = [Segment.of(0, b"1\n2\n"), Segment.of(4, b"complete\n")]
    assert store.list_keys("spool.jsonl").keys() == {f"spool.jsonl/{segment.name}" for segment in segments}
    assert len(contents(here)) == 3 + 4


def test_a_push_that_is_cut_anywhere_is_done_again(store: ObjectStore, tmp_path: Path) -> None:
    """A record in the store has its checkpoint and its best generator there, wherever a kill comes."""
    here = tmp_path / "here"
    write_files(
        here, trials__0__records_DOT_jsonl="r", trials__0__samples__1_DOT_png="p", spool_DOT_jsonl="line\n"
    )
    write_files(here, **{"trials__0__state-000000001-0123456789abcdef_DOT_pt": "s"})
    write_files(here, **{"trials__0__best-000000001-0123456789abcdef_DOT_pt": "b"})
    whole = {key for key in contents(here) if key != "spool.jsonl"}
    for left in range(6):
        failing = FailingStore(store, left)
        sync = _sync(failing, here)
        if left < 5:
            with pytest.raises(OSError, match="unreachable"):
                sync.push()
        there = set(store.list_keys())
        assert "trials/0/records.jsonl" not in there or whole <= there
        failing.left = 100
        sync.push()
        assert whole <= set(store.list_keys())
        again = tmp_path / f"again{left}"
        _sync(store, again).pull()
        assert contents(again) == contents(here)
        store.delete(list(store.list_keys()))


def test_segments_behind_a_gap_in_a_log_are_unused(store: ObjectStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    sync = _sync(store, here)
    event_log = EventLog(here / "spool.jsonl")
    for number in range(3):
        sync.push()
        event_log.start(number, "t", {})
    sync.push()
    segments = sorted(store.list_keys())
    assert len(segments) == 4
    store.delete([segments[2]])
    other = _sync(store, there)
    other.pull()
    assert other.unused_segments == [segments[3]]
    again = EventLog(there / "spool.jsonl")
    assert again.id == event_log.id
    assert [again.start(number, "t", {}) for number in range(3)] == [False, True, True]
    store.delete(other.unused_segments)
    other.push()
    final = _sync(store, tmp_path / "final")
    final.pull()
    assert (tmp_path / "final/spool.jsonl").read_bytes() == (there / "spool.jsonl").read_bytes()


def test_many_segments_become_one(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may be killed before the old ones are deleted; concurrent readers lose nothing."""
    monkeypatch.setattr("pipeline.storage.sync.MAX_SEGMENTS", 5)
    here, lines = tmp_path / "here", ""
    sync, other = _sync(store, here), _sync(store, tmp_path / "there")
    kept = dict[str, bytes]()
    for number in range(13):
        lines += f"line {number}\n"
        write_files(here, spool_DOT_jsonl=lines)
        sync.push()
        kept |= dict(store.get_many(store.list_keys()))
        assert len(store.list_keys()) <= 5
        if number % 4 == 0:
            other.pull()
            assert (tmp_path / "there/spool.jsonl").read_text() == lines
    assert sync.uploaded_bytes == len(lines)
    for key, data in kept.items():
        store.put(key, data)
    last = _sync(store, tmp_path / "last")
    last.pull()
    assert (tmp_path / "last/spool.jsonl").read_text() == lines
    store.delete(last.unused_segments)
    assert len(store.list_keys()) <= 5


def test_a_working_copy_that_is_removed_deletes_nothing(store: ObjectStore, tmp_path: Path) -> None:
    write_files(tmp_path, sweep_DOT_toml="a", spool_DOT_jsonl="1\n")
    sync = _sync(store, tmp_path)
    sync.push()
    (tmp_path / "sweep.toml").unlink()
    (tmp_path / "spool.jsonl").unlink()
    sync.push()
    assert len(store.list_keys()) == 2


def test_immutable_files_are_not_fetched_twice(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_files(here, **{"trials__0__best-000000001-0123456789abcdef_DOT_pt": "b", "sweep_DOT_toml": "a"})
    _sync(store, here).push()
    _sync(store, there).pull()
    asked: list[str] = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, key: asked.append(key) or get(self, key))
    _sync(store, there).pull()
    assert asked == ["sweep.toml"]


def test_keys_cannot_lead_out_of_the_folder(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "list_keys", lambda prefix: {"../evil": 1, "/evil": 1, "a/../../evil": 1})
    _sync(store, tmp_path / "here").pull()
    assert contents(tmp_path) == {}


def test_the_driver_deletes_no_checkpoint_of_a_worker(store: ObjectStore, tmp_path: Path) -> None:
    node, driver = tmp_path / "node", tmp_path / "driver"
    state = "trials__0__state-000000001-0123456789abcdef_DOT_pt"
    write_files(node, **{state: "s", "trials__0__records_DOT_jsonl": "r"})
    _sync(store, node).push("trials/0")
    sync = _sync(store, driver, lambda key: not is_scratch_file(key))
    sync.pull()
    assert list(contents(driver)) == ["trials/0/records.jsonl"]
    sync.pull("trials/0", lambda key: True)
    sync.push()
    assert len(store.list_keys()) == 2


def test_a_push_into_a_missing_bucket_fails(gs: str, tmp_path: Path) -> None:
    write_files(tmp_path, sweep_DOT_toml="a")
    sync = _sync(ObjectStore(gs.replace("://bucket/", "://none/")), tmp_path)
    for _ in range(2):
        with pytest.raises(OSError, match="no such bucket"):
            sync.push()
