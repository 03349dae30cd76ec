"""The schedule of a training step: learning rates, strengths, and whether G or D skips its update.

`step_schedule` is a pure function of the configuration, the images seen so far and the states of the balance
controller and of ADA. So a resumed trial has no scheduler to restore.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.config import TrialConfig
from pipeline.training.balance import lr_factors, skips_step


@dataclass(frozen=True)
class StepSchedule:
    """The scheduled hyper-parameters of one step.

    lr_g, lr_d, beta2: of Adam; learning rates are rounded to float32, so that a step in a CUDA graph, which
    reads them from a tensor, is bit-identical to an eager one. gamma: weight of the penalty.
    ema_halflife_nimg: in images. augment_p: probability that an image is augmented. skip_g, skip_d: whether G
    or D skips its update.
    """

    lr_g: float
    lr_d: float
    beta2: float
    gamma: float
    ema_halflife_nimg: float
    augment_p: float
    skip_g: bool
    skip_d: bool


def cosine_schedule(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress <= 0 to `end` at progress >= 1, exact at both ends."""
    if progress >= 1:
        return end
    return start + 0.5 * (1 - math.cos(math.pi * max(progress, 0.0))) * (end - start)


def step_schedule(config: TrialConfig, nimg: int, control: float, ada_p: float) -> StepSchedule:
    """The schedule of the step that starts after `nimg` images.

    control: state of the balance controller, in [-1, 1] (`balance.update_controller`). ada_p: probability of
    ADA, in [0, 1].
    """
    factor_g, factor_d = lr_factors(control) if config.controller == "lr_ratio" else (1.0, 1.0)
    skip_control = control if config.controller == "skip" else 0.0
    step = nimg // config.batch_size  # of D; G has one in n_critic
    lr_factor = _factor(config, nimg, 1.0, config.lr_final)
    cosine = config.schedule == "cosine"
    beta2_final = config.beta2_final if cosine and config.beta2_final else config.beta2
    return StepSchedule(
        lr_g=float(np.float32(config.lr_g * lr_factor * factor_g)),
        lr_d=float(np.float32(config.lr_d * lr_factor * factor_d)),
        beta2=cosine_schedule(config.beta2, beta2_final, _progress(config, nimg)),
        gamma=config.gamma * _factor(config, nimg, 1.0, config.gamma_final),
        ema_halflife_nimg=1000 * config.ema_halflife_kimg * _factor(config, nimg, config.ema_start, 1.0),
        augment_p=_augment_p(config, nimg, ada_p),
        skip_g=skips_step(-skip_control, step // config.n_critic),
        skip_d=skips_step(skip_control, step),
    )


def _augment_p(config: TrialConfig, nimg: int, ada_p: float) -> float:
    if config.augment == "none":
        return 0.0
    p = config.augment_p * _factor(config, nimg, config.augment_start, 1.0)
    return min(p, ada_p) if config.augment == "ada" else p


def _factor(config: TrialConfig, nimg: int, start: float, end: float) -> float:
    return cosine_schedule(start, end, _progress(config, nimg)) if config.schedule == "cosine" else 1.0


def _progress(config: TrialConfig, nimg: int) -> float:
    return nimg / (1000 * (config.burn_in_kimg or config.kimg))
