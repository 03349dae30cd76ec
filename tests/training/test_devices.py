"""A trainer on a fake GPU: its tensors have devices, shapes and types, and no values.

What mixes devices, or needs a value in the middle of a step, fails here as it does (or waits) on a GPU.
Gradients are 0 here, because autograd needs a real device; kernels, streams and graphs are not faked either:
tests/integration/gpu/test_gpu.py has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import trainers
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics import extractors, frechet
from pipeline.search import recipes
from pipeline.training import cuda_graphs, graphed_step, prefetch, sampling
from pipeline.training import trainer as trainer_module
from pipeline.training.events import TrialEvent
from pipeline.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

CLASSES = 3
CONFIGS = {
    **trainers.CONFIGS,
    "mlp": {"architecture": "mlp"},
    "scheduled": {"schedule": "cosine", "lr_final": 0.1, "beta2_final": 0.9, "penalty": "r1"},
    "ada": {"augment": "ada", "augment_p": 0.5},
}


class FakeGenerator(torch.Generator):
    """A generator that claims to be on the requested device."""

    device: torch.device = property(lambda self: self.fake_device)  # type: ignore[assignment]
    fake_device: torch.device

    def __new__(cls, device: Any = "cpu") -> FakeGenerator:
        made: FakeGenerator = super().__new__(cls)
        made.fake_device = torch.empty(0, device=device).device
        return made


class CheckGeneratorDevice(TorchFunctionMode):
    """Calls random functions without their generator, after checking that it is on the same device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        generator = kwargs.pop("generator", None)
        if func is torch._fused_adam_:  # has no fake implementation
            return one_device(*args, **kwargs)
        drawn = func(*args, **kwargs)
        if isinstance(generator, FakeGenerator):
            assert drawn.device == generator.device, f"{func.__name__}: generator on another device"
        return drawn


def one_device(*tensors: list[Tensor], lr: Any, **_: Any) -> None:
    """The fused kernel needs its lists of tensors and the learning rate on one device."""
    found = [tensor for group in tensors for tensor in group] + ([lr] if isinstance(lr, Tensor) else [])
    assert {tensor.device for tensor in found} == {torch.device("cuda:0")}


class EagerBackend:
    """A backend that runs the step again instead of replaying it."""

    def warm_up(self, step: cuda_graphs.Step, strict: bool) -> None:
        step()

    def capture(self, step: cuda_graphs.Step) -> cuda_graphs.Step:
        step()
        return step

    def release(self) -> None: ...


def backward(total: Tensor, inputs: list[Tensor] | None = None) -> None:
    """Set the gradients of all leaves of a sum to 0."""
    todo, seen = [total.grad_fn], set[Any]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [before for before, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)


