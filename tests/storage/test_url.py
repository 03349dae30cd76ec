"""Addresses of object stores: what is accepted, and the parts of one."""

from __future__ import annotations

import pytest

from pipeline.errors import SweepError
from pipeline.storage.url import advisory_lock_key, check_url, is_url, join_url, parent_url, scratch_dir


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/runs", "ftp://host/runs is in no object store that gansweep supports"),
        ("s3://KEY:secret@bucket/runs", "credentials in the address s3://bucket/runs"),
        ("s3://bucket/runs?secret_key=secret", "no option secret_key"),
        ("s3://bucket", "s3://bucket is no place for a sweep .*a bucket and a prefix"),
        ("s3:///runs", "a bucket and a prefix"),
        ("s3://bucket/a/../b", "a bucket and a prefix"),
    ],
)
def test_an_address_that_is_not_valid(url: str, message: str) -> None:
    with pytest.raises(SweepError, match=message) as refusal:
        check_url(url)
    assert "secret" not in str(refusal.value).replace("secret_key", "")


@pytest.mark.parametrize("scheme", ["abfs", "abfss", "hdfs", "viewfs", "file", "mock"])
def test_stores_that_only_pyarrow_knows_are_refused(scheme: str) -> None:
    url = f"{scheme}://container@account/runs"
    with pytest.raises(SweepError, match=f"{scheme}://account/runs .*s3://, gs://, gcs://") as refusal:
        check_url(url)
    assert "\n" not in str(refusal.value)


def test_parts_of_an_address() -> None:
    url = "s3://bucket/a/b?endpoint_override=http://host:9000"
    assert join_url(url, "c") == "s3://bucket/a/b/c?endpoint_override=http://host:9000"
    assert parent_url(join_url(url, "c")) == (url, "c")
    assert is_url(url)
    assert not any(map(is_url, ("runs", "/runs", "./s3", "../a:b")))
    assert scratch_dir(url) == scratch_dir(url)
    assert scratch_dir(url) != scratch_dir(url, "node")


def test_the_lock_of_a_sweep_does_not_depend_on_the_endpoint() -> None:
    assert advisory_lock_key("s3://bucket/a?endpoint_override=http://one:9000") == advisory_lock_key(
        "s3://bucket/a"
    )
    assert advisory_lock_key("s3://bucket/a") != advisory_lock_key("s3://bucket/b")
    assert -(2**63) <= advisory_lock_key("s3://bucket/a") < 2**63
