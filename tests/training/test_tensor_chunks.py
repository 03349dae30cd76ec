"""Lists of tensors in chunks: the same values for any memory layout. A CPU stands for the GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.training import tensor_chunks
from pipeline.training.tensor_chunks import in_chunks


@pytest.fixture(autouse=True)
def _on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "is_cuda", True)


def tensors(seed: int, *sizes: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    flat = [torch.randn(size, generator=rng) for size in sizes]
    image = torch.randn(64, 32, 4, 4, generator=rng).to(memory_format=torch.channels_last)
    return [*flat, image, torch.randn((), generator=rng), torch.randn(30, 500, generator=rng)]


def test_an_operation_on_chunks_is_that_on_the_tensors() -> None:
    average, live = tensors(0, 10, 5000, 1), tensors(1, 10, 5000, 1)
    expected = [torch.lerp(a, b, 0.3) for a, b in zip(average, live, strict=True)]
    chunks = in_chunks(average, live)
    assert len(chunks[0]) == len(chunks[1]) > len(average)
    torch._foreach_lerp_(*chunks, 0.3)
    for tensor, value in zip(average, expected, strict=True):
        assert torch.equal(tensor, value)
        assert tensor.stride() == value.stride()


@pytest.mark.parametrize(("lists", "most"), tensor_chunks._ONE_LAUNCH.items())
@pytest.mark.parametrize("size", [1, 4096, 100_000, 900_000])
def test_all_chunks_fit_in_one_launch(lists: int, most: int, size: int) -> None:
    found = in_chunks(*[tensors(0, size, 17) for _ in range(lists)])
    assert len(found) == lists
    assert len(found[0]) <= most
    assert sum(map(torch.numel, found[0])) == sum(map(torch.numel, tensors(0, size, 17)))


def test_whole_tensors_are_repeated_for_each_chunk() -> None:
    split = tensors(0, 20_000)
    sizes = [torch.tensor(float(tensor.numel())) for tensor in split]
    chunks, repeated = in_chunks(split, whole=sizes)
    assert len(chunks) == len(repeated)
    for size in sizes:
        total = sum(chunk.numel() for chunk, other in zip(chunks, repeated, strict=True) if other is size)
        assert total == float(size)


@pytest.mark.parametrize("sizes", [(8_000_000,), (3,) * 200, ()])
def test_lists_are_unchanged_if_splitting_gains_nothing(sizes: tuple[int, ...]) -> None:
    whole = [torch.zeros(size) for size in sizes]
    (found,) = in_chunks(whole)
    assert [id(tensor) for tensor in found] == [id(tensor) for tensor in whole]


def test_tensors_of_other_memory_layouts_stay_whole() -> None:
    plain, transposed = torch.randn(100, 100), torch.randn(100, 100).T
    assert [t.shape for t in in_chunks([plain], [transposed])[0]] == [(100, 100)]
    gaps = torch.randn(100, 200)[:, ::2]
    assert [t.shape for t in in_chunks([gaps], [gaps])[0]] == [(100, 100)]
