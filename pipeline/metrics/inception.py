"""Inception of 2015-12-05, the network of published FIDs, as torch-fidelity has it; its weights on disk."""

from __future__ import annotations

import io
import logging
import urllib.request
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics.extractors import NetExtractor
from pipeline.metrics.weights import INCEPTION_FILE, inception_paths
from pipeline.storage.files import replacing
from pipeline.tables import EXTRACTORS

log = logging.getLogger(__name__)


class Inception(nn.Module):
    """torch-fidelity's network, layer 2048: images uint8 (N,H,W,C), C = 1 or 3, to features (N,2048)."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # Its constructor needs a file and would unpickle it: give it a copy of the state in memory.
        clean = io.BytesIO()
        torch.save(state, clean)
        clean.seek(0)
        net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=clean)
        self.net = net.to(memory_format=torch.channels_last)  # 1.6 times as fast on a CPU

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1))[0]
        return features


def inception_extractor(dataset: Dataset, *, weights: str, folder: Path) -> NetExtractor:
    """The network as an extractor, for images of any size.

    weights: its file; empty = the cached or downloaded one. folder: gansweep's cache of weights.

    Raises:
        EvaluatorError: there is no such file and no download, or it holds other weights.
    """
    path = Path(weights) if weights else _find_weights(folder)
    try:
        net = Inception(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:
        problem, seen = "the weights file {seen} cannot be loaded", f"{path} ({type(error).__name__})"
        rule = "Inception's weights are the file that torch-fidelity publishes"
        fix = f"give --extractor-weights the file {INCEPTION_FILE}"
        raise EvaluatorError(problem, rule=rule, seen=seen, fix=fix) from error
    return NetExtractor("inception", net, 2048, EXTRACTORS["inception"])


def _find_weights(folder: Path) -> Path:
    """The weights file in `folder` or in torch's cache; if neither has it, it is downloaded to `folder`."""
    for stored in inception_paths(folder):
        if stored.is_file():
            return stored
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3 as url

    stored = folder / INCEPTION_FILE
    log.info(f"downloading {INCEPTION_FILE} (90 MB, once)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(stored) as temporary, urllib.request.urlopen(url, timeout=20) as answer:
            temporary.write_bytes(answer.read())  # in one piece: an answer that is cut off raises
    except (OSError, HTTPException) as error:
        problem = "Inception's weights are not cached and cannot be downloaded ({seen})"
        rule, seen = "the inception extractor needs them", f"{type(error).__name__}: {error}"
        fix = f"give --extractor-weights FILE ({INCEPTION_FILE}), or use --extractor efficientnet, "
        fix += "whose weights come inside a package"
        raise EvaluatorError(problem, rule=rule, seen=seen, fix=fix) from error
    return stored
