"""Recorded steps: the same game as without, when they are given up, and what stays behind. No GPU needed.

The recorder of these tests does all that CUDA graphs do to the rest of the program, by calling the step:
recording moves nothing on the device but is a turn of Python's; replaying moves the device and Python counts
nothing.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import games
import pytest
import torch
from torch import Tensor

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, Sampler
from pipeline.search import recipes
from pipeline.training import capturable_adam, cuda_graphs, trial
from pipeline.training.cuda_graphs import SWITCH, WARM_UP, Step, recorder_for
from pipeline.training.graphed_step import GraphedStep, StepKind, step_hyperparams
from pipeline.training.prefetch import Prefetcher
from pipeline.training.trainer import Trainer

Make = Callable[..., Trainer]

GAMES = {
    **games.GAMES,
    "scheduled": {"schedule": "cosine", "lr_final": 0.1, "penalty": "r1", "gamma_final": 0.1, "kimg": 6},
}


class Stand:
    """A recorder that records by remembering the step."""

    def __init__(self, trainer: Callable[[], Trainer]) -> None:
        self.trainer = trainer
        self.rehearsed, self.recorded, self.replayed, self.released = 0, 0, 0, 0

    def rehearse(self, step: Step, strict: bool) -> None:
        self.rehearsed += 1
        step()

    def record(self, step: Step) -> Step:
        self.recorded += 1
        stage = self.stage
        before, rng = saved(stage), stage.on_host()[:2]
        step()
        put(stage, before)  # the device has not moved; what Python counts has
        stage.set_host((*rng, stage.counts()), fresh=False)
        return lambda: self.replay(step)

    def replay(self, step: Step) -> None:
        self.replayed += 1
        counts = self.stage.counts()
        step()
        self.stage.gain([then - now for then, now in zip(counts, self.stage.counts(), strict=True)])

    def release(self) -> None:
        self.released += 1

    @property
    def stage(self) -> GraphedStep:
        stage = self.trainer()._recorded
        assert stage is not None
        return stage


def saved(stage: GraphedStep) -> list[Tensor]:
    return [tensor.clone() for part in stage.parts().values() for tensor in part.tensors]


def put(stage: GraphedStep, values: list[Tensor]) -> None:
    tensors = [tensor for part in stage.parts().values() for tensor in part.tensors]
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


@pytest.fixture
def pair(dataset: Dataset, tiny: Callable[..., TrialConfig]) -> Callable[..., tuple[Trainer, Trainer, Stand]]:
    """pair(**changes): a plain trainer, one that records, and its stand-in; `recorder` is of another kind."""

    def make(
        recorder: type[Stand] = Stand, said: list[str] | None = None, **changes: Any
    ) -> tuple[Trainer, Trainer, Any]:
        config = tiny(**changes)
        images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
        found: list[Trainer] = []
        stand = recorder(lambda: found[0])
        say = (said if said is not None else []).append
        inputs = (config, images, labels if config.conditional else None, len(dataset.classes))
        found.append(Trainer(*inputs, recording=lambda device, rng: stand, say=say))
        return Trainer(*inputs), found[0], stand

    return make


def state(trainer: Trainer) -> list[Any]:
    parts = (trainer.G, trainer.D, trainer.ema.generator, trainer.opt_g, trainer.opt_d)
    return [trainer.nimg, trainer.d_steps, *(part.state_dict() for part in parts)]


def flat(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in flat(tree[key])]
    return [leaf for item in tree for leaf in flat(item)] if isinstance(tree, list | tuple) else [tree]


def same(a: Any, b: Any) -> bool:
    left, right = flat(a), flat(b)
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(left, right, strict=True)
    )


def train(trainer: Trainer, kimg: int, steps: int = 10**6) -> dict[str, float]:
    trainer.control = 0.6 if trainer.config.controller == "skip" else 0.0
    trainer.advance(kimg, should_stop=lambda: trainer.nimg // trainer.config.batch_size >= steps)
    return trainer.tally.read()


@pytest.mark.parametrize("game", GAMES)
def test_recorded_steps_play_the_same_game(pair: Any, game: str) -> None:
    """Bit for bit: weights, optimizers, average, tallies, dice."""
    steps = 200 if game == "plain" else 60
    plain, recorded, stand = pair(**GAMES[game])
    assert train(plain, 9, steps) == train(recorded, 9, steps)
    assert same(state(plain), state(recorded))
    assert torch.equal(plain.rng.get_state(), recorded.rng.get_state())
    replays = recorded._recorded.replays
    assert not replays.given_up
    assert stand.recorded == replays.kinds > 0
    assert stand.rehearsed >= WARM_UP * replays.kinds
    assert stand.replayed >= steps - (WARM_UP + 1) * len(replays._turns)


@pytest.mark.parametrize("recipe", sorted(recipes.builtin_recipes()))
def test_every_recipe_can_be_recorded(pair: Any, tiny: Any, recipe: str) -> None:
    """Bit for bit, or where beta2 moves, and so is in a tensor, to rounding."""
    known = {field.name: field.default for field in dataclasses.fields(TrialConfig)}
    changes = recipes.load_recipe(recipe).at(8, True, {**known, "batch_size": 32})
    changes |= {"width_g": 4, "width_d": 4, "kimg": 4, "batch_size": 32, "z_dim": 8}
    plain, recorded, stand = pair(**changes)
    means = [train(trainer, 3, 40) for trainer in (plain, recorded)]
    assert stand.replayed > 10
    if step_hyperparams(recorded.config, recorded._pace()).beta2 is None:
        assert same(state(plain), state(recorded))
    else:
        assert means[0] == pytest.approx(means[1], rel=1e-2, abs=1e-3)
        for ours, theirs in zip(plain.G.parameters(), recorded.G.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=2e-3)


def test_each_kind_of_step_is_recorded_once(pair: Any) -> None:
    """Two critics, a penalty every third step: D alone or with G, each with and without the penalty."""
    _, trainer, stand = pair(n_critic=2, penalty="r1", penalty_interval=3)
    train(trainer, 3)
    kinds = set(trainer._recorded.replays._replays)
    assert {(turn.g_plays, turn.due) for turn in kinds} == {(g, due) for g in (0, 1) for due in (0, 1)}
    assert stand.recorded == len(kinds) == 4
    trainer.pieces = 2
    train(trainer, 5)
    assert stand.recorded == 8


def test_a_recorded_step_sees_the_rates_move(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is recorded once, and plays at the pace of the present."""
    _, trainer, _ = pair(
        schedule="cosine", lr_final=0.0, beta2_final=0.9, penalty="r1", gamma_final=0.5, kimg=3
    )
    seen: list[tuple[float, ...]] = []
    play = trainer._play

    def watch(turn: Any, rates: Any, *images: Any) -> None:
        seen.append(tuple(float(rate) for rate in vars(rates).values()))
        play(turn, rates, *images)

    monkeypatch.setattr(trainer, "_play", watch)
    train(trainer, 3)
    lr_g, lr_d, penalty, augment_p, beta2 = zip(*seen[-60:], strict=True)
    for rates in (lr_g, lr_d, penalty, beta2):
        assert list(rates) == sorted(rates, reverse=True)
        assert rates[0] > 1.05 * rates[-1]
    assert set(augment_p) == {0.0}


