"""The doctor reports what is there and what is missing, changes nothing, and survives a check that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.doctor.diagnose import diagnose, run_checks
from pipeline.cli.doctor.finding import Finding
from pipeline.errors import UserError
from pipeline.sweep.build_request import build_request
from pipeline.sweep.options import RunOptions


@pytest.mark.slow
def test_diagnosis_of_this_machine(tmp_path: Path) -> None:
    found = diagnose(tmp_path / "runs")
    by_name = {finding.name: finding for finding in found}
    expected = {"python", "cores", "memory", "disk", "torch", "gpu", "torch pair", "ray", "optuna", "mlflow"}
    assert expected | {"bf16", "mnist5k", "inception", "tracking", "ray auth"} <= set(by_name)
    assert by_name["torch pair"].level == "ok"
    assert by_name["mnist5k"].level == "ok"
    assert not [finding for finding in found if "could not be checked" in finding.text]
    assert not (tmp_path / "runs").exists(), "checking changes nothing"


_CHECKS = """
import sys
from pathlib import Path
from pipeline.cli.doctor import diagnose, environment, machine, places, software
software.check_versions(), software.check_digits(), software.check_weights()
environment.check_environment()
places.check_folders(Path("runs"), "", ""), places.check_scratch()
machine.check_cores(), machine.check_memory(), machine.check_limits(), machine.check_sockets()
sys.exit(" ".join({"torch", "mlflow", "ray"} & set(sys.modules)) or 0)
"""


def test_the_doctor_imports_neither_torch_nor_mlflow_nor_ray() -> None:
    done = subprocess.run([sys.executable, "-c", _CHECKS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_check_that_raises_is_a_warning() -> None:
    def broken() -> list[Finding]:
        raise OSError("no /proc here")

    good = Finding("cores", "ok", "2 usable of 2")
    found = run_checks({"memory": broken, "cores": lambda: [good]})
    assert found == [Finding("memory", "warn", "could not be checked: OSError: no /proc here"), good]


@pytest.mark.parametrize(
    "typed",
    [("gopher://host/runs",), ("runs", "sqlite://ml.db"), ("runs", "", "", "sqlite:///:memory:")],
    ids=str,
)
def test_an_address_that_a_sweep_refuses_is_told_in_its_words(typed: tuple[str, ...]) -> None:
    options = dict(zip(("out", "tracking_uri", "address", "storage"), typed, strict=False))
    with pytest.raises(UserError) as refused:
        build_request(RunOptions(space="smoke", **{**options, "address": "local"}))  # type: ignore[arg-type]
    assert diagnose(*typed) == [Finding("addresses", "bad", str(refused.value))]
