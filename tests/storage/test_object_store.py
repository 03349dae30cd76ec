"""Sweeps in object stores: addresses, keys, mirrors, segments, outages; one real sweep in an S3 server."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machines
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline.cli.submit import package_of
from pipeline.cluster import connection
from pipeline.errors import ConfigError, GansweepError, SweepError
from pipeline.storage import lock
from pipeline.storage.log_segments import Segment, put_together
from pipeline.storage.object_store import ObjectStore
from pipeline.storage.readonly_copy import fetched_sweep
from pipeline.storage.sync import FolderSync, is_scratch_file
from pipeline.storage.trial_storage import trial_storage
from pipeline.storage.uploader import Uploader
from pipeline.storage.url import check_url, is_url, join_url, parent_url, scratch_dir
from pipeline.sweep import remote
from pipeline.sweep.request import Request
from pipeline.sweep.run import run_sweep
from pipeline.tracking.event_log import EventLog, read_events
from pipeline.tracking.mlflow_exporter import MlflowExporter
from pipeline.training.checkpoint import TrialFolder

BUCKET = "s3://bucket/team"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server in this process, with the bucket `bucket`; its address is in the environment."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    from pyarrow import fs

    service = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    service.start()
    address = "http://{}:{}".format(*service.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        files = fs.S3FileSystem(endpoint_override=address, region="us-east-1", allow_bucket_creation=True)
        files.create_dir("bucket")
        yield address
    service.stop()


@pytest.fixture
def store(server: str, request: pytest.FixtureRequest) -> ObjectStore:
    """A prefix of its own."""
    return ObjectStore(f"{BUCKET}/{abs(hash(request.node.name))}")


class Away:
    """A store that takes `left` more keys: that of a process which is killed, or of a server which is."""

    def __init__(self, store: ObjectStore, left: int = 0) -> None:
        self._store, self.left = store, left

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes) -> None:
        if self.left <= 0:
            raise OSError("the server is away")
        self.left -= 1
        self._store.put(key, data)


def _mirror(store: object, root: Path, wanted: object = lambda key: True) -> FolderSync:
    return FolderSync(store, root, wanted)  # type: ignore[arg-type]


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# Addresses


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/runs", "a folder or an object store; got ftp://host/runs"),
        (
            "s3://KEY:secret@bucket/runs",
            "credentials come from the environment; got some in s3://bucket/runs",
        ),
        ("s3://bucket/runs?secret_key=secret", "every option of an address is known; got secret_key"),
        ("s3://bucket", "a bucket and a prefix; got s3://bucket"),
        ("s3:///runs", "a bucket and a prefix"),
        ("s3://bucket/a/../b", "a bucket and a prefix"),
    ],
)
def test_an_address_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(SweepError) as refusal:
        check_url(url)
    assert said in str(refusal.value)
    assert "secret" not in str(refusal.value).replace("secret_key", "")


def test_parts_of_an_address() -> None:
    url = "s3://bucket/a/b?endpoint_override=http://host:9000"
    assert join_url(url, "c") == "s3://bucket/a/b/c?endpoint_override=http://host:9000"
    assert parent_url(join_url(url, "c")) == (url, "c")
    assert is_url(url)
    assert not any(map(is_url, ("runs", "/runs", "./s3", "../a:b")))
    assert scratch_dir(url) == scratch_dir(url)
    assert scratch_dir(url) != scratch_dir(url, "node")


# Keys


def test_keys_are_put_got_listed_deleted(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.put("a/b", b"22")
    store.put("a/c", b"")
    assert store.get("a/b") == b"22"
    assert store.listing() == {"a/b": 2, "a/c": 0}
    assert store.listing("a") == {"a/b": 2, "a/c": 0}
    assert store.listing("none") == {}
    assert store.holds("a/c")
    store.delete(["a/b", "never-there"])
    assert not store.holds("a/b")
    assert dict(store.get_all(["a/b", "a/c"])) == {"a/c": b""}
    with pytest.raises(FileNotFoundError, match="a/b is not there"):
        store.get("a/b")
    store.check()
    assert store.listing() == {"a/c": 0}


def test_a_store_that_cannot_be_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with pytest.raises(SweepError, match="got s3://none/runs: AWS Error NO_SUCH_BUCKET"):
        ObjectStore("s3://none/runs").check()
    port = machines.free_port()
    with pytest.raises(SweepError, match="NETWORK_CONNECTION"):
        ObjectStore(f"s3://bucket/runs?endpoint_override=http://127.0.0.1:{port}").check()
    assert time.monotonic() - started < 15


# Segments


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.randoms(use_true_random=False))
def test_segments_make_the_log_again(parts: list[bytes], rng: random.Random) -> None:
    """In any order, with repetitions that are shorter: all of it. A damaged or missing one: all before it."""
    there, offset, begins = dict[str, bytes](), 0, [0]
    for part in parts:
        there[Segment.of(offset, part).name] = part
        cut = part[: rng.randrange(len(part) + 1)]
        there[Segment.of(offset, cut).name] = cut
        offset += len(part)
        begins.append(offset)
    names = rng.sample(sorted(there), len(there))
    log, _ = put_together(names, there.__getitem__)
    assert log == b"".join(parts)
    if not parts:
        return
    broken = rng.randrange(len(parts))
    name = Segment.of(begins[broken], parts[broken]).name
    damaged = {**there, name: parts[broken][:-1] + bytes([parts[broken][-1] ^ 1])}
    for kept in ({key: there[key] for key in there if key != name}, damaged):
        log, spare = put_together(list(kept), kept.__getitem__)
        assert b"".join(parts).startswith(log)
        assert begins[broken] <= len(log) < offset + (not parts[broken])
        assert {Segment.of(begins[i], parts[i]).name for i in range(broken + 1, len(parts))} <= set(spare)


def test_names_of_other_things_are_no_segments() -> None:
    assert Segment.named("spool.jsonl") is None
    assert put_together(["notes.txt"], lambda name: b"") == (b"", [])


# Mirrors


def test_a_folder_goes_to_the_store_and_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    _write(here, sweep_DOT_toml="a", summary_DOT_json="{}", trials__0__records_DOT_jsonl="r")
    _write(here, spool_DOT_jsonl="1\n2\nto")
    _write(here, lock="me", study_DOT_journal="x", reruns__a="x", _DOT_12_tmp="x")
    mirror = _mirror(store, here)
    assert mirror.push() == 4
    assert mirror.push() == 0
    other = _mirror(store, there)
    assert other.pull()
    expected = {"sweep.toml": b"a", "summary.json": b"{}", "spool.jsonl": b"1\n2\n"}
    assert _contents(there) == {**expected, "trials/0/records.jsonl": b"r"}
    _write(here, summary_DOT_json="{1}", spool_DOT_jsonl="1\n2\ntorn no more\n")
    (here / "trials/0/records.jsonl").unlink()
    assert mirror.push() == 2
    other.pull()
    assert _contents(there) == {**expected, "summary.json": b"{1}", "spool.jsonl": b"1\n2\ntorn no more\n"}
    segments = [Segment.of(0, b"1\n2\n"), Segment.of(4, b"torn no more\n")]
    assert store.listing("spool.jsonl").keys() == {f"spool.jsonl/{segment.name}" for segment in segments}
    assert len(_contents(here)) == 3 + 4


def test_a_push_that_is_cut_anywhere_is_done_again(store: ObjectStore, tmp_path: Path) -> None:
    """A record in the store has its checkpoint and its best generator there, wherever a kill comes."""
    here = tmp_path / "here"
    _write(
        here, trials__0__records_DOT_jsonl="r", trials__0__samples__1_DOT_png="p", spool_DOT_jsonl="line\n"
    )
    _write(here, **{"trials__0__state-000000001-0123456789abcdef_DOT_pt": "s"})
    _write(here, **{"trials__0__best-000000001-0123456789abcdef_DOT_pt": "b"})
    whole = {key for key in _contents(here) if key != "spool.jsonl"}
    for left in range(6):
        away = Away(store, left)
        mirror = _mirror(away, here)
        if left < 5:
            with pytest.raises(OSError, match="away"):
                mirror.push()
        there = set(store.listing())
        assert "trials/0/records.jsonl" not in there or whole <= there
        away.left = 100
        mirror.push()
        assert whole <= set(store.listing())
        again = tmp_path / f"again{left}"
        _mirror(store, again).pull()
        assert _contents(again) == _contents(here)
        store.delete(list(store.listing()))


def test_a_gap_in_a_log_is_left_out_and_its_rest_deleted_by_its_owner(
    store: ObjectStore, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    mirror = _mirror(store, here)
    spool = EventLog(here / "spool.jsonl")
    for number in range(3):
        mirror.push()
        spool.start(number, "t", {})
    mirror.push()
    segments = sorted(store.listing())
    assert len(segments) == 4
    store.delete([segments[2]])
    other = _mirror(store, there)
    other.pull()
    assert other.spare == [segments[3]]
    again = EventLog(there / "spool.jsonl")
    assert again.id == spool.id
    assert [again.start(number, "t", {}) for number in range(3)] == [False, True, True]
    store.delete(other.spare)
    other.push()
    final = _mirror(store, tmp_path / "final")
    final.pull()
    assert (tmp_path / "final/spool.jsonl").read_bytes() == (there / "spool.jsonl").read_bytes()


def test_many_segments_become_one(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may be killed before the old ones are deleted; whoever reads along loses nothing."""
    monkeypatch.setattr("pipeline.storage.sync.MOST", 5)
    here, lines = tmp_path / "here", ""
    mirror, other = _mirror(store, here), _mirror(store, tmp_path / "there")
    kept = dict[str, bytes]()
    for number in range(13):
        lines += f"line {number}\n"
        _write(here, spool_DOT_jsonl=lines)
        mirror.push()
        kept |= dict(store.get_all(store.listing()))
        assert len(store.listing()) <= 5
        if number % 4 == 0:
            other.pull()
            assert (tmp_path / "there/spool.jsonl").read_text() == lines
    assert mirror.sealed("spool.jsonl") == len(lines)
    for key, data in kept.items():
        store.put(key, data)
    last = _mirror(store, tmp_path / "last")
    last.pull()
    assert (tmp_path / "last/spool.jsonl").read_text() == lines
    store.delete(last.spare)
    assert len(store.listing()) <= 5


