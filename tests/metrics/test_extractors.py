"""Extractors: their choice, blocks, copies; custom ones."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from noise import noise_dataset

from pipeline.errors import ConfigError, EvaluatorError, UserError
from pipeline.metrics import extractors, frechet
from pipeline.tables import EXTRACTORS, ExtractorRow
from pipeline.user_code import UserCode, read_code, use_code


@pytest.mark.parametrize(
    ("size", "channels", "classes", "wanted"),
    [(8, 1, 2, "classifier"), (32, 1, 2, "classifier"), (33, 1, 2, "efficientnet"), (8, 3, 2, "efficientnet"),
     (8, 1, 0, "efficientnet")],
)  # fmt: skip
def test_auto_depends_on_the_data_alone(size, channels, classes, wanted):
    assert (
        extractors.resolve_extractor("auto", noise_dataset(size=size, channels=channels, classes=classes))
        == wanted
    )


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(EvaluatorError, match="inceptoin.*one of auto, classifier.*did you mean 'inception'"):
        extractors.resolve_extractor("inceptoin", noise_dataset())


def test_the_classifier_needs_labels():
    with pytest.raises(
        EvaluatorError, match="noise has no labels.*needs labelled images.*--extractor efficientnet"
    ):
        extractors.build_extractor("classifier", noise_dataset(classes=0))


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 3), (28, 1), (64, 3)])
def test_features_of_any_size_do_not_depend_on_the_batch(short_training, tmp_path, size, channels):
    data = noise_dataset(size=size, channels=channels)
    extractor = extractors.build_extractor("classifier", data, cache=tmp_path)
    pixels = torch.from_numpy(data.train)
    whole = extractor(pixels)
    assert whole.shape == (80, 64)
    assert whole.dtype == torch.float32
    for batch in (1, 7, 33):
        torch.testing.assert_close(torch.cat([extractor(b) for b in pixels.split(batch)]), whole)
    assert torch.allclose(whole.double().var(0).sum(), torch.tensor(100.0).double(), rtol=1e-4)


def test_copies_are_independent_and_pickle(short_training, tmp_path):
    extractor = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    pixels = torch.from_numpy(noise_dataset().train)
    moved, unpickled = extractor.to("cpu"), pickle.loads(pickle.dumps(extractor))
    assert moved.net is not extractor.net
    assert moved.hash == unpickled.hash == extractor.hash
    assert torch.equal(moved(pixels), unpickled(pixels))


def test_autocast_changes_nothing(short_training, tmp_path):
    extractor = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    pixels = torch.from_numpy(noise_dataset().train)
    plain = extractor(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor(pixels), plain)


# ---- blocks


def blocks_of(extractor, data, monkeypatch):
    """The sizes of the blocks in which the network receives 4,100 images."""
    sizes, few = [], torch.from_numpy(data.train[:1])
    monkeypatch.setattr(
        extractor, "_forward", lambda block: sizes.append(len(block)) or block.flatten(1)[:, :1]
    )
    extractor(few.expand(4100, -1, -1, -1))
    return sizes


def test_blocks_on_a_cpu_are_constant(short_training, tmp_path, monkeypatch):
    extractor = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    assert blocks_of(extractor, noise_dataset(), monkeypatch) == [500] * 8 + [100]


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [("classifier", 28, (2000, 500)), ("classifier", 32, (2000, 500)), ("classifier", 40, (1280, 500)),
     ("classifier", 256, (500, 500)), ("inception", 256, (250, 50))],
)  # fmt: skip
def test_blocks_on_a_gpu_are_larger_as_far_as_memory_allows(name, size, found):
    extractor = extractors.NetExtractor(name, torch.nn.Linear(1, 1), 1, EXTRACTORS[name])
    assert extractor._blocks(torch.device("cuda"), torch.empty(1, size, size, 1)) == found


@pytest.mark.parametrize(("most", "sizes"), [(250, [250, 50]), (100, [250, 50, 50, 50, 50, 50, 50])])
def test_out_of_memory_makes_blocks_smaller(most, sizes):
    tried = []

    def extract(block):
        tried.append(len(block))
        if len(block) > most:
            raise torch.OutOfMemoryError
        return block * 2

    given = torch.arange(300.0)[:, None]
    assert torch.equal(extractors._in_blocks(extract, given, (250, 50)), given * 2)
    assert tried == sizes
    with pytest.raises(torch.OutOfMemoryError):
        extractors._in_blocks(extract, given, (300, most + 1))


def test_features_do_not_depend_on_the_block(short_training, tmp_path):
    extractor = extractors.build_extractor("classifier", noise_dataset(n=600, size=28), cache=tmp_path)
    pixels = torch.from_numpy(noise_dataset(n=600, size=28).train)
    features = []
    for extractor.block in (50, 250):
        features.append(extractor(pixels).double())
    assert float((features[0] - features[1]).norm() / features[1].norm()) < 1e-6


def test_pixels_are_area_means():
    data = noise_dataset(size=16, channels=3, classes=0)
    extractor = extractors.build_extractor("pixels", data)
    found = extractor(torch.from_numpy(data.train)).view(-1, 3, 8, 8)
    blocks = data.train.reshape(-1, 8, 2, 8, 2, 3).mean((2, 4)) / 255
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), blocks, atol=1e-6)
    assert extractor.dim == 192
    assert extractor.hash != extractors.build_extractor("pixels", noise_dataset(size=16, channels=1)).hash


def test_pixels_take_no_weights_file():
    with pytest.raises(
        EvaluatorError, match="some.pth cannot be used with the pixels.*dinov2 extractor takes one"
    ):
        extractors.build_extractor("pixels", noise_dataset(), weights="some.pth")


# ---- custom extractors

CUSTOM = """
import torch

