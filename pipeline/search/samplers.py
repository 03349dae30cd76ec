"""The samplers by the names that `--sampler` takes: ours, Optuna's, and the user's own."""

from __future__ import annotations

import logging

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.search._compat import ReplayedCmaEsSampler
from pipeline.search.optuna_class import make_optuna_class, takes
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution
from pipeline.tables import SAMPLERS
from pipeline.training.seeds import sampler_seed

log = logging.getLogger(__name__)


def make_sampler(config: SweepConfig, space: Space, number: int) -> BaseSampler:
    """The sampler for trial `number`, seeded by the sweep's seed and the number.

    Each trial has a sampler of its own, so that a resumed search draws what an uninterrupted one would: what
    a sampler has learned, it must learn from the study.

    Raises:
        ConfigError: its package is missing, or the user's own cannot be made.
    """
    distributions = {name: to_optuna(d) for name, d in space.search.items()}
    known = {
        "seed": sampler_seed(config.seed, number),
        "sweep_seed": config.seed,
        "space": space,
        "distributions": distributions,
        "unconditional": {name: distributions[name] for name in space.unconditional},
    }
    return make_optuna_class(SAMPLERS, config.sampler, BaseSampler, known)  # type: ignore[no-any-return]


def check_sampler(config: SweepConfig, space: Space) -> None:
    """Make the sampler once, before the sweep writes a file; log a line if the search is not reproducible.

    Raises:
        ConfigError: its package is missing, it is the user's own and cannot be made, or it unpickles.
    """
    sampler = make_sampler(config, space, 0)
    if isinstance(sampler, CmaEsSampler) and not isinstance(sampler, ReplayedCmaEsSampler):
        rule = "it unpickles what it finds in the study, where others may have written"
        fix = "use --sampler cmaes, which needs no pickle"
        raise ConfigError("sampler = {seen} is refused", rule=rule, seen=config.sampler, fix=fix)
    if SAMPLERS.is_user_code(config.sampler) and not takes(SAMPLERS.load(config.sampler), "seed"):
        log.info(f"sampler {config.sampler} takes no seed: the search does not repeat")


def sampler_notes(config: SweepConfig, space: Space) -> list[str]:
    """What the sampler does not do with this space and pruner, a sentence each."""
    row = SAMPLERS.get(config.sampler)
    if row is None:
        return []
    unmodelled = [
        name
        for name, d in space.search.items()
        if (d.choices and not row.choices) or (name not in space.unconditional and not row.conditions)
    ]
    notes = []
    if unmodelled:
        notes.append(f"{config.sampler} does not model {', '.join(unmodelled)}: drawn at random")
    if row.pruned is False and config.pruner != "none":
        notes.append(f"{config.sampler} learns from complete trials alone: --pruner none gives it more")
    return notes


def to_optuna(d: Distribution) -> BaseDistribution:
    """The same as one of Optuna's."""
    if d.choices:
        return CategoricalDistribution(d.choices)
    if d.whole:
        return IntDistribution(int(d.low), int(d.high), log=d.log)
    return FloatDistribution(d.low, d.high, log=d.log)
