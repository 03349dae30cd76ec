"""The study's database: refused in one line where it cannot be used."""

from __future__ import annotations

import pytest

from pipeline.errors import SweepError
from pipeline.search.study import check_storage


def test_a_journal_file_needs_no_check() -> None:
    check_storage("", "x", new=True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", r"--storage study.db is no database URL"),
        (
            "postgresql://u:hush@127.0.0.1:1/x",
            r"database does not answer: postgresql://\*\*\*@127.0.0.1:1/x \(Op",
        ),
        ("oracle9://h/x", r"database does not answer: oracle9://h/x \(NoSuchModule"),
    ],
)
def test_a_database_that_does_not_answer_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(SweepError, match=message) as caught:
        check_storage(url, "x", new=True)
    assert "hush" not in str(caught.value)
