"""How many trials share a GPU, by made-up speeds; by tasks of a real Ray in support/packing_on_ray.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pretended_mps import GIB, SPACE

from pipeline.cluster import packing
from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.cluster.packing import Packing, choose_packing
from pipeline.config import SweepConfig
from pipeline.search.resources import Cluster
from pipeline.training.profiling import TrialProfile
from pipeline.training.trial_speed import TrialSpeed

ALONE = TrialProfile(1.0, 0.1, 2 * GIB, "pretended", 80 * GIB)


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """choose(gains, ...): the packing, and which numbers of trials were measured.

    gains: trials per hour by the number of trials at a time, as multiples of one alone; measuring any other
    number fails. no_mps: why there is no MPS. Other options: fields of SweepConfig.
    """
    caplog.set_level("INFO", "pipeline")

    def run(
        gains: dict[int, float],
        cores: float = 16.0,
        no_mps: str = "",
        profile: TrialProfile | str = ALONE,
        **options: Any,
    ) -> tuple[Packing, list[int]]:
        measured = list[int]()

        def profile_shared(
            config: Any, refs: Any, resources: Any, trials: int, with_mps: bool, eval_sec: float
        ) -> TrialSpeed | str:
            measured.append(trials)
            assert config.batch_size == 32, "the largest trial of the space"
            assert with_mps is not bool(no_mps)
            if trials not in gains:
                return "the process that measured a trial died: gone"
            return TrialSpeed(trials, trials / gains[trials], trials * 0.1 / gains[trials])

        monkeypatch.setattr(packing, "profile_alone", lambda *_: profile)
        monkeypatch.setattr(packing, "profile_shared", profile_shared)
        monkeypatch.setattr("pipeline.cluster.mps.start", lambda: no_mps)
        refs: Any = None
        cluster = Cluster([{"CPU": cores, "GPU": 1.0}])
        config = SweepConfig(name="x", **{"trials": 100, **options})
        return choose_packing(config, SPACE, cluster, refs, MpsSharing("local")), measured

    return run


def test_most_trials_per_hour_win(choose: Any, caplog: pytest.LogCaptureFixture) -> None:
    chosen, measured = choose({16: 3.1, 8: 2.5})
    assert measured == [16, 8]
    assert (chosen.resources.gpus, chosen.resources.concurrency) == (0.0625, 16)
    assert chosen.speed.trials == 16
    assert caplog.messages[-1] == (
        "packing: 16 trials at a time make 3.1 times the trials per hour of one: 16 per GPU (MPS)"
    )


def test_half_as_many_are_chosen_where_all_gain_little(choose: Any, caplog: pytest.LogCaptureFixture) -> None:
    chosen, _ = choose({16: 3.1, 8: 3.0})
    assert chosen.resources.gpus == 0.125
    assert "8 trials at a time make 3 times" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("8 per GPU (MPS)")


def test_half_as_many_are_not_measured_where_they_cannot_win(choose: Any) -> None:
    chosen, measured = choose({8: 6.0}, cores=8)
    assert (chosen.resources.gpus, measured) == (0.125, [8])


def test_without_a_gain_each_trial_has_its_gpu(choose: Any, caplog: pytest.LogCaptureFixture) -> None:
    chosen, _ = choose({8: 1.1, 4: 1.05}, cores=8)
    assert (chosen.resources.gpus, chosen.resources.concurrency) == (1.0, 1)
    assert caplog.messages[-1] == (
        "packing: 8 at a time make 1.1, 4 at a time make 1.1 times the trials per hour of one: one GPU each"
    )


def test_a_number_that_cannot_be_measured_is_left_out(choose: Any, caplog: pytest.LogCaptureFixture) -> None:
    chosen, measured = choose({4: 2.0}, cores=8)
    assert (chosen.resources.gpus, measured) == (0.25, [8, 4])
    assert "packing: not 8 at a time: the process that measured a trial died: gone" in caplog.messages
    chosen, _ = choose({}, cores=8)
    assert chosen.resources.gpus == 1.0


def test_without_mps_at_most_two_share_and_a_warning_says_why(
    choose: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chosen, measured = choose({2: 1.3}, no_mps="no program")
    assert (chosen.resources.gpus, measured) == (0.5, [2])
    (warning,) = [record for record in caplog.records if "no program" in record.getMessage()]
    assert warning.levelname == "WARNING"
    assert "at most 2 trials per GPU" in warning.getMessage()
    assert caplog.messages[-1].endswith("2 per GPU")


@pytest.mark.parametrize(
    ("cores", "profile", "options", "message"),
    [
        (1.0, ALONE, {}, "takes 2 GiB on pretended (80 GiB), 1 cores for each GPU"),
        (16.0, ALONE, {"concurrency": 1}, "there are no more trials than GPUs"),
        (16.0, TrialProfile(1.0, 0.1, 60 * GIB, "pretended", 80 * GIB), {}, "takes 60 GiB"),
        (16.0, "it does not fit the GPU: no memory", {}, "it does not fit the GPU: no memory: one GPU each"),
        (16.0, TrialProfile(1.0, 0.1, GIB, "cpu"), {}, "torch sees no GPU where Ray has one: one GPU each"),
    ],
)  # fmt: skip
def test_the_log_says_why_a_trial_has_a_gpu_alone(
    choose: Any,
    caplog: pytest.LogCaptureFixture,
    cores: float,
    profile: TrialProfile | str,
    options: dict[str, Any],
    message: str,
) -> None:
    chosen, measured = choose({}, cores, profile=profile, **options)
    assert (chosen.resources.gpus, measured) == (1.0, [])
    assert message in caplog.messages[-1]
    assert chosen.profile is profile or chosen.profile == "torch sees no GPU where Ray has one"


def test_a_given_fraction_of_a_gpu_is_not_measured(choose: Any, caplog: pytest.LogCaptureFixture) -> None:
    chosen, measured = choose({}, no_mps="no program", gpus_per_trial=0.25)
    assert (chosen.resources.gpus, chosen.resources.concurrency, measured) == (0.25, 4, [])
    assert caplog.messages == ["trials that share a GPU take turns on it: no program"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_on_a_real_ray() -> None:
    support = Path(__file__).parents[1] / "support"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(support / "packing_on_ray.py"),
    ]
    done = subprocess.run(
        [*command, "-o", "timeout=300"], cwd=support.parents[1], capture_output=True, text=True, timeout=390
    )
    last = done.stdout.strip().splitlines()[-1]
    assert re.match(r"10 passed\b", last), done.stdout[-5000:] + done.stderr[-2000:]