# ---- Given up


class Wary(Stand):
    """Raises where a step would wait for the device, after having taken half of it."""

    def rehearse(self, step: Step, strict: bool) -> None:
        super().rehearse(step, strict)
        if strict:
            raise RuntimeError("called a synchronizing CUDA operation\nwith a trace of C++")


class Broken(Stand):
    """A capture that fails in the middle."""

    def record(self, step: Step) -> Step:
        step()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class Lying(Stand):
    """Replays a step that forgets D."""

    def replay(self, step: Step) -> None:
        weights = copy.deepcopy(self.trainer().D.state_dict())
        super().replay(step)
        self.trainer().D.load_state_dict(weights)


class Dicey(Stand):
    """Replays with the dice of another step."""

    def replay(self, step: Step) -> None:
        torch.rand(4, generator=self.trainer().rng)
        super().replay(step)


@pytest.mark.parametrize(
    ("recorder", "why"),
    [
        (Wary, "called a synchronizing CUDA operation"),
        (Broken, "CUDA out of memory. Tried to allocate 2 GiB"),
        (Lying, "a replayed step moved the weights of D by 1 of a step elsewhere"),
        (Dicey, "a replayed step moved the"),
    ],
)
@pytest.mark.parametrize("game", ["lazy r1, two critics", "batch norm, conditional"])
def test_what_cannot_be_recorded_trains_on_without(
    pair: Any, recorder: type[Stand], why: str, game: str
) -> None:
    """One warning, and the very game that was never recorded."""
    said: list[str] = []
    plain, recorded, stand = pair(recorder, said, **GAMES[game])
    dice = recorded.rng
    assert train(plain, 2, 32) == train(recorded, 2, 32)
    assert same(state(plain), state(recorded))
    assert len(said) == 1
    assert said[0].startswith(f"training without CUDA graphs: {why}")
    assert "\n" not in said[0]
    assert recorded._recorded.replays.given_up
    assert recorded.rng is not dice  # a failed capture leaves its generator unusable
    assert stand.released > 0


