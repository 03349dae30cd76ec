"""What only a GPU can show. Run it with `benchmarks/gpu_check.py`, or

pytest -m gpu tests/integration/gpu/test_gpu.py
"""

from __future__ import annotations

import copy
import gc
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trainers
from torch import Tensor, nn
from trainers import without_times

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.preparing.prepared import fingerprint
from pipeline.metrics import extractors, frechet
from pipeline.metrics.statistics import FeatureStatistics
from pipeline.search import recipes
from pipeline.tables import ExtractorRow
from pipeline.training import capturable_adam, overlap, trial
from pipeline.training.cuda_graphs import SWITCH
from pipeline.training.events import EventKind, TrialEvent
from pipeline.training.profiling import profile_trial
from pipeline.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIGS = {
    **trainers.CONFIGS,
    "mlp": {"architecture": "mlp"},
    "bfloat16, resnet, r1r2": {"precision": "bfloat16", "penalty": "r1r2", "architecture": "resnet"},
    "scheduled": {"schedule": "cosine", "lr_final": 0.1, "beta2_final": 0.9, "penalty": "r1", "kimg": 6},
}

NETWORKS = """
import torch
from torch import nn

class D(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.size**2, 1), nn.Flatten(0))

    def forward(self, images):
        {line}
        return self.body(images)

def build(config, shape):
    pixels = (shape.channels, shape.size, shape.size)
    flat = shape.channels * shape.size**2
    return nn.Sequential(nn.Linear(config.z_dim, flat), nn.Unflatten(1, pixels), nn.Tanh()), D(shape)
"""


INEXACT = {"resnet, dragan", "bfloat16, resnet, r1r2", "bottlenecks", "augmented", "scheduled"}
"""Configurations whose steps are not repeatable to the bit: gradients of bilinear upsampling and of `gather`
are added in any order; a changing beta2 is a tensor in a captured step and a number in an eager one."""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SWITCH, "1")
    yield
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


@pytest.fixture
def make(dataset: Dataset, tiny: Callable[..., TrialConfig], monkeypatch: Any) -> Callable[..., Trainer]:
    """make(graphs, events, **changes): a trainer on the GPU."""

    def made(graphs: bool = True, events: list[TrialEvent] | None = None, **changes: Any) -> Trainer:
        monkeypatch.setenv(SWITCH, str(int(graphs)))
        config, device = tiny(**changes), torch.device("cuda")
        images, labels = (torch.from_numpy(x).to(device) for x in (dataset.train, dataset.train_labels))
        on_event = (events if events is not None else []).append
        return Trainer(config, images, labels if config.conditional else None, 3, device, on_event=on_event)

    return made


def train(trainer: Trainer, steps: int) -> dict[str, float]:
    trainer.control = 0.6 if trainer.config.controller == "skip" else 0.0
    end = trainer.nimg + steps * trainer.config.batch_size
    trainer.advance(10**6, should_stop=lambda: trainer.nimg >= end)
    return trainer.metrics.read()


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).double()


def distance(a: nn.Module, b: nn.Module) -> float:
    return float((weights(a) - weights(b)).norm() / weights(b).norm())