def test_a_scratch_folder_that_is_taken_away_deletes_nothing(store: ObjectStore, tmp_path: Path) -> None:
    _write(tmp_path, sweep_DOT_toml="a", spool_DOT_jsonl="1\n")
    mirror = _mirror(store, tmp_path)
    mirror.push()
    (tmp_path / "sweep.toml").unlink()
    (tmp_path / "spool.jsonl").unlink()
    mirror.push()
    assert len(store.listing()) == 2


def test_what_never_alters_is_not_fetched_twice(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    _write(here, **{"trials__0__best-000000001-0123456789abcdef_DOT_pt": "b", "sweep_DOT_toml": "a"})
    _mirror(store, here).push()
    _mirror(store, there).pull()
    asked: list[str] = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, key: asked.append(key) or get(self, key))
    _mirror(store, there).pull()
    assert asked == ["sweep.toml"]


def test_keys_of_others_stay_outside(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "listing", lambda prefix: {"../evil": 1, "/evil": 1, "a/../../evil": 1})
    _mirror(store, tmp_path / "here").pull()
    assert _contents(tmp_path) == {}


def test_the_driver_deletes_no_checkpoint_of_a_worker(store: ObjectStore, tmp_path: Path) -> None:
    node, driver = tmp_path / "node", tmp_path / "driver"
    state = "trials__0__state-000000001-0123456789abcdef_DOT_pt"
    _write(node, **{state: "s", "trials__0__records_DOT_jsonl": "r"})
    _mirror(store, node).push("trials/0")
    mirror = _mirror(store, driver, lambda key: not is_scratch_file(key))
    mirror.pull()
    assert list(_contents(driver)) == ["trials/0/records.jsonl"]
    mirror.pull("trials/0", lambda key: True)
    mirror.push()
    assert len(store.listing()) == 2


