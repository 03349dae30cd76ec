"""Weights cast at once: the same bits as autocast's own casts. A CPU stands for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import games
import pytest
import torch
from torch import nn

from pipeline.training.graphed_step import StepHyperparams
from pipeline.training.networks import build, casting
from pipeline.training.trainer import Trainer

GAMES = {
    "plain": {},
    **{name: game for name, game in games.GAMES.items() if name != "bfloat16"},
    "mlp": {"architecture": "mlp"},
    "in parts": {},
}


@pytest.mark.parametrize("game", GAMES)
def test_a_step_is_that_of_autocast(
    make_trainer: Callable[..., Trainer], monkeypatch: Any, game: str
) -> None:
    """Weights, optimizers, means: bit for bit, in every kind of game."""
    monkeypatch.setattr(build, "speed_up_strided", lambda network: None)  # on a CPU it casts by itself
    found, casts = [], []
    copies = casting._copies
    monkeypatch.setattr(casting, "_copies", lambda *args: casts.append(args) or copies(*args))
    for cast in (False, True):
        monkeypatch.setattr(casting, "_on_gpu", lambda network: True)
        monkeypatch.setattr(StepHyperparams, "recorded", cast)  # a step that is not casts as autocast does
        trainer = make_trainer(**GAMES[game], precision="bfloat16")
        trainer.pieces = 2 if game == "in parts" else 1
        trainer.control = 0.6 if trainer.config.controller == "skip" else 0.0
        trainer.advance(2, should_stop=lambda trainer=trainer: trainer.d_steps >= 20)
        found.append(trainer)
        assert bool(casts) == cast
    plain, ours = found
    assert plain.tally.read() == ours.tally.read()
    for net, peer in ((ours.G, plain.G), (ours.D, plain.D), (ours.ema.generator, plain.ema.generator)):
        for (name, tensor), expected in zip(
            net.state_dict().items(), peer.state_dict().values(), strict=True
        ):
            assert torch.equal(tensor, expected), name
    assert not ours._pass_d._cast  # nothing of a step outlives it
    assert not ours._pass_g._cast


def test_networks_of_one_s_own_cast_as_they_like() -> None:
    class Odd(nn.Linear):
        pass

    assert casting._names(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))) == ["0.weight", "0.bias"]
    assert casting._names(nn.Sequential(nn.Linear(2, 3), Odd(3, 1))) == []
