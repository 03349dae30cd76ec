"""Extractors: which one, trained how, cached where, refused when."""

from __future__ import annotations

import pickle
import threading
import urllib.error

import numpy as np
import pytest
import torch

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics import classifier, extractors
from pipeline.metrics.precision import PARTS, exact, torch_state_lock


def images(n=80, size=8, channels=1, classes=2, seed=0) -> Dataset:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    labels = np.arange(n) % classes if classes else None
    names = tuple(str(i) for i in range(classes))
    held = None if labels is None else labels[:20]
    return Dataset("made", pixels, pixels[:20], labels, held, names, f"{seed:08x}{size:04x}{channels:04x}", 0)


@pytest.fixture(autouse=True)
def one_thread():
    """Small images on busy cores: a second thread only waits."""
    with classifier.one_thread():
        yield


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(classifier, "_STEPS", 12)


@pytest.mark.parametrize(
    ("size", "channels", "classes", "wanted"),
    [(8, 1, 2, "classifier"), (32, 1, 2, "classifier"), (33, 1, 2, "inception"), (8, 3, 2, "inception"),
     (8, 1, 0, "inception")],
)  # fmt: skip
def test_auto_looks_at_the_data_alone(size, channels, classes, wanted):
    assert (
        extractors.resolve_extractor("auto", images(size=size, channels=channels, classes=classes)) == wanted
    )


def test_unknown_name_is_told_the_nearest():
    with pytest.raises(EvaluatorError, match=r"one of auto, classifier.*'inceptoin'|inceptoin.*inception"):
        extractors.resolve_extractor("inceptoin", images())


def test_classifier_of_unlabelled_images_is_refused():
    with pytest.raises(EvaluatorError, match="needs labelled images.*--extractor pixels"):
        extractors.build_extractor("classifier", images(classes=0))


@pytest.mark.parametrize("threads", [1, 2])
def test_training_is_deterministic_and_leaves_the_process_alone(quick, tmp_path, threads):
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(threads)
    try:
        hashes = {
            extractors.build_extractor("classifier", images(), cache=tmp_path / str(i)).hash for i in range(2)
        }
        torch.rand(1)
        hashes.add(extractors.build_extractor("auto", images(), cache=tmp_path / "third").hash)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    expected = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    torch.rand(1)
    assert torch.equal(torch.random.get_rng_state(), expected)
    with classifier.one_thread():
        net = classifier.train_classifier(images())
    assert hashes == {extractors._hash(classifier.VERSION, net.state_dict())}


def test_other_images_give_another_hash(quick, tmp_path):
    first, second = (extractors.build_extractor("classifier", images(seed=s), cache=tmp_path) for s in (0, 1))
    assert first.hash != second.hash


def test_cached_once_and_mended_when_damaged(quick, tmp_path):
    said: list[str] = []
    one = extractors.build_extractor("classifier", images(), cache=tmp_path, say=said.append)
    two = extractors.build_extractor("classifier", images(), cache=tmp_path, say=said.append)
    assert len(said) == 1
    assert one.hash == two.hash
    (file,) = (tmp_path / "extractors").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    three = extractors.build_extractor("classifier", images(), cache=tmp_path, say=said.append)
    assert len(said) == 2
    assert three.hash == one.hash


def test_cache_that_cannot_be_written_costs_only_time(quick, tmp_path):
    (tmp_path / "extractors").write_text("a file where a folder should be")
    said: list[str] = []
    assert extractors.build_extractor("classifier", images(), cache=tmp_path, say=said.append).dim == 64
    assert "not cached" in said[-1]


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 3), (28, 1), (64, 3)])
def test_features_of_any_size_do_not_depend_on_the_batch(quick, tmp_path, size, channels):
    data = images(size=size, channels=channels)
    extractor = extractors.build_extractor("classifier", data, cache=tmp_path)
    pixels = torch.from_numpy(data.train)
    whole = extractor(pixels)
    assert whole.shape == (80, 64)
    assert whole.dtype == torch.float32
    for batch in (1, 7, 33):
        torch.testing.assert_close(torch.cat([extractor(b) for b in pixels.split(batch)]), whole)
    assert torch.allclose(whole.double().var(0).sum(), torch.tensor(100.0).double(), rtol=1e-4)


def test_copies_are_independent_and_pickle(quick, tmp_path):
    extractor = extractors.build_extractor("classifier", images(), cache=tmp_path)
    pixels = torch.from_numpy(images().train)
    moved, shipped = extractor.to("cpu"), pickle.loads(pickle.dumps(extractor))
    assert moved.net is not extractor.net
    assert moved.hash == shipped.hash == extractor.hash
    assert torch.equal(moved(pixels), shipped(pixels))


def test_autocast_around_it_changes_nothing(quick, tmp_path):
    extractor = extractors.build_extractor("classifier", images(), cache=tmp_path)
    pixels = torch.from_numpy(images().train)
    plain = extractor(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor(pixels), plain)


# ---- blocks


