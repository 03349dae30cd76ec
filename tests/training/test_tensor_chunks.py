"""Lists of tensors in pieces: the same numbers, whatever their layout. A CPU stands for the GPU."""

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


def test_an_operation_on_pieces_is_one_on_the_whole() -> None:
    ours, live = tensors(0, 10, 5000, 1), tensors(1, 10, 5000, 1)
    expected = [torch.lerp(a, b, 0.3) for a, b in zip(ours, live, strict=True)]
    cut = in_chunks(ours, live)
    assert len(cut[0]) == len(cut[1]) > len(ours)
    torch._foreach_lerp_(*cut, 0.3)
    for tensor, value in zip(ours, expected, strict=True):
        assert torch.equal(tensor, value)
        assert tensor.stride() == value.stride()


@pytest.mark.parametrize(("lists", "most"), tensor_chunks._ONE_LAUNCH.items())
@pytest.mark.parametrize("size", [1, 4096, 100_000, 900_000])
def test_they_go_into_one_launch(lists: int, most: int, size: int) -> None:
    found = in_chunks(*[tensors(0, size, 17) for _ in range(lists)])
    assert len(found) == lists
    assert len(found[0]) <= most
    assert sum(map(torch.numel, found[0])) == sum(map(torch.numel, tensors(0, size, 17)))


def test_what_belongs_to_a_tensor_stands_beside_all_of_its_pieces() -> None:
    owned = tensors(0, 20_000)
    names = [torch.tensor(float(tensor.numel())) for tensor in owned]
    cut, beside = in_chunks(owned, whole=names)
    assert len(cut) == len(beside)
    for name in names:
        size = sum(piece.numel() for piece, owner in zip(cut, beside, strict=True) if owner is name)
        assert size == float(name)


@pytest.mark.parametrize("sizes", [(8_000_000,), (3,) * 200, ()])
def test_where_it_gains_nothing_lists_stay_as_they_are(sizes: tuple[int, ...]) -> None:
    whole = [torch.zeros(size) for size in sizes]
    (found,) = in_chunks(whole)
    assert [id(tensor) for tensor in found] == [id(tensor) for tensor in whole]


def test_what_lies_otherwise_in_memory_stays_whole() -> None:
    plain, turned = torch.randn(100, 100), torch.randn(100, 100).T
    assert [t.shape for t in in_chunks([plain], [turned])[0]] == [(100, 100)]
    gaps = torch.randn(100, 200)[:, ::2]
    assert [t.shape for t in in_chunks([gaps], [gaps])[0]] == [(100, 100)]
