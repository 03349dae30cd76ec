"""A sweep on a machine that gives little: a path too long for sockets, one core, few open files."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster.socket_folder import PATH_BYTES

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(300)]

OPEN_FILES = 256


def _restrict() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))


def test_a_sweep_with_a_long_tmpdir_on_one_core_with_few_files(tmp_path: Path) -> None:
    long = tmp_path / ("t" * PATH_BYTES)
    long.mkdir()
    out = tmp_path / "runs"
    options = [*("--space", "smoke", "--data", "digits", "--extractor", "pixels", "--fid-samples", "200")]
    options += ["--second-extractor", "none"]
    limits = [*("--trials", "2", "--kimg", "1", "--concurrency", "2", "--no-register", "--out", str(out))]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", *options, *limits],
        env={**environment, "TMPDIR": str(long)},
        preexec_fn=_restrict,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stderr.split())
    assert f"{long}/ray cannot be used (a socket's path holds {PATH_BYTES} bytes" in said
    assert "--concurrency 2: 1 fit, each 1 CPU" in said
    assert json.loads((out / "smoke/summary.json").read_text())["trials"]["complete"] == 2
    assert not (long / "ray").exists()
