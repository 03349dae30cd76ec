"""A packed generator as one file for others: weights, exported program, ONNX.

Owns: the three formats, and the comparison of an ONNX file with torch. Refuses: an ONNX file that draws
something else.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import RegistryError
from pipeline.storage.files import replacing, write_bytes
from pipeline.tracking.registry import registered_model
from pipeline.tracking.registry.load import LoadedGenerator, from_packed

FORMATS = ("safetensors", "pt2", "onnx")
TOLERANCE = 1e-4
"""Largest difference of an output in [-1, 1] between ONNX Runtime and torch."""


def export_generator(packed: Path, out: Path, format: str) -> str:
    """Write the packed generator as one file; returns what is in it, in a line.

    safetensors: the weights alone. pt2: `torch.export` program. onnx: opset of torch's exporter, any batch.
    Inputs of both programs: z float32 (N,Z) [, labels int64 (N,)]; output float32 (N,C,H,W) in [-1,1].

    Raises:
        RegistryError: an unknown format; ONNX is not installed, or differs by more than `TOLERANCE`.
    """
    if format not in FORMATS:
        raise RegistryError(
            "--format is safetensors, pt2 or onnx", seen=format, fix="write --format safetensors"
        )
    generator = from_packed(packed)
    out.parent.mkdir(parents=True, exist_ok=True)
    labels = ", labels int64 (N,)" if generator.classes else ""
    images = f"float32 (N,{generator.channels},{generator.size},{generator.size})"
    if format == "onnx":
        difference = _onnx(packed, generator, out)
        told = f"z float32 (N,{generator.z_dim}){labels} -> {images}; differs from torch by {difference:.1g}"
    else:
        write_bytes(out, (packed / f"generator.{format}").read_bytes())
        program = f"z float32 (N,{generator.z_dim}){labels} -> {images}"
        told = program if format == "pt2" else "the weights, without code"
    return told


def _onnx(packed: Path, generator: LoadedGenerator, out: Path) -> float:
    runtime = _runtime()
    registered_model.vet(packed / "generator.pt2")
    program = torch.export.load(packed / "generator.pt2")
    inputs = _inputs(generator)
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
        difference = 0.0
        module = program.module(check_guards=False)
        for few in (inputs, [value[:1] for value in inputs]):  # any number of images
            found = session.run(None, dict(zip([i.name for i in session.get_inputs()], few, strict=True)))[0]
            with torch.no_grad():
                wanted = module(*map(torch.from_numpy, few)).numpy()
            difference = max(difference, float(np.abs(found - wanted).max()))
        if not difference <= TOLERANCE:
            raise RegistryError(
                f"ONNX Runtime and torch differ by at most {TOLERANCE:g}",
                seen=f"{difference:.2g}",
                fix="export it as pt2",
            )
    return difference


def _inputs(generator: LoadedGenerator, n: int = 64) -> list[Any]:
    z, labels = generator.latents(n, 3)
    return [z] if labels is None else [z, labels]


def _runtime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RegistryError(
            "ONNX is written with onnx, onnxscript and onnxruntime",
            seen=str(error),
            fix="pip install 'gansweep[onnx]', or --format pt2",
        ) from error
    return onnxruntime


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter talks to everyone about everything."""
    logger = logging.getLogger("torch.onnx")
    before, logger.level = logger.level, logging.ERROR
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.level = before
