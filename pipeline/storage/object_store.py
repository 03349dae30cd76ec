"""One prefix of an object store: its keys are put, got, listed and deleted, each whole.

Owns: pyarrow's file systems, their patience, their errors in one line. Refuses: knowing what the keys hold.
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
"""How long a call waits: to connect, for the next byte, and how often. Who carries tries again later."""
_AT_A_TIME = 8


class ObjectStore:
    """The keys below the address `url`; several threads may use it. All but `check` raise OSError in a line.

    A key is put whole or not at all, also where the process is killed meanwhile.
    """

    def __init__(self, url: str) -> None:
        self.url = check_url(url)
        with _plainly(self.url):
            self._files, self._base = _opened(self.url)

    def check(self) -> None:
        """Write a key and delete it.

        Raises:
            SweepError: the store does not answer, knows no such bucket, or does not let us write.
        """
        mark = f".seen-{secrets.token_hex(8)}"
        try:
            self.put(mark, b"")
            self.delete([mark])
        except OSError as error:
            raise store_error(self.url, error) from error

    def put(self, key: str, data: bytes) -> None:
        """Put `data` in place of what `key` holds."""
        with _plainly(f"{self.url}: {key}"), self._files.open_output_stream(self._path(key)) as stream:
            stream.write(data)

    def get(self, key: str) -> bytes:
        """What `key` holds; FileNotFoundError where there is none."""
        with _plainly(f"{self.url}: {key}"), self._files.open_input_file(self._path(key)) as stream:
            data: bytes = stream.read()
        return data

    def holds(self, key: str) -> bool:
        """Whether there is such a key."""
        with _plainly(f"{self.url}: {key}"):
            return bool(self._files.get_file_info(self._path(key)).is_file)

    def listing(self, prefix: str = "") -> dict[str, int]:
        """All keys that begin with the folder `prefix`, with their bytes."""
        from pyarrow import fs

        with _plainly(self.url):
            where = fs.FileSelector(self._path(prefix), recursive=True, allow_not_found=True)
            found = self._files.get_file_info(where)
        return {info.path[len(self._base) + 1 :]: info.size for info in found if info.is_file}

    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys; those that are not there are no error."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError), _plainly(f"{self.url}: {key}"):
                self._files.delete_file(self._path(key))

    def get_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """What the keys hold, several fetched at a time; a key that vanished meanwhile is left out."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            work = [(key, pool.submit(self.get, key)) for key in keys]
            for key, fetched in work:
                with contextlib.suppress(FileNotFoundError):
                    yield key, fetched.result()

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}" if key else self._base


def store_error(url: str, error: OSError) -> SweepError:
    """The refusal of a store that cannot be used."""
    fix = (
        "correct the address, AWS_ENDPOINT_URL or ?endpoint_override=, and the credentials in the environment"
    )
    return SweepError("the object store answers, and can be written", seen=f"{url}: {error}", fix=fix)


def _opened(url: str) -> tuple[Any, str]:
    """pyarrow's file system behind the address, with short patience, and the path below it."""
    from pyarrow import fs

    parts = urlsplit(url)
    options, path = dict(parse_qsl(parts.query)), f"{parts.netloc}{parts.path}"
    if parts.scheme == "s3":
        return fs.S3FileSystem(**_of_s3(parts.netloc, options)), path
    if parts.scheme in ("gs", "gcs"):
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=CONNECT_SEC), **_of_gs(options)), path
    files, path = fs.FileSystem.from_uri(url)
    return files, path


def _of_s3(bucket: str, options: dict[str, str]) -> dict[str, Any]:
    from pyarrow import fs

    env = os.environ
    endpoint = (
        options.get("endpoint_override") or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    )
    region = options.get("region") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    return {
        "endpoint_override": endpoint,
        "region": region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket)),
        "scheme": options.get("scheme"),
        "connect_timeout": CONNECT_SEC,
        "request_timeout": SILENT_SEC,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        "allow_delayed_open": True,  # one request for a small key, not three
    }


def _of_gs(options: dict[str, str]) -> dict[str, Any]:
    if "endpoint_override" not in options:
        return {}
    secure = {"endpoint_override": options["endpoint_override"], "scheme": options.get("scheme", "https")}
    return {**secure, "anonymous": not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")}


@contextlib.contextmanager
def _plainly(what: str) -> Iterator[None]:
    """pyarrow's errors as OSError, in a line."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{what} is not there") from error
    except Exception as error:  # OSError, ArrowInvalid, ArrowNotImplementedError: all of them are the store's
        raise OSError(_brief(str(error))) from error


def _brief(text: str) -> str:
    """The part of pyarrow's message that tells what is wrong."""
    text = " ".join(text.split())
    told = re.search(r"(AWS Error .*?|google::cloud::Status\(.*?)( \(Request ID.*)?$", text)
    return (told[1] if told else text)[:300]