# The courier, and the trials' side


def test_an_outage_costs_delay_alone(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.uploader.PERIOD_SEC", 0.05)
    said: list[str] = []
    away = Away(store)
    _write(tmp_path, sweep_DOT_toml="a", spool_DOT_jsonl="1\n")
    courier = Uploader(_mirror(away, tmp_path, lambda key: not is_scratch_file(key)), said.append)
    machines.wait_for(lambda: bool(courier.error), 10, "the outage is noticed")
    time.sleep(0.3)
    away.left = 1000
    machines.wait_for(lambda: not courier.error, 10, "it is over")
    store.put("trials/3/state-000000001-0123456789abcdef.pt", b"s")
    courier.over(tmp_path / "trials/3")
    _write(tmp_path, spool_DOT_jsonl="1\n2\n")
    assert courier.close(10)
    assert len(said) == 2
    assert said[0].startswith("warning: s3://bucket/team/")
    assert said[1].endswith("answers again, and has everything")
    assert {key.partition("/")[0] for key in store.listing()} == {"sweep.toml", "spool.jsonl"}
    away.left = 0
    last = Uploader(_mirror(away, tmp_path), said.append)
    assert not last.close(0.2)


def test_a_trial_goes_on_on_another_node(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "one"))
    first = trial_storage("", store.url)
    folder = TrialFolder(first.root / "trials/7")
    for kimg in (1, 2, 3):
        folder.save(kimg, {"kimg": kimg})
        first.give(folder.root)
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "two"))
    second = trial_storage("", store.url)
    assert second.root != first.root
    again = TrialFolder(second.root / "trials/7")
    _write(again.root, **{"best-000000009-0123456789abcdef_DOT_pt": "of an earlier stay on this node"})
    second.take(again.root)
    state = again.restore()
    assert state is not None
    assert state["kimg"] == 3
    assert sorted(p.name[:15] for p in again.root.glob("*.pt")) == ["state-000000002", "state-000000003"]
    assert not second.stopped()
    store.put("stop", b"")
    assert trial_storage("", store.url).stopped()


