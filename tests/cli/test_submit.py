"""What the arguments of `submit` may not contain."""

from __future__ import annotations

import pytest

from pipeline.cli.submit import package_job
from pipeline.errors import ConfigError


@pytest.mark.parametrize("flag", [["--notify", "https://host/s3cret"], ["--notify=https://host/s3cret"]])
def test_an_address_to_notify_is_refused_without_repeating_it(flag: list[str]) -> None:
    with pytest.raises(ConfigError, match="GANSWEEP_NOTIFY") as caught:
        package_job(flag)
    assert "s3cret" not in str(caught.value)