def blocks_of(extractor, data, monkeypatch):
    """The sizes of the blocks that the network gets of 4,100 images."""
    sizes, few = [], torch.from_numpy(data.train[:1])
    monkeypatch.setattr(
        extractor, "_forward", lambda block: sizes.append(len(block)) or block.flatten(1)[:, :1]
    )
    extractor(few.expand(4100, -1, -1, -1))
    return sizes


def test_a_cpu_keeps_its_blocks(quick, tmp_path, monkeypatch):
    extractor = extractors.build_extractor("classifier", images(), cache=tmp_path)
    assert blocks_of(extractor, images(), monkeypatch) == [500] * 8 + [100]


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [("classifier", 28, (2000, 500)), ("classifier", 32, (2000, 500)), ("classifier", 40, (1280, 500)),
     ("classifier", 256, (500, 500)), ("inception", 256, (250, 50))],
)  # fmt: skip
def test_a_gpu_gets_larger_ones_while_its_memory_is_enough(name, size, found):
    extractor = extractors._NetExtractor(name, torch.nn.Linear(1, 1), "none", 1)
    assert extractor._blocks(torch.device("cuda"), torch.empty(1, size, size, 1)) == found


@pytest.mark.parametrize(("most", "sizes"), [(250, [250, 50]), (100, [250, 50, 50, 50, 50, 50, 50])])
def test_short_memory_makes_blocks_smaller(most, sizes):
    tried = []

    def act(block):
        tried.append(len(block))
        if len(block) > most:
            raise torch.OutOfMemoryError
        return block * 2

    given = torch.arange(300.0)[:, None]
    assert torch.equal(extractors._in_blocks(act, given, (250, 50)), given * 2)
    assert tried == sizes
    with pytest.raises(torch.OutOfMemoryError):
        extractors._in_blocks(act, given, (300, most + 1))


def test_features_do_not_depend_on_the_block(quick, tmp_path):
    extractor = extractors.build_extractor("classifier", images(n=600, size=28), cache=tmp_path)
    pixels = torch.from_numpy(images(n=600, size=28).train)
    small, large = (blocked(extractor, pixels, size) for size in (50, 250))
    assert float((small - large).norm() / large.norm()) < 1e-6


def blocked(extractor, pixels, size):
    extractor.block = size
    return extractor(pixels).double()


# ---- exact arithmetic


@pytest.fixture
def precision():
    """torch's defaults again afterwards, whatever a test has set."""
    yield
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
    for part, usual in zip(PARTS, ("tf32", "none", "none", "none"), strict=True):
        part.fp32_precision = usual


def set_old():
    torch.set_float32_matmul_precision("high")


def set_old_of_cublas():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True


def set_new():
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "tf32"


def set_new_of_parts():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def flags():
    read = [lambda part=part: part.fp32_precision for part in PARTS]
    read += [torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32]
    read += [lambda: torch.backends.cuda.matmul.allow_tf32, lambda: torch.backends.cudnn.benchmark]
    return [told(one) for one in read]


def told(read):
    try:
        return read()
    except RuntimeError:  # torch refuses to say where both ways have been used
        return "mixed"


@pytest.mark.parametrize("setting", [lambda: None, set_old, set_old_of_cublas, set_new, set_new_of_parts])
def test_tf32_is_off_whoever_has_set_it_and_how(precision, setting):
    setting()
    before = flags()
    for _ in range(2):
        with exact(torch.device("cuda")), exact(torch.device("cpu")):
            assert flags()[:4] == ["ieee"] * 4
            assert flags()[7] is False
            if "mixed" not in before:
                assert flags()[4:7] == ["highest", False, False]
        assert flags() == before


def test_flags_come_back_after_an_error(precision):
    set_old()
    before = flags()
    with pytest.raises(ZeroDivisionError), exact(torch.device("cpu")):
        raise ZeroDivisionError
    assert flags() == before


def test_exact_threads_take_turns(precision):
    """Flags belong to the process: two that put back what they found would leave one's for ever."""
    set_old()
    before, seen, inside = flags(), [], threading.Event()

    def hold():
        for _ in range(200):
            with exact(torch.device("cpu")):
                seen.append(flags()[:4])
        inside.set()

    threads = [threading.Thread(target=hold) for _ in range(3)]
    with torch_state_lock:
        for thread in threads:
            thread.start()
        assert not inside.wait(0.1)
        assert flags() == before
    for thread in threads:
        thread.join()
    assert seen == [["ieee"] * 4] * 600
    assert flags() == before


def test_pixels_are_area_means():
    data = images(size=16, channels=3, classes=0)
    extractor = extractors.build_extractor("pixels", data)
    found = extractor(torch.from_numpy(data.train)).view(-1, 3, 8, 8)
    blocks = data.train.reshape(-1, 8, 2, 8, 2, 3).mean((2, 4)) / 255
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), blocks, atol=1e-6)
    assert extractor.dim == 192
    assert extractor.hash != extractors.build_extractor("pixels", images(size=16, channels=1)).hash


def test_weights_belong_to_inception():
    with pytest.raises(EvaluatorError, match="--extractor inception"):
        extractors.build_extractor("pixels", images(), weights="some.pth")