def test_a_trial_goes_on_alone_where_the_store_is_away(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path))
    monkeypatch.setattr("pipeline.storage.trial_storage.GIVE_SEC", 0.1)
    monkeypatch.setattr("pipeline.storage.trial_storage.TAKE_SEC", 0.1)
    place, said = trial_storage("", store.url), list[str]()
    place._mirror.store = Away(store)  # type: ignore[attr-defined]
    _write(place.root, trials__0__records_DOT_jsonl="r")
    place.give(place.root / "trials/0", said.append)
    assert len(said) == 1
    assert "the trial goes on on its node alone" in said[0]
    place._mirror.store.left = 10  # type: ignore[attr-defined]
    place.give(place.root / "trials/0", said.append)
    assert store.holds("trials/0/records.jsonl")


def test_a_folder_that_all_see_needs_nothing(tmp_path: Path) -> None:
    place = trial_storage(str(tmp_path), "")
    assert place.root == tmp_path
    place.take(tmp_path / "trials/0")
    place.give(tmp_path / "trials/0")
    assert not place.stopped()
    (tmp_path / "stop").touch()
    assert place.stopped()
    assert _contents(tmp_path) == {"stop": b""}


def test_mlflow_is_told_no_more_than_the_store_has(tmp_path: Path) -> None:
    """Else a record told again after the loss of a machine would stand there twice."""
    spool = EventLog(tmp_path / "spool.jsonl")
    for number in range(3):
        spool.start(number, "t", {})
    ends = [end for end, _ in read_events(spool.path)]
    shipper = object.__new__(MlflowExporter)
    shipper._spool = spool
    assert [end for end, _ in shipper._settled_events(0)] == ends
    spool.settled = lambda: ends[1]
    assert [end for end, _ in shipper._settled_events(0)] == ends[:2]


