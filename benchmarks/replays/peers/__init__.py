"""The peers: other searches as their authors ship them, each a `replays.clock.Search`.

Every peer minimises the same objective: the best fid of a trial so far, `PENALTY` where there never was one.
Fidelity is kimg from 1 to the full length. Defaults are each package's own unless `meaning` says otherwise.
A package is imported only when a peer that needs it is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipeline.search.space.definition import Space
from replays.clock import Search


@dataclass(frozen=True)
class PeerRow:
    """How a peer is made. where: `module:Class` in this folder. package: what it imports.

    seeds: how many are affordable. meaning: one line.
    """

    where: str
    package: str
    seeds: int
    meaning: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, space: Space, seed: int, workers: int, full_kimg: int) -> Search:
        """The search, before its first trial.

        Raises:
            SystemExit: its package is missing.
        """
        if find_spec(self.package) is None:
            raise SystemExit(f"no package {self.package}: pip install -r benchmarks/requirements-peers.txt")
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # else XGBoost's threads make BORE 20 times slower
        module, name = self.where.split(":")
        made: Search = getattr(import_module(f"replays.peers.{module}"), name)(
            space, seed, workers, full_kimg, **self.options
        )
        return made


def _optuna(sampler: str, pruner: str, meaning: str) -> PeerRow:
    options = {"sampler": sampler, "pruner": pruner}
    return PeerRow("optuna_search:OptunaSearch", "optuna", 20, meaning, options)


def _ray(sampler: str, reduction: int, meaning: str) -> PeerRow:
    return PeerRow("ray_search:RaySearch", "ray", 20, meaning, {"sampler": sampler, "reduction": reduction})


def _syne_tune(method: str, seeds: int, meaning: str) -> PeerRow:
    return PeerRow("syne_tune_search:SyneTuneSearch", "syne_tune", seeds, meaning, {"method": method})


def _old_syne_tune(method: str, seeds: int, meaning: str) -> PeerRow:
    return PeerRow("syne_tune_search:OldSyneTuneSearch", "syne_tune", seeds, meaning, {"method": method})


PEERS: dict[str, PeerRow] = {
    "random": replace(_optuna("random", "none", "random search, every trial to its end"), seeds=100),
    "random+asha": replace(_ray("random", 3, "random search, Ray's ASHAScheduler, reduction 3"), seeds=100),
    "optuna tpe": _optuna("tpe", "none", "Optuna's TPE, every trial to its end"),
    "optuna tpe+median": _optuna("tpe", "median", "Optuna's TPE and MedianPruner"),
    "optuna tpe+percentile": _optuna("tpe", "percentile", "Optuna's TPE and PercentilePruner at 25 %"),
    "optuna tpe+sha": _optuna("tpe", "successive halving", "Optuna's TPE and SuccessiveHalvingPruner"),
    "optuna tpe+hyperband": _optuna("tpe", "hyperband", "Optuna's TPE and HyperbandPruner"),
    "optuna tpe+wilcoxon": _optuna("tpe", "wilcoxon", "Optuna's TPE and WilcoxonPruner, kimg as instances"),
    "ray optuna+asha": _ray("tpe", 4, "Ray's OptunaSearch and ASHAScheduler with their defaults"),
    "syne asha": _syne_tune("ASHA", 20, "Syne Tune's ASHA (stopping, reduction 3) with random draws"),
    "syne bore": _syne_tune("BORE", 5, "Syne Tune's BORE, every trial to its end"),
    "syne asha+bore": _syne_tune("ASHABORE", 3, "Syne Tune's ASHA with BORE"),
    "syne asha+cqr": _syne_tune("ASHACQR", 3, "Syne Tune's ASHA with conformal quantile regression"),
    "syne asha+kde": _syne_tune("BOHB", 10, "Syne Tune's BOHB: ASHA with kernel density estimators"),
    "mobster": _old_syne_tune("MOBSTER", 2, "MOBSTER of Syne Tune 0.13: ASHA with a Gaussian process"),
    "hyper-tune": _old_syne_tune("HyperTune", 2, "Hyper-Tune of Syne Tune 0.13"),
    "bohb": PeerRow("bohb_search:BohbSearch", "hpbandster", 10, "BOHB of its authors' HpBandSter"),
    "smac": PeerRow("smac_search:SmacSearch", "smac", 5, "SMAC3's multi-fidelity facade"),
    "priorband": PeerRow(
        "priorband_search:PriorBandSearch", "neps", 5, "NePS' PriorBand, prior: the portfolio's first point"
    ),
    "dehb": PeerRow("dehb_search:DehbSearch", "dehb", 10, "DEHB of its authors' package"),
}
