"""A space of gansweep in the words of other packages, and what they draw as parameters of a trial again.

ConfigSpace (BOHB, SMAC, DEHB) and Optuna (suggested one by one) have conditions. Syne Tune and NePS have
none: every parameter is drawn always and dropped where its condition does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution


def active_params(space: Space, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters whose conditions hold, in Python's own types.

    drawn: name -> value; that of a choice may be its text (`choice_names`).
    """
    params: dict[str, Any] = {}
    for name, d in space.search.items():
        if space.active(name, params):
            params[name] = _plain(d, drawn[name])
    return params


def _plain(d: Distribution, value: Any) -> Any:
    if d.choices:
        return d.choices[choice_names(d).index(str(value))]
    number = round(value) if d.whole else float(value)
    return min(max(number, type(number)(d.low)), type(number)(d.high))  # exp(log(high)) may lie above high


def choice_names(d: Distribution) -> list[str]:
    """The choices as texts: packages turn those of several types into numpy's."""
    return [str(choice) for choice in d.choices]


def prior_point(space: Space) -> dict[str, Any]:
    """The first enqueued point; where it has no value, the middle of the range on its scale.

    Of choices, the first.
    """
    point = space.enqueue[0] if space.enqueue else {}
    return {name: point.get(name, _middle(d)) for name, d in space.search.items()}


def _middle(d: Distribution) -> Any:
    if d.choices:
        return d.choices[0]
    middle = math.sqrt(d.low * d.high) if d.log else (d.low + d.high) / 2
    return round(middle) if d.whole else middle


# --- ConfigSpace ---------------------------------------------------------------------------------


def to_configspace(space: Space, seed: int) -> Any:
    """A `ConfigSpace.ConfigurationSpace` with the conditions of the space."""
    import ConfigSpace as cs

    made = cs.ConfigurationSpace(seed=seed)
    for name, d in space.search.items():
        made.add(_configspace_parameter(cs, name, d))
    for name, d in space.search.items():
        conditions = [
            cs.InCondition(made[name], made[other], [str(value) for value in values])
            for other, values in d.when.items()
            if other in space.search
        ]
        if conditions:
            made.add(conditions[0] if len(conditions) == 1 else cs.AndConjunction(*conditions))
    return made


def _configspace_parameter(cs: Any, name: str, d: Distribution) -> Any:
    if d.choices:
        return cs.CategoricalHyperparameter(name, choice_names(d))
    if d.whole:
        return cs.UniformIntegerHyperparameter(name, int(d.low), int(d.high), log=d.log)
    return cs.UniformFloatHyperparameter(name, d.low, d.high, log=d.log)


# --- Syne Tune, NePS -----------------------------------------------------------------------------


def to_syne_tune(space: Space) -> dict[str, Any]:
    """name -> a domain of `syne_tune.config_space`, without conditions."""
    from syne_tune import config_space as domains

    made = {}
    for name, d in space.search.items():
        if d.choices:
            made[name] = domains.choice(choice_names(d))
        elif d.whole:
            made[name] = (domains.lograndint if d.log else domains.randint)(int(d.low), int(d.high))
        else:
            made[name] = (domains.loguniform if d.log else domains.uniform)(d.low, d.high)
    return made


def to_neps(space: Space, fidelity: str, full_kimg: int) -> Any:
    """A `neps.PipelineSpace` with `prior_point` as its prior, of the default (low) confidence, no conditions.

    fidelity: the name of the parameter that is kimg, from 1 to full_kimg.
    """
    import neps

    prior = prior_point(space)
    members: dict[str, Any] = {fidelity: neps.IntegerFidelity(1, full_kimg)}
    for name, d in space.search.items():
        more: dict[str, Any] = {"prior_confidence": "low"}
        if d.choices:
            place = d.choices.index(prior[name])
            members[name] = neps.Categorical(tuple(choice_names(d)), prior=place, **more)
        elif d.whole:
            members[name] = neps.Integer(int(d.low), int(d.high), log=d.log, prior=prior[name], **more)
        else:
            members[name] = neps.Float(d.low, d.high, log=d.log, prior=prior[name], **more)
    return type("Space", (neps.PipelineSpace,), members)()