def test_a_node_that_does_not_reach_the_store_is_named(server: str) -> None:
    def answer(url: str) -> dict[str, Any]:
        told = json.loads(connection._answer(url, "10.0.0.2", "/"))
        return {**told, "version": pipeline.__version__, "began": time.time(), "ended": time.time()}

    said: list[str] = []
    connection._judge(answer(f"{BUCKET}/nodes"), BUCKET, said.append)
    assert said == []
    with pytest.raises(SweepError, match=r"every node reaches --out; got node 10.0.0.2: .*NO_SUCH_BUCKET"):
        connection._judge(answer("s3://none/nodes"), BUCKET, said.append)


# What a sweep in a store needs


TYPED = ("--space", "smoke", "--data", "digits", "--name", "far", "--trials", "2", "--kimg", "5")
TYPED += ("--extractor", "pixels", "--fid-samples", "500", "--final-samples", "500", "--out", BUCKET, "-q")


def _request(*more: str) -> Request:
    return package_of([*TYPED, *more], Path(__file__).parent)[1]


def test_study_and_runs_must_be_elsewhere_too(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANSWEEP_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="its study in PostgreSQL, and its lock; got no --storage"):
        run_sweep(_request())
    with pytest.raises(ConfigError, match="runs on a tracking server; got no --tracking-uri"):
        run_sweep(_request("--storage", "postgresql://127.0.0.1/study"))


def test_submit_sends_the_address_as_it_was_typed(server: str) -> None:
    package, request = package_of([*TYPED, "--storage", "postgresql://db/study"], Path(__file__).parent)
    assert f"--out {BUCKET}" in package.command
    assert request.url == f"{BUCKET}/far"
    assert request.paths.root == scratch_dir(request.url)


def _lose_the_store(request: Request, store: ObjectStore) -> None:
    """A sweep whose store is away when it ends."""
    with remote.uploaded_sweep(request) as held:
        assert held.courier is not None
        held.courier._mirror.store = Away(store)  # type: ignore[assignment]
        (held.paths.root / "stop").touch()


def _gansweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: Ray and pyarrow leave threads behind."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_lives_in_a_store(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real trials, study and lock in PostgreSQL; then again from an empty scratch folder, and looked at."""
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "one"))
    for name in ("RAY_ADDRESS", "GANSWEEP_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with machines.postgres(tmp_path / "pg") as database:
        monkeypatch.setenv("PGPASSWORD", database.password)
        storage, uri = database.url("study"), f"sqlite:///{tmp_path}/mlflow.db"
        request = _request("--storage", storage, "--no-register")
        done = _gansweep("run", *TYPED, "--storage", storage, "--tracking-uri", uri, "--no-register")
        assert done.returncode == 0, done.stderr
        store = ObjectStore(request.url)
        keys = store.listing()
        assert {
            "sweep.toml",
            "summary.json",
            "shipped.json",
            "report.html",
            "champion/files.json",
        } <= keys.keys()
        assert not any("/state-" in key for key in keys)
        assert json.loads(store.get("summary.json"))["state"] == "finished"

        monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "two"))
        with (
            lock.store_lock(request.url, storage),
            pytest.raises(SweepError, match=f"got {request.url} held by process {os.getpid()} on "),
            remote.uploaded_sweep(request),
        ):
            pass
        with remote.uploaded_sweep(request) as held:
            assert held.courier is not None
            spool = held.paths.spool.read_bytes()
            assert spool == b"".join(data for _, data in store.get_all(sorted(store.listing("spool.jsonl"))))
            assert spool.count(b'"event": "record"') == 2
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.sweep.remote._CARRY_SEC", 0.1)
            with pytest.raises(GansweepError, match="has not got the last changes .*gansweep resume s3://"):
                _lose_the_store(request, store)
        done = _gansweep("resume", request.url, "--storage", storage, "--tracking-uri", uri)
        assert done.returncode == 0, done.stderr
    with fetched_sweep(request.url) as root:
        assert (root / "champion/generator.safetensors").is_file()
        assert not (root / "trials").exists()
    for data in dict(store.get_all(store.listing())).values():
        assert database.password.encode() not in data
        assert b"hush-hush" not in data
