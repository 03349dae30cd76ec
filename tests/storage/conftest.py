"""Stores to test against: every test with `store` runs once on S3 and once on Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator

import object_stores
import pytest

from pipeline.storage.object_store import ObjectStore
from pipeline.storage.url import join_url


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a prefix in an S3 bucket."""
    with object_stores.s3_server():
        yield object_stores.BUCKET


@pytest.fixture(scope="module")
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a prefix in a bucket of Google Cloud Storage."""
    with object_stores.gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield f"gs://bucket/team?endpoint_override={server}"


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty prefix."""
    url = request.getfixturevalue(request.param)
    return ObjectStore(join_url(url, str(abs(hash(request.node.name)))))
