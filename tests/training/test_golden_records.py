"""The numbers of whole trials, to the last bit: they change only with the maths.

Another processor, or another torch, rounds otherwise: golden/records.json holds the hashes by both, and the
test is skipped where it has none. After a change of the maths, or on a new processor:

    GANSWEEP_GOLDEN=write .venv/bin/python -m pytest tests/training/test_golden_records.py
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import load_dataset
from pipeline.metrics.extractors import build_extractor
from pipeline.metrics.frechet import build_evaluator
from pipeline.search.space.builtin import load_space
from pipeline.training.seeds import trial_seed
from pipeline.training.trial import run_trial

GOLDEN = Path(__file__).parent / "golden" / "records.json"
OF_THE_CLOCK = {"train_seconds", "eval_seconds", "images_per_sec"}

SMOKE = [
    {"lr_g": 0.0009085461387786661, "lr_d": 0.006699853396742473, "width_g": 101, "loss": "nonsaturating"},
    {"lr_g": 0.003, "lr_d": 0.0005, "width_g": 64, "loss": "hinge"},
]
"""Two points of the space `smoke`."""


def machine() -> str:
    """What the last bits of a number depend on."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {capability}, {model or platform.machine()}"


def fingerprint(space: str, data: str, point: dict[str, Any], folder: Path, **changes: Any) -> str:
    """The hash of a trial's records, without what the clock says."""
    torch.set_num_threads(1)
    dataset = load_dataset(data)
    evaluator = build_evaluator(dataset, build_extractor("auto", dataset), 500, folder / "cache")
    config = TrialConfig.from_dict({**load_space(space).fixed, **point, **changes, "seed": trial_seed(0, 0)})
    rows = [record.to_dict() for record in run_trial(config, dataset, evaluator, folder / "trial")]
    kept = [{name: value for name, value in row.items() if name not in OF_THE_CLOCK} for row in rows]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def check(name: str, found: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    if os.environ.get("GANSWEEP_GOLDEN") == "write":
        golden.setdefault(machine(), {})[name] = found
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    if name not in golden.get(machine(), {}):
        pytest.skip(f"no hashes are stored for {machine()}")
    assert golden[machine()][name] == found


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(SMOKE)))
def test_a_trial_of_the_smoke_space_repeats_every_bit(index: int, tmp_path: Path) -> None:
    check(f"smoke-{index}", fingerprint("smoke", "digits", SMOKE[index], tmp_path))


@pytest.mark.slow
def test_a_trial_of_the_mnist5k_space_repeats_every_bit(tmp_path: Path) -> None:
    point = {**load_space("mnist5k").enqueue[0], "width_g": 8, "width_d": 8}
    check("mnist5k", fingerprint("mnist5k", "mnist5k", point, tmp_path, kimg=1))
