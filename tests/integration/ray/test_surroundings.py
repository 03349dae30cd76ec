"""A whole sweep in surroundings that each have ended one, or hidden something from its workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]

NOWHERE = "http://127.0.0.1:9"
SURROUNDINGS = {
    "PYTHONPATH": ".",
    "PYTHONIOENCODING": "ascii",
    "RAY_ADDRESS": "127.0.0.1:1",
    "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
    "TUNE_RESULT_DIR": "/nowhere",
    "MLFLOW_ACTIVE_MODEL_ID": "m-of-another",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    **dict.fromkeys(("http_proxy", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE),
}


def test_a_sweep_comes_to_its_end_in_spite_of_all(tmp_path: Path) -> None:
    """A module that hides `pipeline`, a reader that leaves, no stdin, dead proxies and a dead cluster."""
    (tmp_path / "pipeline.py").write_text("raise SystemExit('the pipeline of the user')", encoding="utf-8")
    run = "run --space smoke --data digits --trials 1 --kimg 1 --extractor pixels --fid-samples 200"
    run += " --second-extractor none --concurrency 1 --final-seeds 0 --register hidden --name a"
    command = f'"{Path(sys.executable).parent}/gansweep" {run} <&- 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, **SURROUNDINGS},
        capture_output=True,
        encoding="utf-8",
        timeout=220,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "images: digits\n"
    summary = json.loads((tmp_path / "runs" / "a" / "summary.json").read_text(encoding="utf-8"))
    assert summary["state"] == "finished"
    assert summary["registered"]["name"] == "hidden"
    assert (tmp_path / "runs" / "a" / "report.html").is_file()