def graph_count(trainer: Trainer) -> int:
    assert trainer._graphed_step is not None
    assert not trainer._graphed_step.graphs.disabled
    return trainer._graphed_step.graphs.graph_count


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Convolutions add in the same order each time, so any difference comes from the graph."""
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = False


@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_step_is_replayed(make: Any, name: str) -> None:
    """Graphs are never disabled, and no replay waits for the device or gives numbers that are not finite."""
    events: list[TrialEvent] = []
    trainer = make(events=events, **CONFIGS[name])
    train(trainer, 60)
    assert not events
    assert graph_count(trainer) >= 1
    before = {"G": weights(trainer.G), "D": weights(trainer.D)}
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.advance(10**6, should_stop=lambda end=trainer.nimg + 2000: trainer.nimg >= end)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(map(math.isfinite, trainer.metrics.read().values()))
    convolutions = [p for p in trainer.D.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    assert not torch.equal(weights(trainer.G), before["G"])
    assert not torch.equal(weights(trainer.D), before["D"])


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", CONFIGS)
def test_200_captured_steps_equal_200_eager_steps(make: Any, name: str) -> None:
    """To the bit, where steps are repeatable; else up to the growth of rounding in 200 steps."""
    graph, eager = make(**CONFIGS[name]), make(graphs=False, **CONFIGS[name])
    ours, theirs = train(graph, 200), train(eager, 200)
    assert graph_count(graph) >= 1
    assert eager._graphed_step is None
    assert (graph.nimg, graph.d_steps) == (eager.nimg, eager.d_steps)
    assert torch.equal(graph.rng.get_state(), eager.rng.get_state())
    for metric in ("loss_d", "loss_g", "grad_norm_d", "penalty"):
        assert ours[metric] == pytest.approx(theirs[metric], rel=0.1, abs=0.02), metric
    pairs = [(graph.G, eager.G), (graph.D, eager.D), (graph.ema.generator, eager.ema.generator)]
    for net, peer in pairs:
        if name in INEXACT:
            assert distance(net, peer) < 0.1
        else:
            assert torch.equal(weights(net), weights(peer))
    if name not in INEXACT:
        assert ours == theirs


@pytest.mark.parametrize("recipe", sorted(recipes.builtin_recipes()))
def test_every_recipe_is_replayed(make: Any, recipe: str) -> None:
    events: list[TrialEvent] = []
    changes = recipes.load_recipe(recipe).at(8, True, {"batch_size": 32}) | {
        "width_g": 8,
        "width_d": 8,
        "z_dim": 16,
    }
    trainer = make(events=events, **{**changes, "batch_size": 32, "precision": "bfloat16"})
    train(trainer, 120)
    assert not events
    assert graph_count(trainer) >= 1
    assert all(map(math.isfinite, trainer.metrics.read().values()))


@pytest.mark.parametrize(
    "line",
    [
        "images = images if images.mean().item() > -2 else -images",
        "images = images[(images.flatten(1).sum(1) > -1e9).nonzero().flatten()]",
    ],
)
def test_networks_that_read_their_data_train_without_graphs(make: Any, own_code: Any, line: str) -> None:
    events: list[TrialEvent] = []
    own_code(NETWORKS.format(line=line), "custom_nets")
    trainer = make(events=events, architecture="custom_nets:build")
    means = train(trainer, 60)
    assert [event.kind for event in events] == [EventKind.NO_CUDA_GRAPHS]
    assert trainer._graphed_step.graphs.disabled
    assert all(map(math.isfinite, means.values()))
    assert trainer.d_steps == 60


def test_networks_that_keep_their_features_are_replayed(make: Any, own_code: Any) -> None:
    """Their last features hold a part of autograd's graph from one step to the next."""
    events: list[TrialEvent] = []
    own_code(NETWORKS.format(line="self.features = images = images * 1.0"), "custom_nets")
    trainer = make(events=events, architecture="custom_nets:build")
    train(trainer, 60)
    assert not events
    assert graph_count(trainer) >= 1


@pytest.mark.usefixtures("deterministic")
def test_the_graphs_of_one_trainer_outlive_those_of_another(make: Any) -> None:
    """cuBLAS's workspace of a stream is freed with the first graph of that stream that is dropped."""
    alone = make(architecture="mlp")
    train(alone, 540)
    first, second = make(architecture="mlp", seed=1), make(architecture="mlp")
    train(first, 40)
    train(second, 40)
    del first
    gc.collect()
    torch.cuda.empty_cache()
    junk = [torch.randn(2**20, device="cuda") for _ in range(64)]  # reuses that memory
    for _ in range(5):
        train(second, 100)
        junk[:] = [each.neg() for each in junk]
    assert graph_count(second) >= 1
    assert torch.equal(weights(second.G), weights(alone.G))
    assert torch.equal(weights(second.D), weights(alone.D))


def test_adam_in_chunks_equals_torch_s(make: Any) -> None:
    """To the bit: chunks change where a number is computed, not how."""
    nets = [copy.deepcopy(make(width_g=32, width_d=32).D) for _ in range(2)]
    ours, theirs = (torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.99), fused=True) for net in nets)
    capturable_adam.make_capturable(ours)
    rng = torch.Generator("cuda").manual_seed(0)
    for _ in range(20):
        for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=rng, device="cuda").to(
                memory_format=torch.channels_last if p.ndim == 4 else torch.preserve_format
            )
            q.grad = p.grad.clone()
        capturable_adam.step_with_tensor_lr(ours, torch.tensor(2e-4, device="cuda"), None)
        theirs.param_groups[0]["lr"] = float(np.float32(2e-4))
        theirs.step()
    assert torch.equal(weights(nets[0]), weights(nets[1]))


