"""Weights cast by one kernel: bit-identical to autocast. A CPU stands for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import trainers
from torch import nn

from pipeline.training.graphed_step import StepHyperparams
from pipeline.training.networks import casting
from pipeline.training.trainer import Trainer

CONFIGS = {
    "plain": {},
    **{name: changes for name, changes in trainers.CONFIGS.items() if name != "bfloat16"},
    "mlp": {"architecture": "mlp"},
    "micro-batches": {},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_is_bit_identical_to_autocast(
    make_trainer: Callable[..., Trainer], monkeypatch: Any, name: str
) -> None:
    """Weights and means are the same bits for every training configuration."""
    trained, casts = [], []
    copies = casting._copies
    monkeypatch.setattr(casting, "_copies", lambda *args: casts.append(args) or copies(*args))
    for cast in (False, True):
        monkeypatch.setattr(casting, "_on_gpu", lambda network: True)
        monkeypatch.setattr(StepHyperparams, "is_graphed", cast)  # other steps leave the casts to autocast
        trainer = make_trainer(**CONFIGS[name], precision="bfloat16")
        trainer.grad_accum_steps = 2 if name == "micro-batches" else 1
        trainer.control = 0.6 if trainer.config.controller == "skip" else 0.0
        trainer.advance(2, should_stop=lambda trainer=trainer: trainer.d_steps >= 20)
        trained.append(trainer)
        assert bool(casts) == cast
    eager, graphed = trained
    assert eager.metrics.read() == graphed.metrics.read()
    for net, peer in (
        (graphed.G, eager.G),
        (graphed.D, eager.D),
        (graphed.ema.generator, eager.ema.generator),
    ):
        for (key, tensor), expected in zip(net.state_dict().items(), peer.state_dict().values(), strict=True):
            assert torch.equal(tensor, expected), key
    assert not graphed._forward_d._cast  # nothing is kept after a step
    assert not graphed._forward_g._cast


def test_networks_with_custom_modules_are_left_to_autocast(monkeypatch: Any) -> None:
    class Custom(nn.Linear):
        pass

    monkeypatch.setattr(casting, "_on_gpu", lambda network: True)
    counts = []
    copies = casting._copies
    monkeypatch.setattr(casting, "_copies", lambda *args: counts.append(len(args[0])) or copies(*args))
    for last in (nn.BatchNorm1d(3), Custom(3, 3)):
        forward = casting.CastParameters(nn.Sequential(nn.Linear(2, 3), last), bfloat16=True)
        forward.begin(graphed=True)
        forward.refresh()
        forward.end()
    assert counts == [2]  # weight and bias of the Linear beside the batch norm
