"""Kinds of steps, and updates of an optimizer in a step."""

from __future__ import annotations

import dataclasses

import torch

from pipeline.training.graphed_step import StepHyperparams, StepKind


def test_kinds_are_equal_whether_or_not_g_is_due() -> None:
    """A step that skips G's update launches the same kernels whether or not G's turn had come."""
    kind = StepKind(
        updates_d=True,
        updates_g=False,
        g_is_due=True,
        has_penalty=False,
        augmented=False,
        grad_accum_steps=1,
    )
    assert kind == dataclasses.replace(kind, g_is_due=False)
    assert hash(kind) == hash(dataclasses.replace(kind, g_is_due=False))


def test_an_update_uses_the_given_learning_rate() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    weight.grad = torch.ones(3)
    StepHyperparams(lr_g=0.0, lr_d=0.25, penalty=0.0, augment_p=0.0).step(optimizer, 0.25)
    assert torch.allclose(weight, torch.full((3,), 0.75))
