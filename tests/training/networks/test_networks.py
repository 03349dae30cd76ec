"""Every family in every size: shapes, ranges, conditions, initialisation; spectral norm; the average of G."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import to_float
from pipeline.errors import ConfigError
from pipeline.training.networks.blocks import ClassNorm, Ema, Generator, ImageShape
from pipeline.training.networks.build import build_networks, check_networks, parameters_of, to_uint8
from pipeline.training.networks.custom import copy_code, hashes, use_code

FAMILIES = ("mlp", "dcgan", "resnet")
SIZES = [("mlp", 17), ("mlp", 9)] + [(family, size) for family in FAMILIES for size in (8, 16, 28, 32, 64)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(("family", "size"), SIZES)
def test_shapes_and_ranges(tiny: Any, family: str, size: int, conditional: bool) -> None:
    for channels in (1, 3):
        config = tiny(architecture=family, conditional=conditional, width_g=2, width_d=2)
        generator, discriminator = build_networks(config, ImageShape(size, channels, 5))
        labels = torch.arange(4) if conditional else None
        images = generator(torch.randn(4, 8), labels)
        assert images.shape == (4, channels, size, size)
        assert images.dtype == torch.float32
        assert images.abs().max() <= 1
        assert images.std() > 0.01
        scores = discriminator(images, labels)
        assert scores.shape == (4,)
        assert scores.isfinite().all()
        assert (generator.z_dim, generator.classes) == (8, 5 if conditional else 0)


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
@pytest.mark.parametrize("size", [4, 7, 9, 17, 18, 30, 31, 33, 100 + 1, 36])
def test_sizes_that_a_family_cannot_draw(tiny: Any, family: str, size: int) -> None:
    with pytest.raises(ConfigError) as caught:
        build_networks(tiny(architecture=family), ImageShape(size, 1))
    line = str(caught.value)
    assert "\n" not in line
    assert f"{size} px" in line
    assert "mlp" in line


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
@pytest.mark.parametrize("size", [10, 12, 14, 20, 24, 48, 56])
def test_sizes_of_four_to_seven_times_a_power_of_two(tiny: Any, family: str, size: int) -> None:
    generator, discriminator = build_networks(tiny(architecture=family), ImageShape(size, 1))
    assert discriminator(generator(torch.randn(2, 8))).shape == (2,)


@pytest.mark.parametrize("family", FAMILIES)
def test_conditions_need_labels(tiny: Any, family: str) -> None:
    with pytest.raises(ConfigError, match="labelled") as caught:
        build_networks(tiny(architecture=family, conditional=True), ImageShape(8, 1, 0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_matter_only_to_conditional_networks(tiny: Any, family: str) -> None:
    z, images = torch.randn(4, 8), torch.randn(4, 1, 8, 8)
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    for conditional in (False, True):
        config = tiny(architecture=family, conditional=conditional, norm_g="none")
        generator, discriminator = build_networks(config, ImageShape(8, 1, 3))
        assert torch.equal(generator(z, zeros), generator(z, ones)) is not conditional
        assert torch.equal(discriminator(images, zeros), discriminator(images, ones)) is not conditional


def test_projection_is_an_inner_product_with_the_features(tiny: Any) -> None:
    """D(x, y) - D(x) = <embedding(y), features(x)> / sqrt(F) (Miyato & Koyama 2018, scaled)."""
    _, discriminator = build_networks(tiny(conditional=True), ImageShape(8, 1, 3))
    images, labels = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    features = discriminator.body(images)
    rows = discriminator.project.weight[labels]
    expected = torch.einsum("nf,nf->n", rows, features) / math.sqrt(features.shape[1])
    torch.testing.assert_close(discriminator(images, labels) - discriminator(images), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("knob", ["width_g", "width_d", "depth_g", "depth_d"])
def test_widths_and_depths_change_the_right_network(tiny: Any, family: str, knob: str) -> None:
    shape = ImageShape(16, 1)
    base = [parameters_of(n) for n in build_networks(tiny(architecture=family), shape)]
    more = [parameters_of(n) for n in build_networks(tiny(architecture=family, **{knob: 8}), shape)]
    changed = 0 if knob.endswith("g") else 1
    assert more[changed] > base[changed]
    assert more[1 - changed] == base[1 - changed]


def test_parameters_of_counts_by_hand(tiny: Any) -> None:
    generator, discriminator = build_networks(tiny(architecture="mlp", norm_g="none"), ImageShape(8, 1))
    assert parameters_of(generator) == (8 * 4 + 4) + (4 * 64 + 64)
    assert parameters_of(discriminator) == (64 * 4 + 4) + (4 + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_initialisation_follows_the_seed(tiny: Any, family: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        networks = build_networks(tiny(architecture=family, conditional=True), ImageShape(8, 1, 3))
        return torch.cat([p.detach().flatten() for n in networks for p in n.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("family", FAMILIES)
def test_signals_keep_their_scale_through_a_fresh_network(tiny: Any, family: str) -> None:
    """He initialisation: neither vanishing nor saturated, though the networks are 4 layers deep."""
    config = tiny(architecture=family, width_g=32, width_d=32, norm_g="none", z_dim=64)
    generator, discriminator = build_networks(config, ImageShape(32, 1))
    assert 0.2 < generator.body(torch.randn(64, 64)).std() < 3
    assert 0.1 < discriminator(torch.randn(64, 1, 32, 32)).std() < 3


def test_residual_blocks_begin_as_the_identity(tiny: Any) -> None:
    shallow, deep = (
        build_networks(tiny(architecture="resnet", depth_d=d), ImageShape(8, 1))[1] for d in (1, 3)
    )
    convolutions = [[m for m in network.body if isinstance(m, nn.Conv2d)] for network in (shallow, deep)]
    for ours, theirs in zip(*convolutions, strict=True):
        theirs.load_state_dict(ours.state_dict())
    deep.head.load_state_dict(shallow.head.state_dict())
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(shallow(images), deep(images))


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm), ("none", type(None))]
)
def test_norms_of_d(tiny: Any, norm: str, kind: type) -> None:
    _, discriminator = build_networks(tiny(norm_d=norm), ImageShape(16, 1))
    norms = {type(m) for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
    assert norms == ({kind} if norm != "none" else set())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "spectral"])
def test_every_norm_of_d_gives_scores_and_gradients(tiny: Any, family: str, norm: str) -> None:
    _, discriminator = build_networks(
        tiny(architecture=family, norm_d=norm, conditional=True), ImageShape(16, 1, 3)
    )
    scores = discriminator(torch.randn(6, 1, 16, 16), torch.arange(6) % 3)
    assert scores.isfinite().all()
    assert scores.std() > 0
    torch.autograd.backward(scores.square().sum())
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", FAMILIES)
def test_spectral_norm_against_svd(tiny: Any, family: str) -> None:
    config = tiny(architecture=family, norm_d="spectral", conditional=True)
    _, discriminator = build_networks(config, ImageShape(8, 1, 3))
    seen = 0
    for module in discriminator.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            raw = module.parametrizations.weight.original
            for _ in range(300):
                weight = module.weight
            top = torch.linalg.svdvals(weight.detach().flatten(1))[0].item()
            assert top == pytest.approx(1, abs=2e-3)
            expected = raw / torch.linalg.svdvals(raw.flatten(1))[0]
            torch.testing.assert_close(weight, expected, atol=2e-3, rtol=0)
            seen += 1
    assert seen >= 3


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-1.0, 1.0, 0.0, -2.0, 2.0, 1 / 127.5, 0.49 / 127.5, -0.49 / 127.5])
    images = to_uint8(values.view(1, 1, 2, 4))
    assert images.shape == (1, 2, 4, 1)
    assert images.flatten().tolist() == [0, 255, 128, 0, 255, 129, 128, 127]


def test_every_byte_comes_back() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8).view(2, 8, 16, 1).expand(2, 8, 16, 3).contiguous()
    assert torch.equal(to_uint8(to_float(bytes_)), bytes_)
    assert to_float(bytes_).aminmax() == (-1, 1)


# ---- Ema


def one_weight() -> Generator:
    body = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(body.weight)
    return Generator(body, z_dim=1, classes=0)


@pytest.mark.parametrize(("halflife", "images"), [(1.0, 32), (5.0, 64), (0.5, 500)])
def test_ema_forgets_half_in_a_half_life(halflife: float, images: int) -> None:
    live = one_weight()
    ema = Ema(live, halflife)
    nn.init.ones_(live.body.weight)
    steps = 40
    for _ in range(steps):
        ema.update(images, shown=10**9)
    expected = 1 - 0.5 ** (steps * images / (halflife * 1000))
    assert ema.generator.body.weight.item() == pytest.approx(expected, rel=1e-4)


def test_ema_ramps_up_with_the_images_shown() -> None:
    """The half-life is 5 % of the images shown, until that passes what was asked."""
    live = one_weight()
    ema = Ema(live, halflife_kimg=2.0)
    nn.init.ones_(live.body.weight)
    kept, shown = 1.0, 0
    for _ in range(2000):
        shown += 100
        ema.update(100, shown)
        kept *= 0.5 ** (100 / min(2000, 0.05 * shown))
        if shown in (100, 500, 5000, 40_000, 50_000):
            assert 1 - ema.generator.body.weight.item() == pytest.approx(kept, rel=1e-3, abs=1e-6)
            nn.init.zeros_(ema.generator.body.weight)
            kept = 1.0


def test_ema_of_half_life_zero_copies() -> None:
    live = one_weight()
    ema = Ema(live, 0.0)
    nn.init.constant_(live.body.weight, 0.7)
    assert ema.generator.body.weight.item() == 0
    ema.update(32, 32)
    assert ema.generator.body.weight.item() == live.body.weight.item()


def test_ema_averages_buffers_and_is_itself_fixed(tiny: Any) -> None:
    live, _ = build_networks(tiny(norm_g="batch"), ImageShape(8, 1))
    ema = Ema(live, 1.0)
    before = {name: b.clone() for name, b in ema.generator.named_buffers() if b.is_floating_point()}
    for _ in range(3):
        live(torch.randn(16, 8))  # moves the running statistics
    now = {name: b.clone() for name, b in live.named_buffers()}
    ema.update(500, 10**9)
    assert before
    for name, buffer in ema.generator.named_buffers():
        if name in before:
            torch.testing.assert_close(buffer, before[name] + (1 - 0.5**0.5) * (now[name] - before[name]))
            assert not torch.equal(buffer, before[name])
    assert not any(p.requires_grad for p in ema.generator.parameters())
    assert not ema.generator.training
    assert all(torch.equal(b, now[name]) for name, b in live.named_buffers())


def test_ema_follows_weights_that_were_loaded() -> None:
    live = one_weight()
    ema = Ema(live, 0.0)
    live.load_state_dict({"body.weight": torch.full((1, 1), 3.0)})
    ema.generator.load_state_dict({"body.weight": torch.full((1, 1), 9.0)})
    ema.update(1, 1)
    assert ema.generator.body.weight.item() == 3.0


# ---- conditional batch norm


@pytest.mark.parametrize("family", ["mlp", "dcgan"])
def test_each_class_has_its_own_gain_and_bias(tiny: Any, family: str) -> None:
    """Class k's images are those of plain batch norm with k's rows as its gain and bias."""
    config = tiny(architecture=family, conditional=True, condition_g="batchnorm")
    generator, _ = build_networks(config, ImageShape(8, 1, 3))
    norms = [m for m in generator.modules() if isinstance(m, ClassNorm)]
    for norm in norms:
        nn.init.normal_(norm.gain.weight)
        nn.init.normal_(norm.bias.weight)
    z = torch.randn(16, 8)
    for label in range(3):
        x = z
        for module in generator.body:
            if isinstance(module, ClassNorm):
                gain, bias = module.gain.weight[label], module.bias.weight[label]
                x = nn.functional.batch_norm(x, None, None, gain, bias, training=True)
            else:
                x = module(x)
        torch.testing.assert_close(generator(z, torch.full((16,), label)), torch.tanh(x))
    assert norms
    assert generator.embed is None


def test_fresh_classes_are_alike_and_learn_apart(tiny: Any) -> None:
    generator, _ = build_networks(tiny(conditional=True, condition_g="batchnorm"), ImageShape(8, 1, 3))
    labels = torch.tensor([0, 0, 2, 2])
    torch.autograd.backward(generator(torch.randn(4, 8), labels).square().sum())
    norm = next(m for m in generator.modules() if isinstance(m, ClassNorm))
    assert torch.equal(norm.gain.weight, torch.ones_like(norm.gain.weight))
    moved = norm.bias.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "changes", [{"architecture": "resnet"}, {"norm_g": "none"}, {"condition_g": "embed"}]
)
def test_where_g_has_no_batch_norm_the_class_is_embedded(tiny: Any, changes: dict[str, str]) -> None:
    config = tiny(**{"conditional": True, "condition_g": "batchnorm", **changes})
    generator, _ = build_networks(config, ImageShape(8, 1, 3))
    assert generator.embed is not None
    assert not any(isinstance(m, ClassNorm) for m in generator.modules())


def test_condition_g_means_nothing_without_labels(tiny: Any) -> None:
    torch.manual_seed(0)
    plain, _ = build_networks(tiny(), ImageShape(8, 1, 3))
    torch.manual_seed(0)
    asked, _ = build_networks(tiny(condition_g="batchnorm"), ImageShape(8, 1, 3))
    assert plain.state_dict().keys() == asked.state_dict().keys()
    assert torch.equal(plain(torch.ones(2, 8)), asked(torch.ones(2, 8)))


# ---- networks of the user's own

README = Path(__file__).parents[3] / "README.md"
LINEAR = """
from torch import nn
def build(config, shape):
    pixels = shape.channels * shape.size ** 2
    image = (shape.channels, shape.size, shape.size)
    g = nn.Sequential(nn.Linear(config.z_dim, pixels), nn.Tanh(), nn.Unflatten(1, image))
    return g, nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1), nn.Flatten(0))
