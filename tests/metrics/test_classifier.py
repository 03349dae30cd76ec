"""The classifier: deterministic training, its cache, its hash."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from noise import noise_dataset

from pipeline.data.dataset import load_dataset
from pipeline.metrics import extractors
from pipeline.tables import EXTRACTORS


@pytest.mark.parametrize("threads", [1, 2])
def test_training_is_deterministic_and_has_no_side_effects(short_training, tmp_path, threads):
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(threads)
    try:
        hashes = {
            extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path / str(i)).hash
            for i in range(2)
        }
        torch.rand(1)
        hashes.add(extractors.build_extractor("auto", noise_dataset(), cache=tmp_path / "third").hash)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    expected = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    torch.rand(1)
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert len(hashes) == 1


def test_other_images_give_another_hash(short_training, tmp_path):
    first, second = (
        extractors.build_extractor("classifier", noise_dataset(seed=s), cache=tmp_path) for s in (0, 1)
    )
    assert first.hash != second.hash


def test_the_weights_are_cached_and_a_damaged_file_is_replaced(short_training, tmp_path, caplog):
    caplog.set_level("INFO", "pipeline")
    one = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    two = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    assert caplog.text.count("training the classifier") == 1
    assert one.hash == two.hash
    (file,) = (tmp_path / "extractors").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    three = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    assert caplog.text.count("training the classifier") == 2
    assert three.hash == one.hash


def test_a_cache_that_cannot_be_written_is_logged(short_training, tmp_path, caplog):
    caplog.set_level("INFO", "pipeline")
    (tmp_path / "extractors").write_text("a file where a folder should be")
    assert extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path).dim == 64
    assert "not cached" in caplog.messages[-1]


def test_hash_covers_every_weight(short_training, tmp_path):
    extractor = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    (path,) = (tmp_path / "extractors").iterdir()
    state = extractor.net.state_dict()
    for name in state:
        torch.save(state | {name: state[name] + 1e-3}, path)
        changed = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
        assert changed.hash != extractor.hash, name


def test_hash_covers_the_version(short_training, tmp_path, monkeypatch):
    first = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    row = dataclasses.replace(EXTRACTORS["classifier"], version="classifier-2")
    monkeypatch.setitem(EXTRACTORS, "classifier", row)
    second = extractors.build_extractor("classifier", noise_dataset(), cache=tmp_path)
    assert second.hash != first.hash


@pytest.mark.slow
def test_the_classifier_of_mnist_is_accurate(tmp_path):
    data = load_dataset("mnist5k")
    extractor = extractors.build_extractor("auto", data, cache=tmp_path)
    held = extractor(torch.from_numpy(data.held)) / extractor.net.scale
    accuracy = (extractor.net.classes(held).argmax(1).numpy() == data.held_labels).mean()
    found = extractor(torch.from_numpy(data.train[:2000]))
    assert accuracy > 0.97
    assert (found.var(0) > 1e-3).all()  # no constant feature
