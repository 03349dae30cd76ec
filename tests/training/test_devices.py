"""A trial on a pretended GPU: its tensors have devices, shapes and types, and no values.

What mixes devices, or asks for a value in the middle of a step, fails here as it does (or waits) on a GPU.
Slopes are 0 here, since autograd wants a device that is there; kernels, streams and graphs are not pretended
either. tests/test_gpu.py has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import games
import pytest
import torch
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
from pipeline.training import cuda_graphs, graphed_step, prefetch, sampling, trainer
from pipeline.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

CLASSES = 3
GAMES = {
    **games.GAMES,
    "mlp": {"architecture": "mlp"},
    "scheduled": {"schedule": "cosine", "lr_final": 0.1, "beta2_final": 0.9, "penalty": "r1"},
    "ada": {"augment": "ada", "augment_p": 0.5},
}


class Dice(torch.Generator):
    """A generator that says it belongs to the device that it was asked for."""

    device: torch.device = property(lambda self: self.place)  # type: ignore[assignment]
    place: torch.device

    def __new__(cls, device: Any = "cpu") -> Dice:
        made: Dice = super().__new__(cls)
        made.place = torch.empty(0, device=device).device
        return made


class Dealer(TorchFunctionMode):
    """Draws without the generator, which must belong to the device that is drawn on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        dice = kwargs.pop("generator", None)
        if func is torch._fused_adam_:  # it cannot be pretended
            return one_device(*args, **kwargs)
        drawn = func(*args, **kwargs)
        if isinstance(dice, Dice):
            assert drawn.device == dice.device, f"{func.__name__}: dice of another device"
        return drawn


def one_device(*tensors: list[Tensor], lr: Any, **_: Any) -> None:
    """What the fused kernel asks of weights, slopes, means, squares, maxima and steps, and of the rate."""
    told = [tensor for group in tensors for tensor in group] + ([lr] if isinstance(lr, Tensor) else [])
    assert {tensor.device for tensor in told} == {torch.device("cuda:0")}


class Taking:
    """A recorder that takes the step again instead of replaying it."""

    def rehearse(self, step: cuda_graphs.Step, strict: bool) -> None:
        step()

    def record(self, step: cuda_graphs.Step) -> cuda_graphs.Step:
        step()
        return step

    def release(self) -> None: ...


def backward(total: Tensor, inputs: list[Tensor] | None = None) -> None:
    """Gradients of 0 for all leaves of a sum."""
    todo, seen = [total.grad_fn], set[Any]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [before for before, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)


def slopes(outputs: Any, inputs: Any, **_: Any) -> list[Tensor]:
    return [images * 0 for images in ([inputs] if isinstance(inputs, Tensor) else inputs)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU, as far as tensors can pretend one; networks are made of real weights and moved there."""
    build = trainer.build_networks

    def really_build(*args: Any) -> Any:
        with unset_fake_temporarily():
            return build(*args)

    monkeypatch.setattr(torch, "Generator", Dice)
    monkeypatch.setattr(torch.autograd, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", slopes)
    monkeypatch.setattr(trainer, "build_networks", really_build)
    monkeypatch.setattr(prefetch, "_send", Tensor.to)  # not through pinned memory
    monkeypatch.setattr(graphed_step, "_default_rng", lambda device: None)
    monkeypatch.setattr(graphed_step, "_set_default_rng", lambda device, state: None)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(
        cuda_graphs.GraphCache, "_difference", lambda *_: ""
    )  # there are no values to compare
    with FakeTensorMode(allow_non_fake_inputs=True), Dealer():
        yield torch.device("cuda:0")


@pytest.fixture
def make(gpu: torch.device, tiny: Callable[..., TrialConfig]) -> Callable[..., Trainer]:
    """make(recording=..., said=[], channels=3, **changes): a trainer on the pretended GPU."""

    def made(
        recording: Any = lambda *_: None,
        said: list[str] | None = None,
        channels: int = 3,
        **changes: Any,
    ) -> Trainer:
        images = torch.zeros(160, 8, 8, channels, dtype=torch.uint8, device=gpu)
        labels = torch.zeros(160, dtype=torch.int64, device=gpu)
        config = tiny(**changes)
        say = (said if said is not None else []).append
        return Trainer(config, images, labels if config.conditional else None, CLASSES, gpu, recording, say)

    return made


@pytest.fixture(scope="module")
def judge(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> frechet.Evaluator:
    return frechet.build_evaluator(
        dataset, extractors.build_extractor("pixels", dataset), 100, tmp_path_factory.mktemp("statistics")
    )


def play(trainer: Trainer, steps: int = 12) -> None:
    trainer.control = 0.6 if trainer.config.controller == "skip" else 0.0
    trainer.ada_p = 0.3
    end = trainer.nimg + steps * trainer.config.batch_size
    trainer.advance(10**6, should_stop=lambda: trainer.nimg >= end)
    assert trainer.nimg == end


@pytest.mark.parametrize("game", GAMES)
def test_a_step_stays_on_its_device_and_asks_for_no_value(make: Any, game: str) -> None:
    play(make(**GAMES[game]))


@pytest.mark.parametrize("game", GAMES)
def test_so_does_a_step_as_it_is_recorded(make: Any, game: str) -> None:
    said: list[str] = []
    trainer = make(lambda *_: Taking(), said, **GAMES[game])
    play(trainer, 24)
    assert said == []
    assert trainer._recorded.replays.kinds >= 1


@pytest.mark.parametrize("recipe", sorted(recipes.builtin_recipes()))
def test_every_recipe(make: Any, recipe: str) -> None:
    said: list[str] = []
    changes = recipes.load_recipe(recipe).at(8, True, {"batch_size": 32}) | {
        "width_g": 8,
        "width_d": 8,
        "z_dim": 16,
    }
    play(make(lambda *_: Taking(), said, **{**changes, "batch_size": 32, "precision": "bfloat16"}))
    assert said == []


@pytest.mark.parametrize("conditional", [True, False])
def test_a_tick_is_read_and_scored_where_it_trained(
    make: Any, dataset: Dataset, judge: frechet.Evaluator, monkeypatch: pytest.MonkeyPatch, conditional: bool
) -> None:
    """With one transfer for all of the reading's numbers; images of the host's are fetched from there."""
    sent = list[str]()
    monkeypatch.setattr(FakeTensor, "tolist", lambda of: sent.append(str(of.device)) or [0.5] * len(of))
    monkeypatch.setattr(frechet, "_read", lambda gram, apart, rank: sent.append(str(gram.device)) or 1.0)
    trainer = make(channels=1, conditional=conditional, norm_g="batch")
    held = torch.zeros(40, 8, 8, 1, dtype=torch.uint8, device="cuda:0")
    assert trainer.read_balance(held, held[:, 0, 0, 0].long() if conditional else None).auc == 0.5
    assert sent == ["cuda:0"]
    trainer.images = trainer.images.to("cpu")
    trainer.read_balance(held, held[:, 0, 0, 0].long() if conditional else None)
    assert judge.to("cuda:0").score(sampling.sampler(trainer.ema.generator, dataset)) == 1.0
    assert sent == ["cuda:0"] * 3  # all of the distance up to its one transfer


def test_what_is_wrong_is_seen(make: Any) -> None:
    mixes, asks = make(), make()
    mixes.G.register_forward_hook(lambda *args: args[-1] * torch.ones(3, 1, 1))
    with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        play(mixes, 1)
    asks.D.register_forward_hook(lambda *args: args[-1] * args[-1].mean().item())
    with pytest.raises(DataDependentOutputException):
        play(asks, 1)
