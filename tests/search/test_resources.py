"""Trials into nodes, and trials into a GPU, as plain arithmetic."""

from __future__ import annotations

import pytest

from pipeline.config import SweepConfig, TrialConfig
from pipeline.errors import ConfigError
from pipeline.search import resources
from pipeline.search.resources import Cluster
from pipeline.training.trial_speed import TrialSpeed

GIB = 2**30
CPU4 = {"CPU": 4.0, "memory": 1e9, "node:10.0.0.1": 1.0}
GPU2 = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:L4": 1.0}
HEAD = {"memory": 1e9, "node:__internal_head__": 1.0}


@pytest.mark.parametrize(
    ("bundle", "node", "fits"),
    [
        ({"CPU": 1.0}, CPU4, 4),
        ({"CPU": 1.5}, CPU4, 2),
        ({"CPU": 0.1}, {"CPU": 0.3}, 3),
        ({"CPU": 1.0}, HEAD, 0),
        ({"CPU": 1.0, "GPU": 1.0}, GPU2, 2),
        ({"CPU": 1.0, "GPU": 0.4}, GPU2, 4),  # two on each GPU: none spans both
        ({"CPU": 1.0, "GPU": 0.25}, GPU2, 8),
        ({"CPU": 1.0, "GPU": 0.3333}, GPU2, 6),
        ({"CPU": 1.0, "GPU": 2.0}, GPU2, 1),
        ({"CPU": 1.0, "GPU": 0.5, "accelerator_type:L4": 0.001}, GPU2, 4),
        ({"CPU": 1.0, "GPU": 0.5, "accelerator_type:A10G": 0.001}, GPU2, 0),
    ],
)
def test_how_many_trials_fit_on_a_node(bundle: dict[str, float], node: dict[str, float], fits: int) -> None:
    assert resources.trials_that_fit(node, bundle) == fits


def test_concurrency_counts_nodes_one_by_one() -> None:
    found = resources.trial_resources(SweepConfig(cpus_per_trial=3.0), Cluster([HEAD, CPU4, CPU4]))
    assert (found.cpus, found.gpus, found.concurrency) == (3.0, 0.0, 2)
    assert resources.trial_resources(SweepConfig(concurrency=5), Cluster([CPU4])).concurrency == 4
    assert resources.trial_resources(SweepConfig(concurrency=3), Cluster([CPU4])).concurrency == 3


def test_a_trial_takes_a_gpu_if_there_is_one() -> None:
    assert resources.trial_resources(SweepConfig(), Cluster([HEAD, GPU2, CPU4])).gpus == 1.0
    assert resources.trial_resources(SweepConfig(gpus_per_trial=0), Cluster([GPU2])).gpus == 0.0
    assert resources.trial_resources(SweepConfig(gpus_per_trial=0.5), Cluster([GPU2])).concurrency == 4


