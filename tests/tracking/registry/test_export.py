"""Export of a generator as ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import CLASSES, generator_of

from pipeline.errors import RegistryError
from pipeline.tracking.registry.export import export_generator
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_onnx_and_torch_agree(classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    packed = pack_generator(generator_of(classes), tmp_path / "packed", ModelMetadata())
    description = export_generator(packed, tmp_path / "g.onnx", "onnx")
    assert "differs from torch by" in description
    generator = LoadedGenerator(packed)
    z, labels = generator.latents(7, seed=9)
    inputs = {"z": z} if labels is None else {"z": z, "labels": labels}
    images = runtime.InferenceSession(str(tmp_path / "g.onnx")).run(None, inputs)[0]
    levels = (images * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.abs(levels.astype(int) - generator.render(z, labels)).max() <= 1
    if classes:  # an ONNX file with other outputs is not kept
        monkeypatch.setattr("pipeline.tracking.registry.export.TOLERANCE", -1.0)
        with pytest.raises(RegistryError, match="ONNX Runtime and torch differ by"):
            export_generator(packed, tmp_path / "bad.onnx", "onnx")
        assert not (tmp_path / "bad.onnx").exists()
