"""Object stores for tests: an S3 server, a Google Cloud Storage server, a store that fails."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import machines
import pytest

from pipeline.storage.object_store import ObjectStore

BUCKET = "s3://bucket/team"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """An S3 server in this process with the bucket `bucket`, set in the environment. Yields its address."""
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


@contextlib.contextmanager
def gcs_server(folder: Path) -> Iterator[str]:
    """A Google Cloud Storage server with the bucket `bucket`; its log goes to `folder`. Yields its address.

    It is a process: some calls of pyarrow hold the GIL until the server has answered.
    """
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    port = machines.free_port()
    command = [
        sys.executable,
        "-m",
        "gcp_storage_emulator",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", "bucket"]
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch, machines.process(*command, log=folder / "gcs.log"):
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        machines.wait_for(lambda: machines.answers(f"{address}/storage/v1/b"), 20, "the storage server")
        yield address


class FailingStore:
    """A store that takes `left` more keys, as if the process or the server were killed then."""

    def __init__(self, store: ObjectStore, left: int = 0) -> None:
        self._store, self.left = store, left

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes) -> None:
        if self.left <= 0:
            raise OSError("the server is unreachable")
        self.left -= 1
        self._store.put(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        if self.left <= 0:
            raise OSError("the server is unreachable")
        self._store.delete(keys)


def write_files(root: Path, **files: str) -> None:
    """Write text files; in their names `__` stands for `/` and `_DOT_` for `.`."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(root: Path) -> dict[str, bytes]:
    """All files below `root` with their contents."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
