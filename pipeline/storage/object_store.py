"""The keys below one prefix of an object store (S3 or Google Cloud Storage), through pyarrow.

Responsible for timeouts, and for turning pyarrow's errors into OSError with one line of text; not for what
the keys mean.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipeline.errors import SweepError
from pipeline.storage.url import check_url

CONNECT_SEC, SILENT_SEC, ATTEMPTS = 3.0, 10.0, 2
"""Timeouts of a request, to connect and for the next byte, and its attempts. Callers retry later."""
_PARALLEL_GETS = 8


class ObjectStore:
    """The keys below the address `url`. Threads may share an instance.

    A key is written whole or not at all, also if the process is killed meanwhile. All methods but `check`
    raise OSError with one line of text if the store does not answer or refuses.

    Raises:
        SweepError: the address is not valid.
        OSError: the file system cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.url = check_url(url)
        with _as_os_error(self.url):
            self._files, self._base = _open_filesystem(self.url)

    def check(self) -> None:
        """Write a key and delete it.

        Raises:
            SweepError: the store does not answer, knows no such bucket, or refuses the write.
        """
        key = f".seen-{secrets.token_hex(8)}"
        try:
            self.put(key, b"")
            self.delete([key])
        except OSError as error:
            raise store_error(self.url, error) from error

    def put(self, key: str, data: bytes) -> None:
        """Replace the content of `key` by `data`."""
        try:
            with self._at(key) as path, self._files.open_output_stream(path) as stream:
                stream.write(data)
        except FileNotFoundError as error:
            # Google's answer to a write into a missing bucket. Callers take FileNotFoundError for a missing
            # local file or key, which they tolerate.
            raise OSError(f"{self.url}: there is no such bucket") from error

    def get(self, key: str) -> bytes:
        """The content of `key`; FileNotFoundError if there is none."""
        with self._at(key) as path, self._files.open_input_file(path) as stream:
            data: bytes = stream.read()
        return data

    def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        with self._at(key) as path:
            return bool(self._files.get_file_info(path).is_file)

    def list_keys(self, prefix: str = "") -> dict[str, int]:
        """All keys below the folder `prefix`, with their sizes in bytes."""
        from pyarrow import fs

        with self._at(prefix) as path:
            selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
            found = self._files.get_file_info(selector)
        return {info.path[len(self._base) + 1 :]: info.size for info in found if info.is_file}

    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys; missing ones are ignored."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError), self._at(key) as path:
                self._files.delete_file(path)

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Keys and their contents, fetched in parallel; a key that was deleted meanwhile is left out."""
        with ThreadPoolExecutor(_PARALLEL_GETS) as pool:
            futures = [(key, pool.submit(self.get, key)) for key in keys]
            for key, future in futures:
                with contextlib.suppress(FileNotFoundError):
                    yield key, future.result()

    @contextlib.contextmanager
    def _at(self, key: str) -> Iterator[str]:
        """The path of a key or folder within the file system, for a block that raises OSError alone."""
        with _as_os_error(f"{self.url}: {key}" if key else self.url):
            yield f"{self._base}/{key}" if key else self._base


def open_store(url: str) -> ObjectStore:
    """The object store at `url`.

    Raises:
        SweepError: the address is not valid, or the store cannot be used.
    """
    try:
        return ObjectStore(url)
    except OSError as error:
        raise store_error(url, error) from error


def store_error(url: str, error: OSError) -> SweepError:
    """The SweepError for a store at `url` that cannot be used because of `error`."""
    server = "AWS_ENDPOINT_URL or ?endpoint_override=" if url.startswith("s3:") else "?endpoint_override="
    return SweepError(
        "the object store cannot be used",
        rule="it must answer, and take what is written",
        seen=f"{url}: {error}",
        fix=f"correct the address, {server}, and the credentials in the environment",
    )


def _open_filesystem(url: str) -> tuple[Any, str]:
    """pyarrow's file system of the address, with short timeouts, and the path within it."""
    from pyarrow import fs

    parts = urlsplit(url)
    options, path = dict(parse_qsl(parts.query)), f"{parts.netloc}{parts.path}"
    if parts.scheme == "s3":
        return _s3(fs, parts.netloc, options), path
    return _gcs(fs, options), path


def _s3(fs: Any, bucket: str, options: dict[str, str]) -> Any:
    env = os.environ
    named = options.get("endpoint_override")
    endpoint = named or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    region = options.get("region") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket)),
        scheme=options.get("scheme"),
        connect_timeout=CONNECT_SEC,
        request_timeout=SILENT_SEC,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # one request for a small key, not three
    )


def _gcs(fs: Any, options: dict[str, str]) -> Any:
    limit = timedelta(seconds=CONNECT_SEC)
    if "endpoint_override" not in options:
        return fs.GcsFileSystem(retry_time_limit=limit)
    scheme, _, host = options["endpoint_override"].rpartition("://")  # pyarrow takes HOST:PORT alone here
    return fs.GcsFileSystem(
        retry_time_limit=limit,
        endpoint_override=host,
        scheme=options.get("scheme") or scheme or "https",
        anonymous=not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"),
    )


@contextlib.contextmanager
def _as_os_error(what: str) -> Iterator[None]:
    """Raise pyarrow's errors as OSError (FileNotFoundError where `what` is missing) with one line of text."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{what} is not there") from error
    except Exception as error:  # OSError, ArrowInvalid, ArrowNotImplementedError: all of them are the store's
        raise OSError(_shorten(str(error))) from error


def _shorten(text: str) -> str:
    """The part of pyarrow's message that says what is wrong."""
    text = " ".join(text.split())
    match = re.search(r"(AWS Error .*?)( \(Request ID.*)?$", text) or re.search(
        r"google::cloud::Status\((.*?)( error_info=.*)?$", text
    )
    return (match[1] if match else text)[:300]
