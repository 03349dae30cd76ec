"""Export of a packed generator as one file: weights, exported program or ONNX.

An ONNX file is compared with torch before it is kept.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import RegistryError
from pipeline.storage.files import replacing, write_bytes
from pipeline.tracking.registry.load import LoadedGenerator

FORMATS = ("safetensors", "pt2", "onnx")
TOLERANCE = 1e-4
"""Largest allowed difference between outputs, in [-1, 1], of ONNX Runtime and torch."""


def export_generator(packed: Path, out: Path, format: str) -> str:
    """Write the packed generator as one file; returns a line that describes its content.

    safetensors: the weights alone. pt2: `torch.export` program. onnx: of torch's opset, any batch size.
    Inputs of both programs: z float32 (N,Z) [, labels int64 (N,)]; output float32 (N,C,H,W) in [-1,1].

    Raises:
        RegistryError: an unknown format; ONNX is not installed, or differs by more than `TOLERANCE`.
    """
    if format not in FORMATS:
        raise RegistryError(
            "--format {seen} is unknown",
            rule="it must be safetensors, pt2 or onnx",
            seen=format,
            fix="write --format safetensors",
        )
    generator = LoadedGenerator(packed)
    out.parent.mkdir(parents=True, exist_ok=True)
    labels = ", labels int64 (N,)" if generator.classes else ""
    images = f"float32 (N,{generator.channels},{generator.size},{generator.size})"
    program = f"z float32 (N,{generator.z_dim}){labels} -> {images}"
    if format == "onnx":
        difference = _export_onnx(packed, generator, out)
        return f"{program}; differs from torch by {difference:.1g}"
    write_bytes(out, (packed / f"generator.{format}").read_bytes())
    return program if format == "pt2" else "the weights, without code"


def _export_onnx(packed: Path, generator: LoadedGenerator, out: Path) -> float:
    """Write `out` and return its largest difference from torch, at most `TOLERANCE`."""
    runtime = _import_onnxruntime()
    program = torch.export.load(packed / "generator.pt2")  # `generator` has checked it
    inputs = [value for value in generator.latents(64, 3) if value is not None]
    names = ["z", "labels"][: len(inputs)]
    with replacing(out) as temporary:
        with _quiet():
            torch.onnx.export(
                program,
                tuple(torch.from_numpy(value) for value in inputs),
                str(temporary),
                input_names=names,
                output_names=["images"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        session = runtime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        difference = _difference(session, program.module(check_guards=False), inputs)
        if not difference <= TOLERANCE:
            raise RegistryError(
                "the outputs of ONNX Runtime and torch differ by {seen}",
                rule=f"at most {TOLERANCE:g} is allowed",
                seen=f"{difference:.2g}",
                fix="export it as pt2",
            )
    return difference


def _difference(session: Any, module: torch.nn.Module, inputs: list[Any]) -> float:
    """Largest absolute difference of the outputs, for a whole batch of inputs and for a single one."""
    largest = 0.0
    names = [node.name for node in session.get_inputs()]
    for batch in (inputs, [value[:1] for value in inputs]):
        found = session.run(None, dict(zip(names, batch, strict=True)))[0]
        with torch.no_grad():
            expected = module(*map(torch.from_numpy, batch)).numpy()
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


def _import_onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RegistryError(
            "ONNX cannot be written",
            rule="onnx, onnxscript and onnxruntime are needed",
            seen=str(error),
            fix="pip install 'gansweep[onnx]', or --format pt2",
        ) from error
    return onnxruntime


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's log lines, warnings and prints."""
    logger = logging.getLogger("torch.onnx")
    before, logger.level = logger.level, logging.ERROR
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.level = before
