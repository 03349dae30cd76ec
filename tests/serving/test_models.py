"""What the commands do with a MODEL: samples as files and data sets, walks, exports; use from Python."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import generator_of
from PIL import Image

import pipeline
from pipeline.cli.main import main
from pipeline.config import SweepPaths
from pipeline.errors import ConfigError, RegistryError
from pipeline.serving import models
from pipeline.serving.interpolation import WalkOptions, interpolate
from pipeline.serving.sample_options import SampleOptions
from pipeline.serving.sampling import sample
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep's folder with a packed champion of three classes, the second twice as frequent."""
    root = tmp_path_factory.mktemp("runs") / "sweep"
    facts = {"label_shares": [0.25, 0.5, 0.25], "class_names": ["a", "b", "c"], "fid": 3.0}
    pack_generator(generator_of(), SweepPaths(root).packed, ModelMetadata.from_json(facts))
    return str(root)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same without labels."""
    root = tmp_path_factory.mktemp("plain") / "sweep"
    pack_generator(generator_of(0), SweepPaths(root).packed, ModelMetadata())
    return str(root)


def test_sampled_labels_have_the_frequencies_of_the_data(model: str) -> None:
    _, labels = models.load_generator(model).sample(4000)
    assert labels is not None
    assert np.allclose(np.bincount(labels) / 4000, [0.25, 0.5, 0.25], atol=0.03)


def test_vectors_between_labels_reach_the_labels(model: str) -> None:
    generator = models.load_generator(model)
    z, _ = generator.latents(6, seed=2)
    labels = np.array([0, 1, 2, 0, 1, 2])
    table = generator.label_embeddings()
    assert np.array_equal(generator.render(z, embeddings=table[labels]), generator.render(z, labels))
    assert not np.array_equal(generator.render(z, embeddings=table[labels] / 2), generator.render(z, labels))
    assert np.array_equal(generator.render(z, labels)[:2], generator.render(z[:2], labels[:2]))


def test_loading_from_python_in_one_line(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = pipeline.load_generator(model).sample(5, seed=1, label=2)
    assert np.array_equal(images, models.load_generator(model).sample(5, 1, 2)[0])
    assert labels is not None
    assert labels.tolist() == [2] * 5
    with pytest.raises(AttributeError):
        _ = pipeline.load_generators  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/at/all.db")
    with pytest.raises(RegistryError, match="/nowhere/at/all.db"):
        pipeline.load_generator("models:/gan@champion")


def test_a_label_is_the_number_or_the_name_of_a_class(model: str, plain: str) -> None:
    generator = models.load_generator(model)
    assert generator.class_names == ("a", "b", "c")
    by_number, by_name = generator.sample(5, 1, 2), generator.sample(5, 1, "c")
    assert np.array_equal(by_number[0], by_name[0])
    assert by_name[1] is not None
    assert by_name[1].tolist() == [2] * 5
    assert np.array_equal(generator.latents(3, label="c")[0], generator.latents(3, label=2)[0])
    assert all((labels == 2).all() for _, labels in generator.stream(600, label="c", batch=512))
    with pytest.raises(RegistryError, match=r"no class is called 'd' .*its classes are \"a\", \"b\", \"c\""):
        generator.sample(5, label="d")
    with pytest.raises(RegistryError, match=r"label = 3 is out of range \(a label lies in \[0, 2\]\)"):
        generator.sample(5, label="3")
    with pytest.raises(RegistryError, match="label c was given for an unconditional model"):
        models.load_generator(plain).sample(5, label="c")


@pytest.mark.parametrize("label", ["c", "2", 2, "number:2"])
@pytest.mark.parametrize("out", ["file.npz", "folder"])
def test_samples_of_a_class_say_its_number_and_its_name(
    model: str, label: str | int, out: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    sample(model, tmp_path / out, SampleOptions(n=4, label=label, device="cpu"))
    assert caplog.messages == ['class 2: "c"']
    if out == "folder":  # the number is stored: either way of writing it continues the data set
        assert json.loads((tmp_path / out / "dataset.json").read_text())["label"] == 2
        assert sample(model, tmp_path / out, SampleOptions(n=4, label="c", device="cpu")).startswith(
            "4 images (0 new)"
        )
    else:
        with np.load(tmp_path / out, allow_pickle=False) as arrays:
            assert arrays["labels"].tolist() == [2] * 4


def test_a_walk_over_named_classes_says_them(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    named = interpolate(model, tmp_path / "named.png", WalkOptions(labels=("0", "c")))
    assert caplog.messages == ['class 0: "a", class 2: "c"']
    numbered = interpolate(model, tmp_path / "numbered.png", WalkOptions(labels=(0, 2)))
    assert named.read_bytes() == numbered.read_bytes()
    with pytest.raises(RegistryError, match="no class is called 'x'"):
        interpolate(model, tmp_path / "none.png", WalkOptions(labels=("0", "x")))
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["sample", "--label", "10", "-n", "2"], 0, 'class 2: "10"'),
        (["sample", "--label", "number:2", "-n", "2"], 0, 'class 2: "10"'),
        (["sample", "--label", "1", "-n", "2"], 0, 'class 1: "1"'),
        (["sample", "--label", "2", "-n", "2"], 2, 'error: label 2 means several classes (class 2: "10" and'),
        (["sample", "--label", "two", "-n", "2"], 2, "error: no class is called 'two'"),
        (["interpolate", "--labels", "0,10"], 0, 'class 0: "0", class 2: "10"'),
        (["interpolate", "--labels", "0,2"], 2, "write number:2 or number:3"),
    ],
    ids=str,
)
def test_the_commands_take_names_and_refuse_what_is_ambiguous(
    arguments: list[str],
    code: int,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Classes whose order is that of their texts, as in models of earlier versions."""
    facts = {"class_names": ["0", "1", "10", "2"]}
    pack_generator(generator_of(4), SweepPaths(tmp_path / "old").packed, ModelMetadata.from_json(facts))
    command, *rest = arguments
    out = str(tmp_path / "out.png")
    monkeypatch.setattr(sys, "argv", ["gansweep", command, str(tmp_path / "old"), *rest, "--out", out])
    with pytest.raises(SystemExit) as done:
        main()
    assert int(done.value.code or 0) == code
    printed = capsys.readouterr()
    assert line in printed.err
    assert Path(out).exists() is (code == 0)