def net(size, channels):
    return torch.nn.Sequential(Scale(), torch.nn.Flatten(), torch.nn.Linear(size * size * channels, 5))

class Scale(torch.nn.Module):
    def forward(self, images):
        return images / 255

def sums(size, channels):
    return lambda images: images.float().sum((1, 2))

def none(size, channels):
    return lambda images: images.float()

def broken(size, channels):
    raise OSError("no weights")

def neighbours(size, channels):
    return lambda images: images.float().flatten(1) - images.float().flatten(1).mean(0)
"""

OTHERS = """
import torch

def numbers(size, channels):
    return lambda images: images.flatten(1).tolist()

def many(size, channels):
    return lambda images: images.float().mean((1, 2)).expand(-1, 40_000)

def writes(size, channels):
    def extract(images):
        print("working")
        found = images.float().flatten(1)
        images.zero_()
        return found
    return extract

class Half(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(64).bfloat16())

    def forward(self, images):
        return images.flatten(1) * self.weights

def half(size, channels):
    return Half()

class Metadata(Half):
    def get_extra_state(self):
        return {}

def metadata(size, channels):
    return Metadata()

def late(size, channels):
    def extract(images):
        if len(images) > 4:
            raise ValueError("too many")
        return images.float().flatten(1)
    return extract

def fewer(size, channels):
    return lambda images: images[:4].float().flatten(1)
