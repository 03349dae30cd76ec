"""Full float32: torch's settings inside and afterwards, and with several threads."""

from __future__ import annotations

import threading

import pytest
import torch

from pipeline.metrics.precision import FLOAT32_BACKENDS, full_float32, torch_state_lock


@pytest.fixture
def restored():
    """torch's default settings again after a test."""
    yield
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
    for backend, default in zip(FLOAT32_BACKENDS, ("tf32", "none", "none", "none"), strict=True):
        backend.fp32_precision = default


def set_legacy():
    torch.set_float32_matmul_precision("high")


def set_legacy_of_cublas():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True


def set_new():
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "tf32"


def set_new_of_backends():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def flags():
    """All settings of float32 precision, then whether cuDNN benchmarks."""
    read = [lambda backend=backend: backend.fp32_precision for backend in FLOAT32_BACKENDS]
    read += [torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32]
    read += [lambda: torch.backends.cuda.matmul.allow_tf32, lambda: torch.backends.cudnn.benchmark]
    return [read_or_mixed(one) for one in read]


def read_or_mixed(read):
    try:
        return read()
    except RuntimeError:  # torch refuses to answer once both APIs have been used
        return "mixed"


@pytest.mark.parametrize(
    "setting", [lambda: None, set_legacy, set_legacy_of_cublas, set_new, set_new_of_backends]
)
def test_tf32_is_off_inside_however_it_was_set(restored, setting):
    setting()
    before = flags()
    for _ in range(2):
        with full_float32(torch.device("cuda")), full_float32(torch.device("cpu")):
            assert flags()[:4] == ["ieee"] * 4
            assert flags()[7] is False
            if "mixed" not in before:
                assert flags()[4:7] == ["highest", False, False]
        assert flags() == before


def test_settings_are_restored_after_an_error(restored):
    set_legacy()
    before = flags()
    with pytest.raises(ZeroDivisionError), full_float32(torch.device("cpu")):
        raise ZeroDivisionError
    assert flags() == before


def test_threads_take_turns(restored):
    """Settings belong to the process: two threads that overlap would restore each other's."""
    set_legacy()
    before, seen, inside = flags(), [], threading.Event()

    def hold():
        for _ in range(200):
            with full_float32(torch.device("cpu")):
                seen.append(flags()[:4])
        inside.set()

    threads = [threading.Thread(target=hold) for _ in range(3)]
    with torch_state_lock:
        for thread in threads:
            thread.start()
        assert not inside.wait(0.1)
        assert flags() == before
    for thread in threads:
        thread.join()
    assert seen == [["ieee"] * 4] * 600
    assert flags() == before
