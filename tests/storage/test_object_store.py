"""Keys of an object store, on S3 and on Google Cloud Storage; stores that cannot be used."""

from __future__ import annotations

import time

import machines
import pytest

from pipeline.errors import SweepError
from pipeline.storage.object_store import ObjectStore


def test_keys_are_put_got_listed_deleted(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.put("a/b", b"22")
    store.put("a/c", b"")
    assert store.get("a/b") == b"22"
    assert store.list_keys() == {"a/b": 2, "a/c": 0}
    assert store.list_keys("a") == {"a/b": 2, "a/c": 0}
    assert store.list_keys("none") == {}
    assert store.exists("a/c")
    store.delete(["a/b", "never-there"])
    assert not store.exists("a/b")
    assert dict(store.get_many(["a/b", "a/c"])) == {"a/c": b""}
    with pytest.raises(FileNotFoundError, match="a/b is not there"):
        store.get("a/b")
    store.check()
    assert store.list_keys() == {"a/c": 0}


def test_an_s3_store_that_cannot_be_used(s3: str) -> None:
    started = time.monotonic()
    with pytest.raises(SweepError, match="cannot be used: s3://none/runs: AWS Error NO_SUCH_BUCKET"):
        ObjectStore("s3://none/runs").check()
    port = machines.free_port()
    with pytest.raises(SweepError, match="NETWORK_CONNECTION"):
        ObjectStore(f"s3://bucket/runs?endpoint_override=http://127.0.0.1:{port}").check()
    assert time.monotonic() - started < 15


def test_a_gs_store_that_cannot_be_used(gs: str) -> None:
    started = time.monotonic()
    missing = gs.replace("://bucket/", "://none/")
    with pytest.raises(SweepError, match="gs://none/team.*no such bucket"):
        ObjectStore(missing).check()
    port = machines.free_port()
    with pytest.raises(SweepError, match="UNAVAILABLE.*Could not connect") as refusal:
        ObjectStore(f"gs://bucket/runs?endpoint_override=127.0.0.1:{port}&scheme=http").check()
    assert "AWS" not in str(refusal.value)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_write_into_a_missing_bucket_is_no_missing_file(
    scheme: str, request: pytest.FixtureRequest
) -> None:
    """A missing local file is tolerated by `FolderSync.push`; a missing bucket must not be."""
    store = ObjectStore(request.getfixturevalue(scheme).replace("://bucket/", "://none/"))
    with pytest.raises(OSError, match=r"(?i)no.such.bucket") as error:
        store.put("key", b"1")
    assert not isinstance(error.value, FileNotFoundError)


def test_an_endpoint_of_gs_is_written_with_or_without_its_scheme(gs: str) -> None:
    server = gs.partition("endpoint_override=http://")[2]
    ObjectStore(gs).put("endpoint", b"1")
    for endpoint in (f"{server}&scheme=http", f"http://{server}&scheme=http"):
        assert ObjectStore(f"gcs://bucket/team?endpoint_override={endpoint}").get("endpoint") == b"1"