def test_importing_the_package_imports_no_framework() -> None:
    code = "import sys, pipeline; assert not {'torch', 'mlflow', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Samples


def test_the_same_seed_gives_the_same_bytes(model: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.npz", "b.npz", "other.npz")]
    for file, seed in zip(files, (4, 4, 5), strict=True):
        sample(model, file, SampleOptions(n=600, seed=seed))
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert digests[0] == digests[1] != digests[2]
    with np.load(files[0], allow_pickle=False) as arrays:
        images, labels = models.load_generator(model).sample(600, 4)
        assert np.array_equal(arrays["images"], images)
        assert np.array_equal(arrays["labels"], labels)


def test_a_grid_and_balanced_labels(model: str, tmp_path: Path) -> None:
    sample(model, tmp_path / "grid.png", SampleOptions(n=10))
    assert Image.open(tmp_path / "grid.png").size == (32, 24)
    sample(model, tmp_path / "even.npz", SampleOptions(n=300, labels="balanced"))
    with np.load(tmp_path / "even.npz", allow_pickle=False) as arrays:
        assert np.bincount(arrays["labels"]).tolist() == [100, 100, 100]


@pytest.mark.parametrize("format", ["", "npz", "parquet"])
def test_a_data_set_is_continued(model: str, format: str, tmp_path: Path) -> None:
    out, progress = tmp_path / "set", []
    sample(model, out, SampleOptions(n=700, seed=3, format=format))
    line = sample(
        model, out, SampleOptions(n=1100, seed=3, format=format), advance=lambda *at: progress.append(at)
    )
    assert "(400 new)" in line
    assert progress[-1] == (1100, 1100)
    assert json.loads((out / "dataset.json").read_text())["done"] == 1100
    if not format:
        assert {path.name for path in out.iterdir()} == {"a", "b", "c", "dataset.json"}
        expected, labels = models.load_generator(model).sample(1100, 3)
        assert labels is not None
        found = Image.open(out / "abc"[labels[1099]] / "000001099.png")
        assert np.array_equal(np.asarray(found), expected[1099, :, :, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "-n 0 is out of range"),
        ({"n": -3}, "-n -3 is out of range"),
        ({"n": 10**12}, r"-n 1000000000000 is out of range .*--out DIR"),
        ({"label": 3}, r"label lies in \[0, 2\]"),
        ({"truncation": 0.0}, "truncation"),
        ({"out": "a.jpg"}, "a.jpg has no known format"),
        ({"out": "set", "format": "tar"}, "--format tar is unknown"),
        ({"device": "tpu"}, "--device tpu is unknown"),
    ],
)
def test_an_impossible_request_writes_nothing(
    model: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arguments = {"out": "a.npz", "n": 8, **change}
    out = tmp_path / arguments.pop("out")
    with pytest.raises((ConfigError, RegistryError), match=message):
        sample(model, out, SampleOptions(**arguments))
    assert list(tmp_path.rglob("*.npz")) == list(tmp_path.rglob("*.png")) == []


def test_labels_of_an_unconditional_model_are_refused(plain: str, tmp_path: Path) -> None:
    for arguments in ({"label": 0}, {"labels": "balanced"}):
        with pytest.raises(RegistryError, match="conditional"):
            sample(plain, tmp_path / "a.png", SampleOptions(n=4, **arguments))
    with pytest.raises(RegistryError, match="conditional"):
        interpolate(plain, tmp_path / "a.png", WalkOptions(labels=(0, 1)))


# Walks


@pytest.mark.parametrize("labels", [(), (1,)])
def test_a_walk_over_seeds_begins_and_ends_at_their_images(
    model: str, labels: tuple[int, ...], tmp_path: Path
) -> None:
    strip = np.asarray(
        Image.open(interpolate(model, tmp_path / "w.png", WalkOptions(seeds=(5, 6), labels=labels)))
    )
    assert strip.shape == (56, 8 * 56)
    generator = models.load_generator(model)
    first, sampled = generator.sample(1, 5, *labels)
    assert sampled is not None
    last, _ = generator.sample(1, 6, int(sampled[0]))
    cells = strip.reshape(56, 8, 56).transpose(1, 0, 2)[:, ::7, ::7]
    assert np.array_equal(cells[0], first[0, :, :, 0])
    assert np.array_equal(cells[7], last[0, :, :, 0])
    steps = np.abs(np.diff(cells.astype(int), axis=0)).mean((1, 2))
    assert steps.max() < np.abs(cells[0].astype(int) - cells[7]).mean()  # no jump


def test_a_walk_over_labels(model: str, plain: str, tmp_path: Path) -> None:
    strip = np.asarray(
        Image.open(interpolate(model, tmp_path / "w.png", WalkOptions(labels=(0, 2), frames=3)))
    )
    cells = strip.reshape(56, 3, 56).transpose(1, 0, 2)[:, ::7, ::7]
    for cell, label in ((cells[0], 0), (cells[2], 2)):
        assert np.array_equal(cell, models.load_generator(model).sample(1, 0, label)[0][0, :, :, 0])
    assert not np.array_equal(cells[1], cells[0])
    film = Image.open(interpolate(plain, tmp_path / "w.gif", WalkOptions(seeds=(1, 2), frames=6, loop=True)))
    assert film.n_frames == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": (1,)}, "1 seeds and 0 labels make no walk"),
        ({"seeds": (1, 2, 3), "labels": (0, 1)}, "3 seeds and 2 labels make no walk"),
        ({"labels": (0, 3)}, r"label lies in \[0, 2\]"),
        ({"seeds": (0, -1)}, "seed = -1 is out of range"),
        ({"frames": 1}, "--frames 1 is out of range"),
    ],
)
def test_impossible_walks_are_refused(
    model: str, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, RegistryError), match=message):
        interpolate(model, tmp_path / "w.png", WalkOptions(**arguments))


# Exports


@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_an_export_is_the_packed_file(model: str, format: str, tmp_path: Path) -> None:
    out, _ = models.export(model, tmp_path / f"g.{format}", format=format)
    assert out.read_bytes() == (SweepPaths(Path(model)).packed / f"generator.{format}").read_bytes()
    with pytest.raises(RegistryError, match="--format pickle is unknown"):
        models.export(model, None, format="pickle")


def test_onnx_without_its_packages_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RegistryError, match=r"pip install 'gansweep\[onnx\]'"):
        models.export(model, tmp_path / "g.onnx", format="onnx")
