"""Kinds of games that a recorded step plays as a plain one does: what they change in a configuration."""

from __future__ import annotations

from typing import Any

GAMES: dict[str, dict[str, Any]] = {
    "plain": {},
    "lazy r1, two critics": {"n_critic": 2, "penalty": "r1", "penalty_interval": 3, "batch_size": 40},
    "relativistic, conditional": {"loss": "relativistic", "penalty": "r1r2", "conditional": True},
    "batch norm, conditional": {"norm_d": "batch", "conditional": True, "norm_g": "batch"},
    "spectral norm": {"norm_d": "spectral", "loss": "hinge"},
    "gp, warm-up": {"loss": "wasserstein", "penalty": "gp", "n_critic": 3, "d_warmup_kimg": 1.2},
    "resnet, dragan": {"architecture": "resnet", "penalty": "dragan"},
    "bfloat16": {"precision": "bfloat16", "penalty": "r1"},
    "augmented": {"augment": "diffaugment", "augment_p": 0.4, "penalty": "r1"},
    "held back": {"controller": "skip", "penalty": "r1", "penalty_interval": 2, "batch_size": 40},
}