def test_memory_that_ends_in_a_rehearsal_is_the_trial_s_to_answer(pair: Any) -> None:
    """The graphs are given up, and the same step is tried without; where that ends so too, it is said so."""

    class Full(Stand):
        def rehearse(self, step: Step, strict: bool) -> None:
            if strict:
                raise torch.OutOfMemoryError("full")
            super().rehearse(step, strict)

    said: list[str] = []
    _, trainer, _ = pair(Full, said)
    trainer.D.register_forward_pre_hook(lambda module, inputs: full(trainer))

    def full(trainer: Trainer) -> None:
        if said:
            raise torch.OutOfMemoryError("still full")

    with pytest.raises(torch.OutOfMemoryError, match="still full"):
        train(trainer, 1)
    assert said == ["training without CUDA graphs: full"]


def test_memory_that_ends_in_the_first_turn_of_a_later_kind_costs_the_graphs_alone(pair: Any) -> None:
    """A kind of step that comes late finds the graphs of the others in its way; the batch stays whole."""

    class Crowded(Stand):
        def rehearse(self, step: Step, strict: bool) -> None:
            super().rehearse(step, strict)
            if self.recorded and not self.released:
                raise torch.OutOfMemoryError("CUDA out of memory beside the graphs")

    said: list[str] = []
    game = {"penalty": "r1", "penalty_interval": 16}
    plain, recorded, stand = pair(Crowded, said, **game)
    assert train(plain, 2, 60) == train(recorded, 2, 60)
    assert same(state(plain), state(recorded))
    assert said == ["training without CUDA graphs: CUDA out of memory beside the graphs"]
    assert stand.recorded == 1
    assert recorded.pieces == 1


def test_the_proof_s_step_is_taken_where_the_others_are(pair: Any) -> None:
    """On another stream, what a network keeps of it would be pulled into the recording."""
    _, trainer, stand = pair()
    train(trainer, 1, 20)
    assert stand.rehearsed == WARM_UP + 1
    assert stand.recorded == 1


def test_a_refused_recording_is_dropped_before_anything_is_put_back(pair: Any) -> None:
    """Its memory is needed then."""
    alive: list[Any] = []

    class Watched(Lying):
        def record(self, step: Step) -> Step:
            replay = super().record(step)
            alive.append(weakref.ref(replay))
            return replay

        def release(self) -> None:
            super().release()
            assert alive[0]() is None

    _, trainer, stand = pair(Watched, [])
    train(trainer, 1, 20)
    assert stand.released == 1