"""


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """code(text) writes mine.py and lets this process run it; nothing is trusted afterwards."""

    def write(text: str) -> Path:
        (tmp_path / "mine.py").write_text(text)
        use_code(tmp_path)
        return tmp_path

    yield write
    use_code(None)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_of_the_readme(tiny: Any, code: Any, channels: int, conditional: bool) -> None:
    example = next(b for b in README.read_text().split("```python\n")[1:] if "def build(" in b)
    example = example.partition("```")[0]
    assert example.count("\n") < 40
    code(example)
    config = tiny(architecture="mine:build", conditional=conditional)
    shape = ImageShape(28, channels, 10)
    check_networks(config, shape)
    generator, discriminator = build_networks(config, shape)
    assert (generator.z_dim, generator.classes) == (8, 10 if conditional else 0)
    labels = torch.tensor([0, 1, 2, 3]) if conditional else None
    scores = discriminator(generator(torch.randn(4, 8), labels), labels)
    assert scores.shape == (4,)
    torch.autograd.backward(scores.sum())
    assert all(p.grad is not None for p in generator.body.start.parameters())


def test_two_plain_modules_train_and_average(make_trainer: Any, code: Any) -> None:
    code(LINEAR)
    trainer = make_trainer(architecture="mine:build", penalty="r1", norm_d="spectral")
    assert any("parametrizations" in name for name, _ in trainer.D.named_parameters())
    trainer.advance(1)
    assert all(math.isfinite(mean) for mean in trainer.tally.read().values())
    z = torch.randn(3, 8)
    assert not torch.equal(trainer.ema.generator(z), trainer.G(z))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def build(:", ["mine.py can be imported", "SyntaxError", "line 1"]),
        ("import no_such_thing", ["mine.py can be imported", "no_such_thing", "line 1"]),
        ("def biuld(config, shape): ...", ["has the function", "got build", "'biuld'"]),
        ("x = 1", ["has the function", "add def build(config, shape)"]),
        ("def build(config): ...", ["mine:build makes networks", "TypeError"]),
        ("def build(config, shape):\n    y = 1\n    return 1 / 0", ["ZeroDivisionError", "(line 3)"]),
        ("def build(config, shape): return 3", ["returns (G, D)", "got int"]),
        ("def build(config, shape): return 'a', 'b'", ["returns (G, D)", "tuple of str, str"]),
        (LINEAR.replace("nn.Tanh()", "nn.Identity()").replace("g = ", "import torch; g = ").replace(
            "return g,", "nn.init.constant_(g[0].bias, 9.0); return g,"), ["lie in [-1, 1]", "nn.Tanh()"]),
        (LINEAR.replace("return g,", "nn.init.constant_(g[0].bias, float('nan')); return g,"), ["nan"]),
        (LINEAR.replace("nn.Unflatten(1, image)", "nn.Identity()"), ["G draws (2, 1, 8, 8)", "(2, 64)"]),
        (LINEAR.replace("config.z_dim, pixels", "3, pixels"), ["G draws from z (2,8)", "RuntimeError"]),
        (LINEAR.replace("nn.Flatten(0)", "nn.Identity()"), ["one logit per image", "float32 (2, 1)"]),
        (LINEAR.replace("nn.Linear(pixels, 1)", "nn.Linear(3, 1)"), ["D judges", "RuntimeError"]),
        (LINEAR.replace("nn.Linear(pixels, 1), nn.Flatten(0)", "nn.AvgPool1d(64), nn.Flatten(0)"),
         ["D has weights to train", "got none"]),
        (LINEAR.replace("return g, nn", "return nn.Sequential(g, nn.Flatten(), nn.Linear(64, 64), "
         "nn.Tanh(), nn.Unflatten(1, (1, 8, 8))).half(), nn"), ["RuntimeError"]),
    ],
)  # fmt: skip
def test_wrong_networks_are_told_in_a_line(tiny: Any, code: Any, text: str, parts: list[str]) -> None:
    code(text)
    with pytest.raises(ConfigError) as caught:
        check_networks(tiny(architecture="mine:build"), ImageShape(8, 1))
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in parts), line


def test_conditional_networks_are_given_labels(tiny: Any, code: Any) -> None:
    code(LINEAR)  # two modules that take no labels
    with pytest.raises(ConfigError, match="TypeError"):
        check_networks(tiny(architecture="mine:build", conditional=True), ImageShape(8, 1, 3))


def test_code_runs_from_the_named_folder_only(tiny: Any, code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = code(LINEAR)
    for module, fix in (("os", "beside a space of your own"), ("min", "'mine'")):
        with pytest.raises(ConfigError, match="beside the space; got .*No such file") as caught:
            build_networks(tiny(architecture=f"{module}:getcwd"), ImageShape(8, 1))
        assert fix in caught.value.fix or module == "os"
    monkeypatch.chdir(folder)
    use_code(None)
    with pytest.raises(ConfigError, match="`run` and `resume` only; got mine.py"):
        build_networks(tiny(architecture="mine:build"), ImageShape(8, 1))


def test_a_file_is_loaded_once_and_again_when_it_changes(tiny: Any, code: Any, tmp_path: Path) -> None:
    count = "import pathlib; p = pathlib.Path(__file__).parent / 'count'\n"
    count += "p.write_text(p.read_text() + 'x' if p.exists() else 'x')\n"
    for text, loads in ((count + LINEAR, 1), (count + LINEAR, 1), (count + LINEAR + "# new\n", 2)):
        code(text)
        build_networks(tiny(architecture="mine:build"), ImageShape(8, 1))
        assert (tmp_path / "count").read_text() == "x" * loads
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count", "mine.py"]  # no bytecode


def test_code_travels_as_it_was_checked(code: Any, tmp_path: Path) -> None:
    folder = code(LINEAR)
    known = hashes(["dcgan", "mine:build", "mine:other"], folder)
    assert list(known) == ["mine"]
    copy_code(known, folder, tmp_path / "code")
    assert hashes(["mine:build"], tmp_path / "code") == known
    code(LINEAR + "# other\n")
    with pytest.raises(ConfigError, match="as they were checked"):
        copy_code(known, folder, tmp_path / "code")
    assert hashes(["dcgan"], None) == {}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"architecture": "mine:build"}, {"condition_g": "batchnorm"}])
def test_new_generators_can_be_registered(tiny: Any, code: Any, tmp_path: Path, changes: Any) -> None:
    from pipeline.tracking.registry.load import from_packed
    from pipeline.tracking.registry.pack import pack_generator

    example = next(b for b in README.read_text().split("```python\n")[1:] if "def build(" in b)
    code(example.partition("```")[0])
    generator, _ = build_networks(tiny(conditional=True, **changes), ImageShape(8, 1, 3))
    packed = from_packed(pack_generator(generator, tmp_path / "packed", {}))
    images, labels = packed.sample(5, 0)
    assert images.shape == (5, 8, 8, 1)
    with torch.no_grad():
        z = torch.from_numpy(np.random.default_rng([0, 0]).standard_normal((32, 8), dtype=np.float32))
        labels_ = torch.zeros(32, dtype=torch.int64)
        labels_[:5] = torch.from_numpy(labels)
        expected = to_uint8(generator.eval()(z, labels_))[:5].numpy()
    assert np.abs(expected.astype(int) - images).max() <= 1


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_with_networks_of_ones_own(tmp_path: Path) -> None:
    """The file travels in the sweep's folder: a resume needs the original no more, a run refuses another."""
    (tmp_path / "mine.py").write_text(LINEAR)
    space = '[fixed]\narchitecture = "mine:build"\nkimg = 2\ntick_kimg = 1\n'
    (tmp_path / "own.toml").write_text(space + "[search]\nlr_g = { float = [1e-4, 1e-2], log = true }\n")
    run = [
        "run",
        "--space",
        str(tmp_path / "own.toml"),
        "--data",
        "digits",
        "--extractor",
        "pixels",
        "--quiet",
    ]
    run += ["--out", str(tmp_path / "runs"), "--concurrency", "1"]

    def gansweep(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pipeline", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
        return done.returncode, done.stderr

    assert gansweep(*run, "--trials", "1") == (0, "")
    root = tmp_path / "runs" / "own"
    assert (root / "code" / "mine.py").read_text() == LINEAR
    (tmp_path / "mine.py").write_text(LINEAR + "# other\n")
    code, line = gansweep(*run, "--trials", "2")
    assert code == 2
    assert "another code" in line
    (tmp_path / "mine.py").unlink()
    assert gansweep("resume", str(root), "--trials", "2", "--quiet")[0] == 0
    assert json.loads((root / "trials/1/records.jsonl").read_text().splitlines()[0])["fid"] > 0