def test_without_weights_and_network_the_choices_are_named(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    choices = r"--extractor-weights FILE \(weights-inception.*--extractor pixels.*--extractor classifier"
    with pytest.raises(EvaluatorError, match=choices):
        extractors.build_extractor("inception", images(), cache=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"no weights at all", None])
def test_wrong_weights_are_refused(tmp_path, content):
    path = tmp_path / "wrong.pth"
    if content is None:
        torch.save({"conv.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(EvaluatorError, match="wrong.pth.*weights-inception-2015-12-05-6726825d.pth"):
        extractors.build_extractor("inception", images(), weights=str(path))
    with pytest.raises(EvaluatorError, match="absent.pth"):
        extractors.build_extractor("inception", images(), weights=str(tmp_path / "absent.pth"))


def test_a_pickle_in_place_of_weights_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(EvaluatorError):
        extractors.build_extractor("inception", images(), weights=str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "ran").exists()


OWN = """
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


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path


@pytest.mark.parametrize(("name", "dim"), [("mine:net", 5), ("mine:sums", 1)])
def test_an_extractor_of_ones_own(own, name, dim):
    data = images()
    extractor = extractors.build_extractor(name, data, code=own)
    pixels = torch.from_numpy(data.train)
    found = extractor(pixels)
    assert (extractor.name, extractor.dim, found.shape, found.dtype) == (name, dim, (80, dim), torch.float32)
    (own / "mine.py").unlink()  # it travels without its file
    shipped, moved = pickle.loads(pickle.dumps(extractor)), extractor.to("cpu")
    assert torch.equal(shipped(pixels), found)
    assert torch.equal(moved(pixels), found)
    assert shipped.hash == moved.hash == extractor.hash


def test_its_hash_covers_its_file(own):
    first = extractors.build_extractor("mine:sums", images(), code=own).hash
    assert extractors.build_extractor("mine:sums", images(), code=own).hash == first
    assert extractors.build_extractor("mine:sums", images(channels=3, classes=0), code=own).hash != first
    (own / "mine.py").write_text(OWN + "# changed")
    assert extractors.build_extractor("mine:sums", images(), code=own).hash != first


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mine:none", r"shape \(4, 8, 8, 1\)"),
        ("mine:broken", "OSError: no weights"),
        ("mine:absent", "absent"),
        ("absent:net", r"absent\.py: No such file"),
        ("mine:neighbours", "other features for the same image"),
        ("dinov2", "module:function, which returns that network"),
        ("clip", "a function of yours"),
    ],
)
def test_an_extractor_that_is_none_is_refused(own, name, told):
    with pytest.raises(EvaluatorError, match=told):
        extractors.build_extractor(name, images(), code=own)


@pytest.mark.slow
def test_inception_from_a_local_file(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.save({}, tmp_path / "empty.pth")
    with monkeypatch.context() as patch:  # random weights stand in for the published ones
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        empty = tmp_path / "empty.pth"
        random = FeatureExtractorInceptionV3("r", ["2048"], feature_extractor_weights_path=empty)
    grey = images(size=8)
    pixels = torch.from_numpy(grey.train[:4])
    rgb = pixels.permute(0, 3, 1, 2).repeat(1, 3, 1, 1)
    calibrate(random, rgb)
    torch.save(random.state_dict(), tmp_path / "weights.pth")
    extractor = extractors.build_extractor("inception", grey, weights=str(tmp_path / "weights.pth"))
    found, theirs = extractor(pixels), random(rgb)[0]
    assert found.shape == (4, 2048)
    assert theirs.std() > 0.01  # features that mean something
    torch.testing.assert_close(found, theirs, rtol=1e-3, atol=1e-3)
    assert extractor.hash == extractor.to("cpu").hash
    many = torch.from_numpy(images(n=100).train)
    small, large = (blocked(extractor, many, size) for size in (50, 250))
    assert float((small - large).norm() / large.norm()) < 1e-6


@torch.no_grad()
def calibrate(net, images):
    """Random weights whose activations have a scale: the default ones give features near 1e-8."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    net.train()(images)
    net.eval()


@pytest.mark.slow
def test_mnist_classifier_is_good(tmp_path):
    data = load_dataset("mnist5k")
    extractor = extractors.build_extractor("auto", data, cache=tmp_path)
    held = extractor(torch.from_numpy(data.held)) / extractor.net.scale
    accuracy = (extractor.net.classes(held).argmax(1).numpy() == data.held_labels).mean()
    found = extractor(torch.from_numpy(data.train[:2000]))
    assert accuracy > 0.97
    assert (found.var(0) > 1e-3).all()  # no dead direction


def test_hash_covers_every_weight(quick, tmp_path):
    extractor = extractors.build_extractor("classifier", images(), cache=tmp_path)
    state = extractor.net.state_dict()
    for name in state:
        nudged = dict(state) | {name: state[name] + 1e-3}
        assert extractors._hash(classifier.VERSION, nudged) != extractor.hash
    assert extractors._hash("classifier-2", state) != extractor.hash