def test_no_two_recorders_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is gone leaves its stream to the next."""
    made: list[Any] = []
    monkeypatch.setattr(cuda_graphs, "_FREE", {})
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(object()) or made[-1])
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    device = torch.device("cuda:0")
    first, second = (cuda_graphs.CudaRecorder(device, torch.Generator) for _ in range(2))
    assert first._stream is not second._stream
    left = first._stream
    del first
    third = cuda_graphs.CudaRecorder(device, torch.Generator)
    assert third._stream is left
    assert third._stream is not second._stream
    assert len(made) == 2


def test_generators_are_registered_where_torch_wants_it() -> None:
    class Old:
        def register_generator_state(self, generator: torch.Generator) -> None:
            warnings.warn("deprecated, and now a no-op", FutureWarning, stacklevel=1)
            self.known = generator

    dice, old = torch.Generator(), Old()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cuda_graphs._register(old, dice)  # type: ignore[arg-type]
        cuda_graphs._register(object(), dice)  # type: ignore[arg-type]
    assert old.known is dice


@pytest.mark.parametrize(
    ("value", "has"), [(None, cuda_graphs.DEFAULT == "1"), ("1", True), ("0", False), ("", False)]
)
def test_graphs_are_asked_for_by_a_variable(monkeypatch: Any, value: str | None, has: bool) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    monkeypatch.setattr(cuda_graphs, "CudaRecorder", lambda *_: "a recorder")
    assert recorder_for(torch.device("cuda:0"), torch.Generator) == ("a recorder" if has else None)
    assert recorder_for(torch.device("cpu"), torch.Generator) is None


def test_whose_turn_is_due_makes_no_other_kind_of_step() -> None:
    """A step in which G sits out launches the same kernels whether or not its turn had come."""
    kind = StepKind(d_plays=True, g_plays=False, g_is_due=True, due=False, augmented=False, pieces=1)
    assert kind == dataclasses.replace(kind, g_is_due=False)
    assert hash(kind) == hash(dataclasses.replace(kind, g_is_due=False))


def test_a_wreck_is_no_reason_to_give_up(pair: Any) -> None:
    """NaN stays NaN, replayed or not; the tick's end will tell."""
    said: list[str] = []
    _, trainer, stand = pair(said=said)
    with torch.no_grad():
        next(trainer.D.parameters())[0] = float("nan")
    assert math.isnan(train(trainer, 1)["loss_d"])
    assert stand.replayed > 20
    assert not said


# ---- Checkpoints


@pytest.mark.parametrize("game", ["lazy r1, two critics", "spectral norm"])
def test_states_pass_from_one_way_of_training_to_the_other(pair: Any, game: str) -> None:
    plain, recorded, stand = pair(**GAMES[game])
    whole, _, _ = pair(**GAMES[game])
    train(recorded, 1)
    plain.load_state_dict(copy.deepcopy(recorded.state_dict()))
    train(plain, 2)
    recorded.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert recorded._recorded.replays.kinds == 0  # what they pointed to is no more
    train(recorded, 3)
    for tick in (1, 2, 3):
        train(whole, tick)
    assert same(state(recorded), state(whole))
    assert stand.replayed > 20


def test_a_state_is_the_same_on_paper_whichever_way_it_was_made(pair: Any) -> None:
    """Numbers, no tensors, where numbers are; no trace of a capture."""
    plain, recorded, _ = pair()
    for trainer in (plain, recorded):
        train(trainer, 1)
    ours, theirs = (trainer.opt_d.state_dict()["param_groups"][0] for trainer in (plain, recorded))
    assert ours == theirs
    assert type(theirs["lr"]) is float
    assert theirs["capturable"] is False


def test_released_steps_are_recorded_anew(pair: Any) -> None:
    _, trainer, stand = pair()
    train(trainer, 1)
    trainer.release()
    assert trainer._recorded.replays.kinds == 0
    train(trainer, 2)
    assert stand.recorded == 2