def zero_gradients(outputs: Any, inputs: Any, **_: Any) -> list[Tensor]:
    return [images * 0 for images in ([inputs] if isinstance(inputs, Tensor) else inputs)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A fake GPU; networks are built with real weights and moved there."""
    build = trainer_module.build_networks

    def build_real(*args: Any) -> Any:
        with unset_fake_temporarily():
            return build(*args)

    monkeypatch.setattr(torch, "Generator", FakeGenerator)
    monkeypatch.setattr(torch.autograd, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", zero_gradients)
    monkeypatch.setattr(trainer_module, "build_networks", build_real)
    monkeypatch.setattr(prefetch, "_send", Tensor.to)  # not through pinned memory
    monkeypatch.setattr(graphed_step, "_default_rng", lambda device: None)
    monkeypatch.setattr(graphed_step, "_set_default_rng", lambda device, state: None)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(
        cuda_graphs.GraphCache, "_difference", lambda *_: ""
    )  # there are no values to compare
    with FakeTensorMode(allow_non_fake_inputs=True), CheckGeneratorDevice():
        yield torch.device("cuda:0")


@pytest.fixture
def make(gpu: torch.device, tiny: Callable[..., TrialConfig]) -> Callable[..., Trainer]:
    """make(backend_factory, events, channels=3, **changes): a trainer on the fake GPU."""

    def made(
        backend_factory: Any = lambda *_: None,
        events: list[TrialEvent] | None = None,
        channels: int = 3,
        **changes: Any,
    ) -> Trainer:
        images = torch.zeros(160, 8, 8, channels, dtype=torch.uint8, device=gpu)
        labels = torch.zeros(160, dtype=torch.int64, device=gpu)
        config = tiny(**changes)
        on_event = (events if events is not None else []).append
        labels = labels if config.conditional else None
        return Trainer(config, images, labels, CLASSES, gpu, backend_factory, on_event)

    return made


@pytest.fixture(scope="module")
def small_evaluator(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> frechet.Evaluator:
    return frechet.build_evaluator(
        dataset, extractors.build_extractor("pixels", dataset), 100, tmp_path_factory.mktemp("statistics")
    )


def train(trainer: Trainer, steps: int = 12) -> None:
    trainer.control = 0.6 if trainer.config.controller == "skip" else 0.0
    trainer.ada_p = 0.3
    end = trainer.nimg + steps * trainer.config.batch_size
    trainer.advance(10**6, should_stop=lambda: trainer.nimg >= end)
    assert trainer.nimg == end


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_stays_on_its_device_and_reads_no_value(make: Any, name: str) -> None:
    train(make(**CONFIGS[name]))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_captured_step_stays_on_its_device_and_reads_no_value(make: Any, name: str) -> None:
    events: list[TrialEvent] = []
    trainer = make(lambda *_: EagerBackend(), events, **CONFIGS[name])
    train(trainer, 24)
    assert events == []
    assert trainer._graphed_step.graphs.graph_count >= 1


@pytest.mark.parametrize("recipe", sorted(recipes.builtin_recipes()))
def test_every_recipe_stays_on_its_device_and_reads_no_value(make: Any, recipe: str) -> None:
    events: list[TrialEvent] = []
    changes = recipes.load_recipe(recipe).at(8, True, {"batch_size": 32}) | {
        "width_g": 8,
        "width_d": 8,
        "z_dim": 16,
    }
    train(make(lambda *_: EagerBackend(), events, **{**changes, "batch_size": 32, "precision": "bfloat16"}))
    assert events == []


@pytest.mark.parametrize("conditional", [True, False])
def test_balance_and_fid_are_computed_on_the_device_of_training(
    make: Any,
    dataset: Dataset,
    small_evaluator: frechet.Evaluator,
    monkeypatch: pytest.MonkeyPatch,
    conditional: bool,
) -> None:
    """One transfer for all numbers of a reading; images on the host are fetched from there."""
    transfers = list[str]()
    monkeypatch.setattr(FakeTensor, "tolist", lambda of: transfers.append(str(of.device)) or [0.5] * len(of))
    monkeypatch.setattr(frechet, "_read", lambda gram, apart, rank: transfers.append(str(gram.device)) or 1.0)
    trainer = make(channels=1, conditional=conditional, norm_g="batch")
    held = torch.zeros(40, 8, 8, 1, dtype=torch.uint8, device="cuda:0")
    assert trainer.read_balance(held, held[:, 0, 0, 0].long() if conditional else None).auc == 0.5
    assert transfers == ["cuda:0"]
    trainer.images = trainer.images.to("cpu")
    trainer.read_balance(held, held[:, 0, 0, 0].long() if conditional else None)
    assert small_evaluator.to("cuda:0").score(sampling.image_sampler(trainer.ema.generator, dataset)) == 1.0
    assert transfers == ["cuda:0"] * 3  # the whole distance, up to its one transfer


def test_mixed_devices_and_reads_of_values_are_detected(make: Any) -> None:
    mixes, asks = make(), make()
    mixes.G.register_forward_hook(lambda *args: args[-1] * torch.ones(3, 1, 1))
    with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        train(mixes, 1)
    asks.D.register_forward_hook(lambda *args: args[-1] * args[-1].mean().item())
    with pytest.raises(DataDependentOutputException):
        train(asks, 1)