def test_checkpoints_work_with_graphs_eager_and_on_a_cpu(make: Any, make_trainer: Any) -> None:
    changes = CONFIGS["lazy r1, two critics"]
    by_graph, eager, on_cpu = make(**changes), make(graphs=False, **changes), make_trainer(**changes)
    train(by_graph, 60)
    for target in (eager, on_cpu, by_graph):
        buffer = io.BytesIO()
        torch.save(by_graph.state_dict(), buffer)
        buffer.seek(0)
        target.load_state_dict(torch.load(buffer, weights_only=True, map_location="cpu"))
        assert target.opt_d.param_groups[0]["capturable"] is False
        assert type(target.opt_d.state_dict()["param_groups"][0]["lr"]) is float
        assert int(next(iter(target.opt_d.state.values()))["step"]) == target.d_steps
    for trainer in (by_graph, eager, on_cpu):
        train(trainer, 30)
    assert graph_count(by_graph) >= 1
    assert distance(eager.D, by_graph.D) < 0.1
    assert distance(on_cpu.D.to("cuda"), by_graph.D) < 0.5  # other random numbers


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("graphs", [True, False])
def test_images_on_the_host_train_like_those_on_the_device(
    make: Any, dataset: Dataset, tiny: Any, graphs: bool
) -> None:
    near = make(graphs=graphs)
    far = Trainer(tiny(), torch.from_numpy(dataset.train), None, 3, torch.device("cuda"))
    assert train(far, 150) == train(near, 150)
    assert torch.equal(weights(far.D), weights(near.D))


@pytest.fixture(scope="module")
def small_evaluator(dataset: Dataset, tmp_path_factory: Any) -> frechet.Evaluator:
    cache = tmp_path_factory.mktemp("statistics")
    return frechet.build_evaluator(dataset, extractors.build_extractor("pixels", dataset), 100, cache).to(
        "cuda"
    )


def test_a_trial_trains_and_resumes_on_a_gpu(
    dataset: Dataset, tiny: Any, small_evaluator: frechet.Evaluator, tmp_path: Path
) -> None:
    events: list[TrialEvent] = []
    config = tiny(kimg=3, penalty="r1", conditional=True)
    records = []
    for record in trial.run_trial(
        config, dataset, small_evaluator, tmp_path, trial.TrialSettings(device="cuda", on_event=events.append)
    ):
        records.append(record)
        if record.kimg == 2:
            break
    rest = list(
        trial.run_trial(
            config,
            dataset,
            small_evaluator,
            tmp_path,
            trial.TrialSettings(device="cuda", on_event=events.append),
        )
    )
    assert [record.kimg for record in rest] == [2, 3]
    assert all(math.isfinite(record.objective) for record in (*records, *rest))
    assert not events


@pytest.mark.usefixtures("deterministic")
def test_a_resumed_trial_equals_an_uninterrupted_one(
    dataset: Dataset, tiny: Any, small_evaluator: frechet.Evaluator, tmp_path: Path
) -> None:
    """To the bit: after a kill between ticks, and after a stop within one."""
    config = tiny(kimg=4, penalty="r1", penalty_interval=4, conditional=True)
    whole = list(
        trial.run_trial(
            config, dataset, small_evaluator, tmp_path / "whole", trial.TrialSettings(device="cuda")
        )
    )
    killed = trial.run_trial(
        config, dataset, small_evaluator, tmp_path / "killed", trial.TrialSettings(device="cuda")
    )
    first = [next(killed), next(killed)]
    killed.close()
    rest = list(
        trial.run_trial(
            config, dataset, small_evaluator, tmp_path / "killed", trial.TrialSettings(device="cuda")
        )
    )
    known = {record.kimg: record for record in (*first, *rest)}
    assert without_times(list(known.values())) == without_times(whole)
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 80

    first = list(
        trial.run_trial(
            config,
            dataset,
            small_evaluator,
            tmp_path / "stopped",
            trial.TrialSettings(device="cuda", should_stop=stop),
        )
    )
    assert len(first) < 4
    rest = list(
        trial.run_trial(
            config, dataset, small_evaluator, tmp_path / "stopped", trial.TrialSettings(device="cuda")
        )
    )
    known = {record.kimg: record for record in (*first, *rest)}
    assert without_times(list(known.values())) == without_times(whole)