@pytest.mark.parametrize("ticks", [1, 2])
def test_a_trial_that_ends_leaves_nothing(
    dataset: Dataset, tiny: Any, evaluator: Any, tmp_path: Path, monkeypatch: Any, ticks: int
) -> None:
    """Trained to its end or stopped before: when memory is asked back, nobody holds the trainer any more."""
    born: list[weakref.ref[Trainer]] = []
    alive: list[bool] = []

    class Watched(Trainer):
        def __init__(self, *args: Any, **options: Any) -> None:
            stand = Stand(lambda: self)
            super().__init__(*args, **options, recording=lambda device, rng: stand)
            born.append(weakref.ref(self))

    def release(device: torch.device) -> None:
        gc.collect()
        alive.extend(trainer() is not None for trainer in born)

    monkeypatch.setattr(trial, "Trainer", Watched)
    monkeypatch.setattr(trial, "release_memory", release)
    records = trial.run_trial(tiny(), dataset, evaluator, tmp_path)
    for _ in range(ticks):
        next(records)
    if ticks == 2:
        assert next(records, None) is None
    del records
    assert alive == [False]


def test_a_cpu_has_no_graphs(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorder_for(torch.device("cpu"), torch.Generator) is None
    assert make_trainer()._recorded is None
    monkeypatch.setenv(SWITCH, "0")
    assert recorder_for(torch.device("cuda"), torch.Generator) is None


# ---- Adam by tensors


@pytest.mark.parametrize("beta1", [0.0, 0.5])
def test_adam_s_formula_is_torch_s(beta1: float) -> None:
    """With a rate and a beta2 that move: against torch's fused kernel given numbers."""
    torch.manual_seed(0)
    nets = [torch.nn.Linear(5, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours, theirs = (torch.optim.Adam(net.parameters(), 0.1, (beta1, 0.9), fused=True) for net in nets)
    capturable_adam.make_capturable(ours)
    for step in range(20):
        lr, beta2 = 0.01 / (1 + step), 0.9 + 0.004 * step
        for net in nets:
            net.zero_grad()
            net(torch.full((2, 5), 0.1 * step + 0.1)).square().sum().backward()
        capturable_adam.step_with_tensor_lr(ours, torch.tensor(lr), torch.tensor(beta2))
        theirs.param_groups[0].update(lr=lr, betas=(beta1, beta2))
        theirs.step()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert [int(s["step"]) for s in ours.state.values()] == [20, 20]


def test_a_prepared_state_is_torch_s_first() -> None:
    nets = [torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    ours, theirs = (torch.optim.Adam(net.parameters(), 0.0, fused=True) for net in nets)
    capturable_adam.make_capturable(ours)
    nets[1](torch.zeros(1, 2, 4, 4)).sum().backward()
    theirs.step()
    for mine, made in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert mine.keys() == made.keys()
        for name in mine:
            assert (mine[name].dtype, mine[name].stride()) == (made[name].dtype, made[name].stride()), name
    before = ours.state[next(nets[0].parameters())]["exp_avg"]
    capturable_adam.make_capturable(ours)
    assert ours.state[next(nets[0].parameters())]["exp_avg"] is before


# ---- The feed


@pytest.mark.parametrize("far", [False, True])
def test_a_feed_gives_the_stream_at_any_position(dataset: Dataset, far: bool, monkeypatch: Any) -> None:
    """Near: places sent 256 batches at once. Far: fetched one batch ahead. Entered anywhere, in any order."""
    images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    sampler = Sampler(len(images), 3)
    feed = Prefetcher(images, labels, sampler, 24, images.device)
    if far:
        from pipeline.training import prefetch as room

        feed._courier = room._Courier(images, 24, images.device)
    pixels, tags = feed.pixels, feed.labels
    for position in [*range(0, 24 * 300, 24), 48, 24 * 299, 24 * 300, 7, 31]:
        rows = torch.from_numpy(sampler.take(position, 24))
        feed.load(position)
        assert torch.equal(feed.pixels, images[rows]), position
        assert torch.equal(feed.labels, labels[rows])
    assert feed.pixels is pixels
    assert feed.labels is tags
