"""What one does with a MODEL: samples as files and data sets, walks, exports, from Python."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from factories import CLASSES, generator_of
from PIL import Image

import pipeline
from pipeline.config import SweepPaths
from pipeline.errors import ConfigError, RegistryError
from pipeline.serving import models
from pipeline.tracking.registry.export import export_generator
from pipeline.tracking.registry.load import from_packed
from pipeline.tracking.registry.pack import pack_generator
from pipeline.training.networks.blocks import Ema


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep's folder with a packed champion of three classes, the second twice as frequent."""
    root = tmp_path_factory.mktemp("runs") / "sweep"
    facts = {"label_shares": [0.25, 0.5, 0.25], "class_names": ["a", "b", "c"], "fid": 3.0}
    pack_generator(generator_of(), SweepPaths(root).packed, facts)
    return str(root)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same without labels."""
    root = tmp_path_factory.mktemp("plain") / "sweep"
    pack_generator(generator_of(0), SweepPaths(root).packed, {})
    return str(root)


# One generator, three forms


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "resnet"])
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_ema_program_and_weights_agree(architecture: str, classes: int, tmp_path: Path) -> None:
    """The average of training time, the pt2 program and the safetensors weights, on the same latents."""
    live = generator_of(classes, architecture=architecture)
    ema = Ema(live, halflife_kimg=0.1)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ema.update(64, 10_000)
    pack_generator(ema.generator, tmp_path, {})
    again = generator_of(classes, architecture=architecture)
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "generator.safetensors"))
    inputs = [torch.randn(40, 8)] + ([torch.arange(40) % classes] if classes else [])
    program = torch.export.load(tmp_path / "generator.pt2").module()
    with torch.no_grad():
        wanted, found, other = (form(*inputs) for form in (ema.generator, program, again))
    assert wanted.std() > 0.01
    assert (found - wanted).abs().max() <= 1e-5
    assert (other - wanted).abs().max() <= 1e-5


def test_labels_are_drawn_as_the_data_has_them(model: str) -> None:
    _, labels = models.open_model(model).sample(4000)
    assert labels is not None
    assert np.allclose(np.bincount(labels) / 4000, [0.25, 0.5, 0.25], atol=0.03)


def test_vectors_between_labels_reach_the_labels(model: str) -> None:
    generator = models.open_model(model)
    z, _ = generator.latents(6, seed=2)
    labels = np.array([0, 1, 2, 0, 1, 2])
    vectors = generator.label_vectors()
    assert np.array_equal(generator.render(z, mixed=vectors[labels]), generator.render(z, labels))
    assert not np.array_equal(generator.render(z, mixed=vectors[labels] / 2), generator.render(z, labels))
    assert np.array_equal(generator.render(z, labels)[:2], generator.render(z[:2], labels[:2]))


def test_from_python_in_one_line(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = pipeline.load_generator(model).sample(5, seed=1, label=2)
    assert np.array_equal(images, models.open_model(model).sample(5, 1, 2)[0])
    assert labels is not None
    assert labels.tolist() == [2] * 5
    with pytest.raises(AttributeError):
        _ = pipeline.load_generators  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/at/all.db")
    with pytest.raises(RegistryError, match="/nowhere/at/all.db"):
        pipeline.load_generator("models:/gan@champion")


def test_importing_the_package_imports_no_framework() -> None:
    code = "import sys, pipeline; assert not {'torch', 'mlflow', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Samples


def test_the_same_bytes_for_the_same_seed(model: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.npz", "b.npz", "other.npz")]
    for file, seed in zip(files, (4, 4, 5), strict=True):
        models.sample(model, file, n=600, seed=seed)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert digests[0] == digests[1] != digests[2]
    with np.load(files[0], allow_pickle=False) as arrays:
        images, labels = models.open_model(model).sample(600, 4)
        assert np.array_equal(arrays["images"], images)
        assert np.array_equal(arrays["labels"], labels)


def test_a_grid_and_balanced_labels(model: str, tmp_path: Path) -> None:
    models.sample(model, tmp_path / "grid.png", n=10)
    assert Image.open(tmp_path / "grid.png").size == (32, 24)
    models.sample(model, tmp_path / "even.npz", n=300, labels="balanced")
    with np.load(tmp_path / "even.npz", allow_pickle=False) as arrays:
        assert np.bincount(arrays["labels"]).tolist() == [100, 100, 100]


@pytest.mark.parametrize("format", ["", "npz", "parquet"])
def test_a_data_set_goes_on_where_it_was(model: str, format: str, tmp_path: Path) -> None:
    out, told = tmp_path / "set", []
    models.sample(model, out, n=700, seed=3, format=format)
    said = models.sample(model, out, n=1100, seed=3, format=format, advance=lambda *at: told.append(at))
    assert "(400 new)" in said
    assert told[-1] == (1100, 1100)
    assert json.loads((out / "dataset.json").read_text())["done"] == 1100
    if not format:
        assert {path.name for path in out.iterdir()} == {"a", "b", "c", "dataset.json"}
        wanted, labels = models.open_model(model).sample(1100, 3)
        assert labels is not None
        found = Image.open(out / "abc"[labels[1099]] / "000001099.png")
        assert np.array_equal(np.asarray(found), wanted[1099, :, :, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "-n lies in"),
        ({"n": -3}, "-n lies in"),
        ({"n": 10**12}, r"-n lies in .*--out DIR"),
        ({"label": 3}, r"label lies in \[0, 2\]"),
        ({"truncation": 0.0}, "truncation"),
        ({"out": "a.jpg"}, "ends in .png or .npz"),
        ({"out": "set", "format": "tar"}, "folder, npz or parquet"),
        ({"device": "tpu"}, "auto, cpu or cuda"),
    ],
)
def test_impossible_samples_leave_nothing(
    model: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    asked = {"out": "a.npz", "n": 8, **change}
    out = tmp_path / asked.pop("out")
    with pytest.raises((ConfigError, RegistryError), match=message):
        models.sample(model, out, **asked)
    assert list(tmp_path.rglob("*.npz")) == list(tmp_path.rglob("*.png")) == []


def test_labels_of_an_unconditional_model_are_refused(plain: str, tmp_path: Path) -> None:
    for asked in ({"label": 0}, {"labels": "balanced"}):
        with pytest.raises(RegistryError, match="conditional"):
            models.sample(plain, tmp_path / "a.png", n=4, **asked)
    with pytest.raises(RegistryError, match="conditional"):
        models.interpolate(plain, tmp_path / "a.png", labels=[0, 1])


# Walks


@pytest.mark.parametrize("labels", [(), (1,)])
def test_a_walk_over_seeds_begins_and_ends_at_their_images(
    model: str, labels: tuple[int, ...], tmp_path: Path
) -> None:
    strip = np.asarray(Image.open(models.interpolate(model, tmp_path / "w.png", seeds=[5, 6], labels=labels)))
    assert strip.shape == (56, 8 * 56)
    generator = models.open_model(model)
    first, own = generator.sample(1, 5, *labels)
    assert own is not None
    last, _ = generator.sample(1, 6, int(own[0]))
    cells = strip.reshape(56, 8, 56).transpose(1, 0, 2)[:, ::7, ::7]
    assert np.array_equal(cells[0], first[0, :, :, 0])
    assert np.array_equal(cells[7], last[0, :, :, 0])
    steps = np.abs(np.diff(cells.astype(int), axis=0)).mean((1, 2))
    assert steps.max() < np.abs(cells[0].astype(int) - cells[7]).mean()  # no jump


def test_a_walk_over_labels(model: str, plain: str, tmp_path: Path) -> None:
    strip = np.asarray(Image.open(models.interpolate(model, tmp_path / "w.png", labels=[0, 2], frames=3)))
    cells = strip.reshape(56, 3, 56).transpose(1, 0, 2)[:, ::7, ::7]
    for cell, label in ((cells[0], 0), (cells[2], 2)):
        assert np.array_equal(cell, models.open_model(model).sample(1, 0, label)[0][0, :, :, 0])
    assert not np.array_equal(cells[1], cells[0])
    film = Image.open(models.interpolate(plain, tmp_path / "w.gif", seeds=[1, 2], frames=6, loop=True))
    assert film.n_frames == 6


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"seeds": [1]}, "two seeds or labels"),
        ({"seeds": [1, 2, 3], "labels": [0, 1]}, "two seeds or labels"),
        ({"labels": [0, 3]}, r"label lies in \[0, 2\]"),
        ({"seeds": [0, -1]}, "seed lies in"),
        ({"frames": 1}, "frames lies in"),
    ],
)
def test_impossible_walks(model: str, asked: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, RegistryError), match=message):
        models.interpolate(model, tmp_path / "w.png", **asked)


# Exports


@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_an_export_is_the_packed_file(model: str, format: str, tmp_path: Path) -> None:
    out, _ = models.export(model, tmp_path / f"g.{format}", format=format)
    assert out.read_bytes() == (SweepPaths(Path(model)).packed / f"generator.{format}").read_bytes()
    with pytest.raises(RegistryError, match="safetensors, pt2 or onnx"):
        models.export(model, None, format="pickle")


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_onnx_draws_what_torch_draws(classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    packed = pack_generator(generator_of(classes), tmp_path / "packed", {})
    told = export_generator(packed, tmp_path / "g.onnx", "onnx")
    assert "differs from torch by" in told
    generator = from_packed(packed)
    z, labels = generator.latents(7, seed=9)
    inputs = {"z": z} if labels is None else {"z": z, "labels": labels}
    images = runtime.InferenceSession(str(tmp_path / "g.onnx")).run(None, inputs)[0]
    levels = (images * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.abs(levels.astype(int) - generator.render(z, labels)).max() <= 1
    if classes:  # an ONNX file that draws something else is not kept
        monkeypatch.setattr("pipeline.tracking.registry.export.TOLERANCE", -1.0)
        with pytest.raises(RegistryError, match="differ by at most"):
            export_generator(packed, tmp_path / "bad.onnx", "onnx")
        assert not (tmp_path / "bad.onnx").exists()


def test_onnx_without_its_packages_is_told(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RegistryError, match=r"pip install 'gansweep\[onnx\]'"):
        models.export(model, tmp_path / "g.onnx", format="onnx")


# The card


@pytest.mark.parametrize("records", [0, 3])
def test_a_card_shows_pictures_and_numbers(
    records: int, tmp_path: Path, dataset: Any, make_records: Callable[[int], list[Any]]
) -> None:
    from pipeline.tracking.registry.model_card import write_card

    packed = pack_generator(generator_of(), tmp_path, {"fid": 3.25, "balance": 0.5, "params": {"lr_g": 1e-3}})
    folder = write_card(packed, from_packed(packed), dataset, make_records(records), name="blobs")
    text = (folder / "README.md").read_text()
    assert "| fid | 3.25 |" in text
    assert "lr_g=0.001" in text
    sizes = {path.name: Image.open(path).size for path in folder.glob("*.png")}
    assert sizes == {
        "samples.png": (64, 64),
        "real_and_generated.png": (132, 64),
        "neighbours.png": (96, 24),
        "fid.png": (640, 360),
        "balance.png": (640, 360),
    }
    assert all(f"({name})" in text for name in sizes)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(metrics["records"]) == records
    assert from_packed(packed).facts == metrics["facts"]  # a card changes nothing that is checked


@pytest.fixture
def make_records() -> Callable[[int], list[Any]]:
    import math

    from pipeline.records import TrialRecord

    def make(count: int) -> list[Any]:
        empty = TrialRecord.from_dict({"trial": 0, "verdict": "healthy", "objective": 1.0})
        values = vars(empty)
        return [
            TrialRecord(**{**values, "kimg": 5 * (i + 1), "fid": None if i == 1 else 9.0 - i,
                           "balance": math.nan if i == 2 else 0.5, "auc": 0.7})
            for i in range(count)
        ]  # fmt: skip

    return make
