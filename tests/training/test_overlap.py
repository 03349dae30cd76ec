"""Work that runs while training continues, on a CPU, and copies of states."""

from __future__ import annotations

import pytest
import torch

from pipeline.training import overlap


def test_on_a_cpu_the_work_is_done_at_once() -> None:
    device = torch.device("cpu")
    assert overlap.run_overlapped(lambda: 7, device).result(0) == 7
    failed = overlap.run_overlapped(lambda: 1 // 0, device)
    with pytest.raises(ZeroDivisionError):
        failed.result(0)


def test_a_cloned_state_shares_no_memory() -> None:
    tree = {
        "a": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "b": [1, {"c": torch.zeros(2)}],
        3: "x",
    }
    found = overlap.cloned_state(tree)
    found["a"] += 1
    found["b"][1]["c"] += 1
    assert float(tree["a"].sum()) == 96
    assert float(tree["b"][1]["c"].sum()) == 0
    assert found["a"].stride() == tree["a"].stride()
    assert found[3] == "x"