"""

HASHES = ["444d93049d8a66e1", "fc93fb70f0364d48"]


@pytest.fixture
def code(tmp_path):
    """A folder with the custom extractors above in mine.py and others.py, which may be run."""
    (tmp_path / "mine.py").write_text(CUSTOM)
    (tmp_path / "others.py").write_text(OTHERS)
    use_code(read_code(["mine:net", "others:late"], [tmp_path]))
    yield tmp_path
    use_code(UserCode())


@pytest.mark.parametrize(("name", "dim"), [("mine:net", 5), ("mine:sums", 1), ("others:half", 64)])
def test_a_custom_extractor(code, name, dim):
    data = noise_dataset()
    extractor = extractors.build_extractor(name, data)
    pixels = torch.from_numpy(data.train)
    found = extractor(pixels)
    assert (extractor.name, extractor.dim, found.shape, found.dtype) == (name, dim, (80, dim), torch.float32)
    unpickled, moved = pickle.loads(pickle.dumps(extractor)), extractor.to("cpu")
    assert torch.equal(unpickled(pixels), found)
    assert torch.equal(moved(pixels), found)
    assert unpickled.hash == moved.hash == extractor.hash


def test_a_custom_extractor_may_print_and_write_to_its_images(code, capsys):
    data = noise_dataset()
    before = data.train.copy()
    found = extractors.build_extractor("others:writes", data)(torch.from_numpy(data.train))
    assert torch.equal(found, torch.from_numpy(before).float().flatten(1))
    assert (data.train == before).all()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("others:late", r"ValueError: too many; correct others.py \(line"),
        ("others:fewer", r"shape \(4, 64\) for 80"),
    ],
)
def test_a_custom_extractor_that_fails_for_all_images_is_refused(code, tmp_path, name, problem):
    extractor = extractors.build_extractor(name, noise_dataset())
    with pytest.raises(UserError, match=f"{name} does not work.*{problem}"):
        frechet.build_evaluator(noise_dataset(), extractor, 50, tmp_path)


def test_the_hash_of_a_custom_extractor_covers_its_file(code):
    first = extractors.build_extractor("mine:sums", noise_dataset()).hash
    assert extractors.build_extractor("mine:sums", noise_dataset()).hash == first
    assert extractors.build_extractor("mine:sums", noise_dataset(channels=3, classes=0)).hash != first
    (code / "mine.py").write_text(CUSTOM + "# changed")
    use_code(read_code(["mine:net"], [code]))
    assert extractors.build_extractor("mine:sums", noise_dataset()).hash != first


def test_the_hash_of_a_custom_extractor_is_that_of_earlier_versions(code):
    """A sweep that began before must find the same evaluator."""
    found = [extractors.build_extractor(f"mine:{name}", noise_dataset()).hash for name in ("net", "sums")]
    assert found == HASHES


def test_another_file_does_not_unpickle(code):
    pickled = pickle.dumps(extractors.build_extractor("mine:sums", noise_dataset()))
    use_code(UserCode())
    with pytest.raises(ConfigError, match="mine cannot be loaded"):
        pickle.loads(pickled)
    (code / "mine.py").write_text(CUSTOM + "# changed")
    use_code(read_code(["mine:net"], [code]))
    with pytest.raises(EvaluatorError, match="mine:sums has other weights here"):
        pickle.loads(pickled)


def test_weights_drawn_when_the_file_is_loaded_are_the_same_everywhere(code):
    (code / "mine.py").write_text(
        "import torch\nweights = torch.randn(64, 3)\n"
        "def net(size, channels):\n    return lambda images: images.flatten(1).float() @ weights\n"
    )
    code = read_code(["mine:net"], [code])
    use_code(code)
    torch.manual_seed(5)
    first = extractors.build_extractor("mine:net", noise_dataset())
    torch.manual_seed(0)
    weights = torch.randn(64, 3)
    images = torch.from_numpy(noise_dataset().train)
    assert torch.equal(first(images), images.flatten(1).float() @ weights)


def test_a_row_adds_an_extractor(monkeypatch):
    row = ExtractorRow(target="pipeline.metrics.extractors:pixel_extractor", meaning="again")
    monkeypatch.setitem(EXTRACTORS, "again", row)
    assert "again (again), or module:function" in EXTRACTORS.describe()
    assert extractors.build_extractor("again", noise_dataset()).dim == 64


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mine:none", r"shape \(4, 8, 8, 1\)"),
        ("mine:broken", "OSError: no weights"),
        ("others:numbers", "returned a list, no tensor"),
        ("others:many", "returned 40000 features"),
        ("others:metadata", "does not work: AttributeError"),
        ("mine:absent", "mine has no absent"),
        ("absent:net", "absent cannot be loaded"),
        ("mine:neighbours", "other features for the same image"),
        ("clip", "clip is not built in.*must be a custom"),
    ],
)
def test_a_custom_extractor_that_does_not_work_is_refused(code, name, problem):
    with pytest.raises(UserError, match=problem):
        extractors.build_extractor(name, noise_dataset())
