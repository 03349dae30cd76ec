"""Atomic writes and appends, and the location of the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.storage.files import append_bytes, read_json, replacing


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(text: str, error: Exception | None) -> None:
        with replacing(path) as temporary:
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
            if error:
                raise error

    with pytest.raises(ValueError, match="interrupted"):
        write("half", ValueError("interrupted"))
    assert path.read_text() == "old"
    write("new", None)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_append(tmp_path: Path) -> None:
    for data in (b"1\n", b"2\n"):
        append_bytes(tmp_path / "log", data)
    assert (tmp_path / "log").read_bytes() == b"1\n2\n"


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "[" * 100_000])
def test_json_that_is_no_object_reads_as_empty(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    assert read_json(tmp_path / "a.json") == {}
    assert read_json(tmp_path / "missing.json") == {}
