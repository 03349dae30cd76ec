"""The address of a cluster's dashboard (a real dashboard: integration/ray)."""

from __future__ import annotations

import pytest

from pipeline.cluster.jobs.head import dashboard_address
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.1:8265", "http://10.0.0.1:8265"), ("https://ray.example.com/", "https://ray.example.com")],
)
def test_an_address_gets_its_scheme(text: str, address: str) -> None:
    assert dashboard_address(text) == address


@pytest.mark.parametrize("text", ["ray://h:10001", "http://", "http://u:pw@h:1"])
def test_what_is_no_http_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an http address") as caught:
        dashboard_address(text)
    assert "pw" not in str(caught.value)
