"""Generators packed into files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from factories import CLASSES, generator_of
from registry_store import FACTS, TinyGenerator

from pipeline.errors import RegistryError
from pipeline.tables import NETWORKS
from pipeline.tracking.registry import pack
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator, pick_device
from pipeline.training.networks.blocks import Ema


def test_packing_does_not_change_the_module(tmp_path: Path) -> None:
    generator = TinyGenerator(3, 0).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    pack_generator(generator, tmp_path, ModelMetadata())
    assert generator.training
    assert all(p.requires_grad for p in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_metadata_are_read_again_with_none_for_nan(packing: Callable[..., Path]) -> None:
    metadata = LoadedGenerator(packing()).metadata
    assert metadata == ModelMetadata.from_json({**FACTS, "balance": None})


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_program_weights_and_module_agree(architecture: str, classes: int, tmp_path: Path) -> None:
    """The EMA module of a training run, the pt2 program and the safetensors weights, on the same latents."""
    live = generator_of(classes, architecture=architecture)
    ema = Ema(live, halflife_kimg=0.1)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ema.update(64, 10_000)
    pack_generator(ema.generator, tmp_path, ModelMetadata())
    again = generator_of(classes, architecture=architecture)
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "generator.safetensors"))
    inputs = [torch.randn(40, 8)] + ([torch.arange(40) % classes] if classes else [])
    program = torch.export.load(tmp_path / "generator.pt2").module()
    with torch.no_grad():
        expected, found, other = (form(*inputs) for form in (ema.generator, program, again))
    assert expected.std() > 0.01
    assert (found - expected).abs().max() <= 1e-5
    assert (other - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "auto", "has_gpu", "device"),
    [
        ("auto", "cpu", True, "cpu"),
        ("auto", "cuda", True, "cuda"),
        ("auto", "cuda", False, "cpu"),
        ("cpu", "cuda", True, "cpu"),
        ("cuda", "cpu", True, "cuda"),
    ],
)
def test_the_device_of_a_name(
    monkeypatch: pytest.MonkeyPatch, name: str, auto: str, has_gpu: bool, device: str
) -> None:
    monkeypatch.setattr(pack.torch.cuda, "is_available", lambda: has_gpu)
    assert pick_device(name, auto=auto) == device


def test_an_unknown_or_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack.torch.cuda, "is_available", lambda: False)
    with pytest.raises(RegistryError, match="--device tpu is unknown"):
        pick_device("tpu")
    with pytest.raises(RegistryError, match="cuda needs a GPU"):
        pick_device("cuda")