def test_waiting_trials_make_an_autoscaler_start_machines() -> None:
    found = resources.trial_resources(SweepConfig(gpus_per_trial=0.5), Cluster([HEAD], [(GPU2, 3)]))
    assert found.concurrency == 12
    assert (
        resources.trial_resources(
            SweepConfig(gpus_per_trial=1, concurrency=4), Cluster([HEAD], [(GPU2, 3)])
        ).concurrency
        == 4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"gpus_per_trial": 1},
            r"one trial \(1 CPU, 1 GPU\) fits on no node .*: 2 nodes: 4 CPU, 0 GPU; lower",
        ),
        ({"cpus_per_trial": 5}, r"one trial \(5 CPU, 0 GPU\) .* lower --cpus-per-trial$"),
        ({"require": "accelerator=A10G"}, r"\(1 CPU, 0 GPU, A10G\) .*; correct --require"),
        ({"require": "disk=2"}, r"\(1 CPU, 0 GPU, 2 disk\)"),
    ],
)
def test_resources_that_no_node_has_are_refused_with_the_nodes_that_exist(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resources.trial_resources(SweepConfig(**options), Cluster([HEAD, CPU4]))  # type: ignore[arg-type]


@pytest.mark.parametrize("gpus", [1.5, 2, 64])
def test_a_second_gpu_is_refused_even_where_there_is_one(gpus: float) -> None:
    message = (
        rf"--gpus-per-trial {gpus:g} is too many .*a trial trains on one GPU.*; write --gpus-per-trial 1"
    )
    with pytest.raises(ConfigError, match=message):
        resources.trial_resources(SweepConfig(gpus_per_trial=gpus), Cluster([{"CPU": 64.0, "GPU": 64.0}]))


@pytest.mark.parametrize(("gpus", "trials"), [(1.0, 4), (0.25, 16)])
def test_each_gpu_of_a_machine_gets_its_trials(gpus: float, trials: int) -> None:
    found = resources.trial_resources(SweepConfig(gpus_per_trial=gpus), Cluster([{"CPU": 64.0, "GPU": 4.0}]))
    assert (found.concurrency, found.shares_gpu) == (trials, gpus < 1)


def test_requirements_become_resources() -> None:
    assert resources.parse_required("accelerator=L4, fast_disk=1") == {
        "accelerator_type:L4": 0.001,
        "fast_disk": 1.0,
    }
    assert resources.trial_resources(SweepConfig(require="accelerator=L4"), Cluster([GPU2])).bundle == {
        "CPU": 1.0, "GPU": 1.0, "accelerator_type:L4": 0.001,
    }  # fmt: skip
    for text in ("accelerator=", "fast", "fast=x"):
        with pytest.raises(ConfigError, match="--require"):
            resources.parse_required(text)


def test_the_text_of_a_cluster_names_gpu_kinds_and_what_may_be_added() -> None:
    text = str(Cluster([HEAD, GPU2], [(CPU4, 2)]))
    assert text == "2 nodes: 8 CPU, 2 GPU L4; to add: 2 times 4 CPU, 0 GPU"
    assert str(Cluster([HEAD])) == "1 node: no CPU"


@pytest.mark.parametrize(
    ("peak", "gpu", "cores", "trials"),
    [
        (1 * GIB, 80 * GIB, 32, 16),  # more would fit
        (1 * GIB, 24 * GIB, 8, 8),
        (4 * GIB, 24 * GIB, 16, 4),
        (4 * GIB, 24 * GIB, 3, 3),  # one core for each
        (20 * GIB, 24 * GIB, 16, 1),
        (40 * GIB, 24 * GIB, 16, 1),  # one at least: torch finds out whether it runs
        (0, 80 * GIB, 0.5, 1),
    ],
)
def test_trials_per_gpu_follow_measured_bytes(peak: int, gpu: int, cores: float, trials: int) -> None:
    assert resources.trials_per_gpu(peak, gpu, cores, cpus=1.0) == trials
    fraction = resources.gpu_fraction(trials)
    assert int(1 / fraction) == trials
    if trials > 1:
        assert trials * (peak + resources.CONTEXT_BYTES) <= gpu * resources.USABLE_MEMORY


def test_no_more_trials_are_wanted_per_gpu_than_the_sweep_has() -> None:
    gpus = Cluster([{"CPU": 16.0, "GPU": 2.0}])
    assert resources.wanted_trials_per_gpu(SweepConfig(trials=100), gpus) == 50
    assert resources.wanted_trials_per_gpu(SweepConfig(trials=5), gpus) == 3
    assert resources.wanted_trials_per_gpu(SweepConfig(trials=100, concurrency=2), gpus) == 1
    grown = Cluster([{"CPU": 16.0, "GPU": 2.0}], [({"CPU": 16.0, "GPU": 2.0}, 5)])
    assert resources.wanted_trials_per_gpu(SweepConfig(trials=100), grown) == 10


CONFIG = TrialConfig(kimg=20, tick_kimg=8)


def test_trials_per_hour_count_training_and_the_fid_of_every_tick() -> None:
    speed = TrialSpeed(4, seconds_per_kimg=2.0, eval_seconds=5.0)
    assert speed.seconds(CONFIG) == 20 * 2 + 3 * 5
    assert speed.per_hour(CONFIG) == 4 * 3600 / 55


def speeds(**gains: float) -> list[TrialSpeed]:
    """speeds(n4=2.5): four trials at a time make 2.5 times the trials per hour of one."""
    return [TrialSpeed(int(n[1:]), int(n[1:]) / gain, 0.0) for n, gain in gains.items()]


@pytest.mark.parametrize(
    ("gains", "best"),
    [
        ({"n1": 1.0}, 1),
        ({"n1": 1.0, "n8": 1.14}, 1),  # too little gain
        ({"n1": 1.0, "n8": 1.16}, 8),
        ({"n8": 3.4, "n1": 1.0, "n4": 3.3}, 4),  # eight gain too little over four
        ({"n8": 3.4, "n4": 2.5, "n1": 1.0}, 8),
        ({"n8": 0.9, "n4": 2.0, "n1": 1.0}, 4),
        ({"n1": 1.0, "n4": 1.1, "n8": 1.2}, 8),
    ],
)
def test_more_trials_at_a_time_must_gain_enough(gains: dict[str, float], best: int) -> None:
    assert resources.fastest_packing(speeds(**gains), CONFIG).trials == best


def test_a_slow_fid_can_decide_against_packing() -> None:
    """Training gains by packing; a fid that is computed one after the other does not."""
    alone, packed = TrialSpeed(1, 1.0, 60.0), TrialSpeed(8, 2.0, 480.0)
    assert resources.fastest_packing([alone, packed], CONFIG) is alone
    assert resources.fastest_packing([alone, packed], TrialConfig(kimg=2000, tick_kimg=1000)) is packed


@pytest.mark.parametrize(
    ("kimg", "tick", "seconds_per_kimg", "expected"),
    [
        (240, 10, 1.0, 10),  # ten seconds: the space's tick
        (240, 10, 0.2, 10),
        (240, 10, 0.19, 20),
        (240, 10, 0.01, 20),  # no fewer than twelve reports
        (2000, 50, 0.01, 150),
        (2400, 10, 0.01, 200),
        (100, 20, 0.001, 20),  # it makes only five reports
        (7, 7, 0.001, 7),
        (240, 10, 0.0, 20),
    ],
)
def test_reports_are_two_seconds_apart_while_there_are_twelve(
    kimg: int, tick: int, seconds_per_kimg: float, expected: int
) -> None:
    assert resources.tick_for_gpu(tick, kimg, TrialSpeed(8, seconds_per_kimg, 0.0)) == expected
    assert resources.tick_for_gpu(tick, kimg, None) == tick


@pytest.mark.parametrize(
    ("gpus", "trials"), [(0.0, 0), (1.0, 0), (0.5, 2), (0.125, 8), (0.3333, 3), (0.4, 2)]
)
def test_how_many_share_a_gpu(gpus: float, trials: int) -> None:
    assert resources.TrialResources(1.0, gpus).per_gpu == trials
