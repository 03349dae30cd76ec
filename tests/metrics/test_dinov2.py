"""DINOv2 with random weights under the published names."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics import dinov2
from pipeline.metrics.extractors import build_extractor
from pipeline.metrics.weights import DINOV2_FILES

DIM = 384


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """ViT-S as torch.hub has it: a grid of 37 x 37 positions and a mask token."""
    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    return {**state, "pos_embed": torch.randn(1, 1 + 37**2, DIM) / 10, "mask_token": torch.zeros(1, DIM)}


def test_a_file_in_the_cache_is_found_and_gives_class_tokens(
    published: dict[str, Tensor], dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "extractors" / DINOV2_FILES[2]
    path.parent.mkdir()
    torch.save(published, path)
    extractor = build_extractor("dinov2", dataset, cache=tmp_path)
    assert (extractor.name, extractor.dim) == ("dinov2", DIM)
    images = torch.from_numpy(dataset.train[:2])
    with torch.inference_mode():
        features = extractor.net(images)  # type: ignore[attr-defined]
    assert features.shape == (2, DIM)
    assert not torch.equal(features[0], features[1])
    inputs = torch.nn.functional.interpolate(
        images.permute(0, 3, 1, 2) / 255, (224, 224), mode="bicubic", antialias=True
    ).clamp(0, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    net = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224).eval()
    own = {name: tensor for name, tensor in published.items() if name != "mask_token"}
    net.load_state_dict({**own, "pos_embed": dinov2.resize_positions(published["pos_embed"])})
    with torch.inference_mode():
        expected = net((inputs.expand(-1, 3, -1, -1) - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)


def test_positions_of_the_grid_that_fits_are_kept() -> None:
    fitting = torch.randn(1, 257, 8)
    assert dinov2.resize_positions(fitting) is fitting
    ramp = torch.arange(37.0).repeat(37, 1).view(1, -1, 1)  # the column of each patch
    resized = dinov2.resize_positions(torch.cat([torch.zeros(1, 1, 1), ramp], 1))[0, 1:, 0].view(16, 16)
    centres = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    torch.testing.assert_close(resized[8, 1:-1], centres[1:-1], rtol=0, atol=0.05)


@pytest.mark.parametrize("change", ["register_tokens", "cls_token", "pos_embed", "norm.bias", "more"])
def test_other_weights_are_refused(
    published: dict[str, Tensor], dataset: Dataset, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "w.pth"
    torch.save({**published, change: torch.zeros(3)}, path)
    with pytest.raises(
        EvaluatorError, match=r"holds other weights|does not fit its weights at (norm.bias|more)"
    ):
        build_extractor("dinov2", dataset, weights=str(path))


@pytest.mark.parametrize(
    "state",
    [[], {}, {"cls_token": torch.zeros(1, 1, DIM)}, {"cls_token": torch.tensor(1.0)}, {"epoch": 3}],
    ids=["list", "empty", "no positions", "a number", "no tensor"],
)
def test_a_file_of_something_else_is_refused(dataset: Dataset, tmp_path: Path, state: object) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path)
    with pytest.raises(EvaluatorError, match="w.pth holds other weights"):
        build_extractor("dinov2", dataset, weights=str(path))


def test_no_pickle_is_loaded(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"cls_token": Path("x")}, path)
    with pytest.raises(EvaluatorError, match="cannot be loaded"):
        build_extractor("dinov2", dataset, weights=str(path))
