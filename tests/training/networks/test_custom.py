"""Custom networks: their file, its errors, training, registration, a sweep."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown_pages import code_blocks

from pipeline.errors import ConfigError
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks, check_networks, to_uint8

PAGE = Path(__file__).parents[3] / "docs" / "extend" / "network.md"
LINEAR = """
from torch import nn
def build(config, shape):
    pixels = shape.channels * shape.size ** 2
    image = (shape.channels, shape.size, shape.size)
    g = nn.Sequential(nn.Linear(config.z_dim, pixels), nn.Tanh(), nn.Unflatten(1, image))
    return g, nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1), nn.Flatten(0))
"""


def example_of_the_page() -> str:
    return next(block.text for block in code_blocks(PAGE.read_text()) if "def pixelshuffle(" in block.text)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_of_the_page(tiny: Any, own_code: Any, channels: int, conditional: bool) -> None:
    own_code(example_of_the_page())
    config = tiny(architecture="mine:pixelshuffle", conditional=conditional)
    shape = ImageShape(28, channels, 10)
    check_networks(config, shape)
    generator, discriminator = build_networks(config, shape)
    assert (generator.z_dim, generator.classes) == (8, 10 if conditional else 0)
    labels = torch.tensor([0, 1, 2, 3]) if conditional else None
    scores = discriminator(generator(torch.randn(4, 8), labels), labels)
    assert scores.shape == (4,)
    torch.autograd.backward(scores.sum())
    assert all(p.grad is not None for p in generator.body.up.parameters())


def test_two_plain_modules_can_be_trained(make_trainer: Any, own_code: Any) -> None:
    own_code(LINEAR)
    trainer = make_trainer(architecture="mine:build", penalty="r1", norm_d="spectral")
    assert any("parametrizations" in name for name, _ in trainer.D.named_parameters())
    trainer.advance(1)
    assert all(math.isfinite(mean) for mean in trainer.metrics.read().values())
    z = torch.randn(3, 8)
    assert not torch.equal(trainer.ema.generator(z), trainer.G(z))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def build(:", ["mine.py cannot be imported", "SyntaxError", "line 1"]),
        ("import no_such_thing", ["mine.py cannot be imported", "no_such_thing", "line 1"]),
        ("def biuld(config, shape): ...", ["mine has no build", "(config, shape) -> (G, D)", "'biuld'"]),
        ("build = 1", ["mine:build fails", "not callable"]),
        ("def build(config): ...", ["mine:build fails", "TypeError"]),
        ("def build(config, shape):\n    y = 1\n    return 1 / 0", ["ZeroDivisionError", "(line 3)"]),
        ("def build(config, shape): return 3", ["returned int", "(G, D)"]),
        ("def build(config, shape): return 'a', 'b'", ["returned tuple of str, str", "(G, D)"]),
        (LINEAR.replace("nn.Tanh()", "nn.Identity()").replace("g = ", "import torch; g = ").replace(
            "return g,", "nn.init.constant_(g[0].bias, 9.0); return g,"), ["[-1, 1]", "nn.Tanh()"]),
        (LINEAR.replace("return g,", "nn.init.constant_(g[0].bias, float('nan')); return g,"), ["nan"]),
        (LINEAR.replace("nn.Unflatten(1, image)", "nn.Identity()"), ["G returned float32 (2, 64)"]),
        (LINEAR.replace("config.z_dim, pixels", "3, pixels"), ["G fails for z", "RuntimeError"]),
        (LINEAR.replace("nn.Flatten(0)", "nn.Identity()"), ["D returned float32 (2, 1)", "one logit"]),
        (LINEAR.replace("nn.Linear(pixels, 1)", "nn.Linear(3, 1)"), ["D fails for images", "RuntimeError"]),
        (LINEAR.replace("nn.Linear(pixels, 1), nn.Flatten(0)", "nn.AvgPool1d(64), nn.Flatten(0)"),
         ["D has no weights to train"]),
        (LINEAR.replace("return g, nn", "return nn.Sequential(g, nn.Flatten(), nn.Linear(64, 64), "
         "nn.Tanh(), nn.Unflatten(1, (1, 8, 8))).half(), nn"), ["RuntimeError"]),
    ],
)  # fmt: skip
def test_an_error_in_custom_networks_is_one_line(
    tiny: Any, own_code: Any, text: str, parts: list[str]
) -> None:
    own_code(text)
    with pytest.raises(ConfigError) as caught:
        check_networks(tiny(architecture="mine:build"), ImageShape(8, 1))
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in parts), line


def test_conditional_networks_receive_labels(tiny: Any, own_code: Any) -> None:
    own_code(LINEAR)  # two modules that take no labels
    with pytest.raises(ConfigError, match="TypeError"):
        check_networks(tiny(architecture="mine:build", conditional=True), ImageShape(8, 1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"architecture": "mine:pixelshuffle"}, {"condition_g": "batchnorm"}])
def test_generators_can_be_registered(tiny: Any, own_code: Any, tmp_path: Path, changes: Any) -> None:
    from pipeline.tracking.registry.load import LoadedGenerator
    from pipeline.tracking.registry.metadata import ModelMetadata
    from pipeline.tracking.registry.pack import pack_generator

    own_code(example_of_the_page())
    generator, _ = build_networks(tiny(conditional=True, **changes), ImageShape(8, 1, 3))
    packed = LoadedGenerator(pack_generator(generator, tmp_path / "packed", ModelMetadata()))
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
def test_a_sweep_with_custom_networks(tmp_path: Path) -> None:
    """The file is copied to the sweep's folder: `resume` needs no original, `run` refuses another."""
    (tmp_path / "mine.py").write_text(LINEAR)
    space = '[fixed]\narchitecture = "mine:build"\nkimg = 2\ntick_kimg = 1\n'
    (tmp_path / "custom.toml").write_text(space + "[search]\nlr_g = { float = [1e-4, 1e-2], log = true }\n")
    run = ["run", "--space", str(tmp_path / "custom.toml"), "--data", "digits", "--extractor", "pixels"]
    run += ["--out", str(tmp_path / "runs"), "--concurrency", "1", "--quiet", "--no-register"]
    run += ["--second-extractor", "none"]

    def gansweep(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pipeline", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
        return done.returncode, done.stderr

    assert gansweep(*run, "--trials", "1") == (0, "")
    root = tmp_path / "runs" / "custom"
    assert (root / "code" / "mine.py").read_text() == LINEAR
    (tmp_path / "mine.py").write_text(LINEAR + "# other\n")
    code, line = gansweep(*run, "--trials", "2")
    assert code == 2
    assert "another code" in line
    (tmp_path / "mine.py").unlink()
    assert gansweep("resume", str(root), "--trials", "2", "--quiet")[0] == 0
    assert json.loads((root / "trials/1/records.jsonl").read_text().splitlines()[0])["fid"] > 0