@pytest.mark.usefixtures("deterministic")
def test_overlapped_measurements_equal_those_without_overlap(
    dataset: Dataset,
    tiny: Any,
    small_evaluator: frechet.Evaluator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny(kimg=12, penalty="r1", penalty_interval=4, width_g=16, width_d=16)
    ours = list(
        trial.run_trial(
            config, dataset, small_evaluator, tmp_path / "overlapped", trial.TrialSettings(device="cuda")
        )
    )
    monkeypatch.setattr(trial, "run_overlapped", lambda work, device: overlap._run_now(work))
    theirs = list(
        trial.run_trial(
            config, dataset, small_evaluator, tmp_path / "after", trial.TrialSettings(device="cuda")
        )
    )
    assert without_times(ours) == without_times(theirs)


def test_50_trials_of_one_process_leak_no_memory(
    dataset: Dataset, tiny: Any, small_evaluator: frechet.Evaluator, tmp_path: Path, record_property: Any
) -> None:
    """Of several sizes and kinds in turn; allocated and reserved memory does not grow."""
    kinds = [{}, {"width_g": 32, "width_d": 32}, {"architecture": "resnet", "penalty": "r1"}]
    allocated, reserved, taken = [], [], []
    for number in range(50):
        config = tiny(kimg=2, seed=number, **kinds[number % 3])
        for record in trial.run_trial(
            config, dataset, small_evaluator, tmp_path / str(number), trial.TrialSettings(device="cuda")
        ):
            assert record.verdict != "diverged"
        allocated.append(torch.cuda.memory_allocated())
        reserved.append(torch.cuda.memory_reserved())
        free, whole = torch.cuda.mem_get_info()  # with the driver's memory, and that of other processes
        taken.append(whole - free)
    record_property("allocated_mib", [round(value / 2**20, 2) for value in (allocated[5], allocated[-1])])
    record_property("reserved_mib", [round(value / 2**20, 2) for value in (reserved[5], reserved[-1])])
    record_property("of_the_gpu_mib", [round(value / 2**20, 2) for value in (taken[5], taken[-1])])
    assert max(allocated[5:]) <= min(allocated[5:]) + 2**20
    assert max(reserved[5:]) <= min(reserved[5:]) + 24 * 2**20


class RandomFeatures(nn.Module):
    """1,280 features of 8x8 grey images by convolutions and a product, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(1, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(), nn.Flatten(),
                nn.Linear(128 * 4 * 4, 1280), nn.ReLU(),
            )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(images.permute(0, 3, 1, 2).float() / 25)
        return found


def fids_on_both_devices(
    digits: Dataset, extractor: extractors.Extractor, samples: int, cache: Path, monkeypatch: Any
) -> list[str]:
    """Score noisy digits on both devices, with TF32 allowed: equal. Returns where the GPU's was solved."""
    evaluator = frechet.build_evaluator(digits, extractor, samples, cache)
    rng = np.random.default_rng(0)
    drawn = digits.train[rng.integers(len(digits.train), size=2000)]
    noisy = np.clip(drawn + rng.normal(0, 30, drawn.shape), 0, 255).astype(np.uint8)
    images, solve, solved = torch.from_numpy(noisy), torch.linalg.eigvalsh, list[str]()

    def solving(gram: Tensor) -> Tensor:
        solved.append(gram.device.type)
        found: Tensor = solve(gram)
        return found

    def score(of: frechet.Evaluator, shown: Tensor) -> float:
        parts = iter(shown[:samples].split(500))
        found = of.score(lambda n: next(parts))
        assert found is not None
        return found

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        usual = score(evaluator, images)
        monkeypatch.setattr(torch.linalg, "eigvalsh", solving)
        moved = evaluator.to("cuda")
        assert score(moved, images.to("cuda")) == pytest.approx(usual, rel=1e-4)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    seen = extractor(images[:samples])
    assert moved.device_real is not None
    there = [
        frechet.frechet(moved.device_real, FeatureStatistics.of(seen.to("cuda"))),
        frechet.frechet_few(moved.device_real, seen.to("cuda")),
    ]
    here = [
        frechet.frechet(evaluator.real, FeatureStatistics.of(seen)),
        frechet.frechet_few(evaluator.real, seen),
    ]
    assert there == pytest.approx(here, rel=1e-5)  # of the same features, all in float64
    return solved[:1]


def test_a_fid_by_the_classifier_equals_the_cpu_s(tmp_path: Path, monkeypatch: Any) -> None:
    digits = load_dataset("digits")
    extractor = extractors.build_extractor("classifier", digits, cache=tmp_path)
    assert fids_on_both_devices(digits, extractor, 2000, tmp_path, monkeypatch) == ["cpu"]  # a 64 x 64 matrix


@pytest.mark.parametrize("samples", [2000, 1000])
def test_a_fid_of_many_features_equals_the_cpu_s(tmp_path: Path, monkeypatch: Any, samples: int) -> None:
    row = ExtractorRow(target="", meaning="random features", version="random-1")
    extractor = extractors.NetExtractor("random", RandomFeatures(), 1280, row)
    fast = torch.cuda.get_device_capability() in frechet._FAST_FLOAT64
    found = fids_on_both_devices(load_dataset("digits"), extractor, samples, tmp_path, monkeypatch)
    assert found == ["cuda" if fast else "cpu"]


def test_profiling_times_replayed_steps(
    dataset: Dataset, tiny: Any, small_evaluator: frechet.Evaluator
) -> None:
    found = profile_trial(
        tiny(penalty="r1", penalty_interval=4, n_critic=2), dataset, small_evaluator, "cuda", 1, 20.0
    )
    assert 0 < found.seconds_per_kimg < 5
    assert 0 < found.memory_bytes < found.device_bytes


def test_a_batch_too_large_for_the_memory_is_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """The memory limit is between what whole and split batches need, as measured."""
    size, count = 64, 600
    pixels = np.random.default_rng(0).integers(0, 255, (count, size, size, 1), np.uint8)
    parts = (pixels[:512], pixels[512:], None, None)
    large = Dataset("noise", *parts, (), fingerprint(*parts))
    evaluator = frechet.build_evaluator(
        large, extractors.build_extractor("pixels", large), 100, tmp_path / "cache"
    ).to("cuda")
    config = TrialConfig(width_g=32, width_d=64, batch_size=512, kimg=2, tick_kimg=1, norm_d="none")
    monkeypatch.setenv(SWITCH, "0")
    peaks = {}
    for parts in (1, 2, 1, 2):  # twice: at first libraries also load
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer = Trainer(config, torch.from_numpy(large.train).cuda(), None, 0)
        trainer.grad_accum_steps = parts
        trainer.advance(2)
        peaks[parts] = torch.cuda.max_memory_reserved()
        del trainer
        gc.collect()
    record_property("peaks_mib", {k: round(v / 2**20) for k, v in peaks.items()})
    assert peaks[2] < 0.8 * peaks[1]
    monkeypatch.setenv(SWITCH, "1")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    events: list[TrialEvent] = []
    torch.cuda.set_per_process_memory_fraction((peaks[1] + peaks[2]) / 2 / total)
    try:
        ticks = list(
            trial.run_trial(
                config,
                large,
                evaluator,
                tmp_path / "t",
                trial.TrialSettings(device="cuda", on_event=events.append),
            )
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    record_property("events", [event.text for event in events])
    assert [record.kimg for record in ticks] == [1, 2]
    assert EventKind.OUT_OF_MEMORY in [event.kind for event in events]


def test_graphs_are_disabled_where_a_later_kind_of_step_needs_their_memory(
    make: Any, record_property: Any
) -> None:
    """There is memory for an eager step, but not beside a graph: batches are not split."""
    changes = {"width_d": 128, "batch_size": 1024, "norm_d": "none", "penalty": "r1", "penalty_interval": 40}
    peaks = {}
    for graphs in (False, True):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer = make(graphs=graphs, **changes)
        train(trainer, 50)
        peaks[graphs] = torch.cuda.max_memory_reserved()
        del trainer
    record_property("peaks_mib", {k: round(v / 2**20) for k, v in peaks.items()})
    assert peaks[True] > 1.1 * peaks[False]
    gc.collect()
    torch.cuda.empty_cache()
    events: list[TrialEvent] = []
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((peaks[False] + peaks[True]) / 2 / total)
    try:
        trainer = make(events=events, **changes)
        train(trainer, 50)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    record_property("events", [event.text for event in events])
    assert [event.kind for event in events] == [EventKind.NO_CUDA_GRAPHS]
    assert trainer.d_steps == 50
    assert trainer.grad_accum_steps == 1


def test_training_continues_after_a_capture_that_fails(make: Any, own_code: Any) -> None:
    """The last test: a wait for the device that happens only in a capture, and makes it fail."""
    events: list[TrialEvent] = []
    line = "torch.cuda.is_current_stream_capturing() and torch.cuda.current_stream().synchronize()"
    own_code(NETWORKS.format(line=line), "custom_nets")
    trainer = make(events=events, architecture="custom_nets:build")
    means = train(trainer, 40)
    assert [event.kind for event in events] == [EventKind.NO_CUDA_GRAPHS]
    assert all(map(math.isfinite, means.values()))
    after = make(events=events)
    train(after, 40)
    assert [event.kind for event in events] == [EventKind.NO_CUDA_GRAPHS]
    assert graph_count(after) >= 1
