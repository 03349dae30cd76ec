"""Provenance of a sweep."""

from __future__ import annotations

import re

from pipeline.tracking.provenance import provenance


def test_provenance_has_versions_and_the_commit_as_text() -> None:
    values = provenance()
    assert {"python", "platform", "torch"} <= values.keys()
    assert all(isinstance(value, str) and value for value in values.values())
    if "git.commit" in values:
        assert re.fullmatch("[0-9a-f]{40,64}", values["git.commit"])
        assert values["git.dirty"] in ("true", "false")
