"""With what one step of the game is played: rates, strengths and turns, by how far the trial is.

Owns: `Pace` and `pace`, a pure function of the configuration, the images shown so far and the two numbers
that answer readings. Refuses: state, tensors. So a resumed trial needs no scheduler to be restored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.config import TrialConfig
from pipeline.training.balance import lr_factors, skips_turn


@dataclass(frozen=True)
class StepSchedule:
    """What holds for one step.

    lr_g, lr_d, beta2: Adam's; the rates as float32 holds them, so that a recorded step, which reads them from
    a tensor, and a plain one agree to the bit. gamma: strength of the penalty. ema_halflife_nimg: in images.
    augment_p: probability that an image is augmented. skip_g, skip_d: whose update is left out.
    """

    lr_g: float
    lr_d: float
    beta2: float
    gamma: float
    ema_halflife_nimg: float
    augment_p: float
    skip_g: bool
    skip_d: bool


def scheduled(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at 1 and after; exactly those at both ends."""
    if progress >= 1:
        return end
    return start + 0.5 * (1 - math.cos(math.pi * max(progress, 0.0))) * (end - start)


def step_schedule(config: TrialConfig, nimg: int, control: float, ada_p: float) -> StepSchedule:
    """The pace of the step that begins after `nimg` images.

    control: the controller's state in [-1, 1] (`balance.steer`). ada_p: ADA's probability.
    """
    brake_g, brake_d = lr_factors(control) if config.controller == "lr_ratio" else (1.0, 1.0)
    held = control if config.controller == "skip" else 0.0
    turn = nimg // config.batch_size  # of D; G has one in n_critic
    slower = _factor(config, nimg, 1.0, config.lr_final)
    cosine = config.schedule == "cosine"
    beta2_final = config.beta2_final if cosine and config.beta2_final else config.beta2
    return StepSchedule(
        lr_g=_single(config.lr_g * slower * brake_g),
        lr_d=_single(config.lr_d * slower * brake_d),
        beta2=scheduled(config.beta2, beta2_final, _progress(config, nimg)),
        gamma=config.gamma * _factor(config, nimg, 1.0, config.gamma_final),
        ema_halflife_nimg=1000 * config.ema_halflife_kimg * _factor(config, nimg, config.ema_start, 1.0),
        augment_p=_augment_p(config, nimg, ada_p),
        skip_g=skips_turn(-held, turn // config.n_critic),
        skip_d=skips_turn(held, turn),
    )


def _augment_p(config: TrialConfig, nimg: int, ada_p: float) -> float:
    if config.augment == "none":
        return 0.0
    p = config.augment_p * _factor(config, nimg, config.augment_start, 1.0)
    return min(p, ada_p) if config.augment == "ada" else p


def _factor(config: TrialConfig, nimg: int, start: float, end: float) -> float:
    return scheduled(start, end, _progress(config, nimg)) if config.schedule == "cosine" else 1.0


def _single(value: float) -> float:
    """Rounded to what a float32 can be."""
    return float(np.float32(value))


def _progress(config: TrialConfig, nimg: int) -> float:
    return nimg / (1000 * (config.burn_in_kimg or config.kimg))
