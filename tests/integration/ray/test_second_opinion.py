"""A sweep whose finalists are measured in a second extractor, in Ray's workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(300)]


def test_finalists_are_seen_by_efficientnet_too(tmp_path: Path) -> None:
    run = ["run", "--space", "smoke", "--data", "digits", "--extractor", "pixels", "--out", str(tmp_path)]
    run += ["--trials", "2", "--kimg", "2", "--fid-samples", "200", "--final-samples", "200"]
    run += ["--concurrency", "1", "--no-register", "--second-opinion", "veto"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *run], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "smoke" / "summary.json").read_text())
    for finalist in summary["finalists"]:
        values = finalist["measurement"]
        assert values["second_extractor"] == "efficientnet"
        assert 0 < values["second_low"] < values["second_fid"] < values["second_high"]
    healthy = [one["best"]["trial"] for one in summary["finalists"] if not one["measurement"]["verdicts"]]
    if healthy:
        opinion = summary["second_opinion"]
        assert opinion["trial"] in healthy
        assert f"second opinion (efficientnet): {opinion['text']}" in " ".join(done.stderr.split())
