"""A packed generator: read, checked and sampled without the package that trained it.

Responsible for the sampling rule (the same model, n and seed give the same bytes), the check of a packed
folder, and the model that MLflow serves. Imports nothing but torch, numpy and mlflow.

Longer than 350 lines: this very file is shipped inside every registered model and runs there alone.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

FORMAT = 1
BLOCK = 32
"""Images whose latents come from one random stream, which (seed, index of the block) seeds."""
STEP = 512
"""`PackedGenerator.stream` starts at a multiple of this many images."""
MAX_SERVED = 65_536
"""Most images in one request to a served model."""
MAX_VALUES = 2**25
"""Most bytes of pixels in one request to a served model; as JSON they take four times as many."""

Images = NDArray[np.uint8]  # (n,H,W,C)
Labels = NDArray[np.int64]  # (n,)
Vectors = NDArray[np.float32]  # (n,d)


class PackedGeneratorError(ValueError):
    """The packed folder is damaged, or a request is impossible; made as `pipeline.errors.UserError` is."""

    def __init__(self, problem: str, *, rule: str = "", seen: object = None, fix: str) -> None:
        text = problem.replace("{seen}", str(seen))
        super().__init__(f"{text}{f' ({rule})' if rule else ''}; {fix}")


Error = Callable[..., Exception]
"""An exception with the arguments of `PackedGeneratorError`."""


class PackedGenerator:
    """A generator read from a packed folder (generator.pt2, facts.json, files.json).

    Attributes:
        facts: what it claims. z_dim: dimension of its latents. classes: 0 = unconditional.
        error: what this and the methods raise.

    Raises:
        PackedGeneratorError: a file is missing or altered, or the archive holds more than tensors and a plain
            graph.
    """

    error: ClassVar[Error] = PackedGeneratorError

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        check_files(folder, self.error)
        packed = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if packed.get("format") != FORMAT:
            raise self.error(
                "the packed generator has format {seen}",
                rule=f"this version reads format {FORMAT}",
                seen=packed.get("format"),
                fix="update gansweep",
            )
        self.facts: Mapping[str, Any] = packed["facts"]
        shape = packed["generator"]
        self.z_dim, self.classes = int(shape["z_dim"]), int(shape["classes"])
        self.size, self.channels = int(shape["size"]), int(shape["channels"])
        self.device = torch.device(device)
        check_archive(folder / "generator.pt2", self.error)
        program = torch.export.load(folder / "generator.pt2")
        if self.device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(self.device))
        # Guards are Python source in the archive; the inputs below need none.
        self._forward = program.module(check_guards=False)
        # Every forward pass has the same batch size: another one may round differently in the last bit.
        # On a CPU it shrinks as images grow, for a batch that is padded costs as much as a full one.
        width = 2 ** max(0, 17 - 2 * (self.size - 1).bit_length())
        self._width = min(128, max(4, width)) if self.device.type == "cpu" else STEP
        shares = np.array(self.facts.get("label_shares") or [1.0] * self.classes)
        self._label_cdf = np.cumsum(shares / shares.sum()) if len(shares) == self.classes > 0 else None

    def sample(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Images, Labels | None]:
        """n images, uint8 (n,H,W,C), and their labels, int64 (n,), where the model is conditional.

        Image i depends on the model, seed, label, truncation and i alone. label: None = random, with the
        class frequencies of the training images. truncation: in (0, 2], multiplies z.

        Raises:
            RegistryError: n < 1, a seed or truncation out of range, a label that the model lacks; a
                `PackedGeneratorError` where gansweep is not installed.
        """
        images, labels = zip(*self.stream(n, seed, label, STEP, truncation), strict=True)
        return np.concatenate(images), np.concatenate(labels) if self.classes else None

    def stream(
        self,
        n: int,
        seed: int = 0,
        label: int | None = None,
        batch: int = 256,
        truncation: float = 1.0,
        *,
        start: int = 0,
        balanced: bool = False,
    ) -> Iterator[tuple[Images, Labels | None]]:
        """Images `start` to n of `sample` in chunks of `batch` images (the last may be smaller).

        start: a multiple of `STEP`. balanced: label i is i modulo the classes instead of random.
        """
        self.check(n, seed, label, truncation)
        if batch < 1:
            raise _out_of_range(self.error, "batch", batch, "a batch holds at least 1 image", "use 256")
        if start < 0 or start % STEP:
            raise _out_of_range(self.error, "start", start, f"a multiple of {STEP}", "start at 0")
        if balanced and not self.classes:
            raise self.error(
                "the model has no labels to balance",
                rule="balanced labels need a conditional model",
                fix="leave it out",
            )

        def chunks() -> Iterator[tuple[Images, Labels | None]]:
            buffer: list[tuple[Images, Labels]] = []
            buffered = 0
            step = max(BLOCK, self._width)
            for first in range(start, n, step):
                last = min(n, first + step)
                z, labels = self._inputs(first, last, seed, label, truncation)
                if balanced:
                    labels = np.arange(first, last, dtype=np.int64) % self.classes
                buffer.append((self.render(z, labels), labels))
                buffered += last - first
                while buffered >= batch or (buffered and last == n):
                    images, labels = (np.concatenate(part) for part in zip(*buffer, strict=True))
                    yield images[:batch], labels[:batch] if self.classes else None
                    buffer = [(images[batch:], labels[batch:])]
                    buffered = len(buffer[0][0])

        return chunks()  # what is wrong has been raised before the first image is asked for

    def latents(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Vectors, Labels | None]:
        """Inputs of the images of `sample`: z float32 (n,Z), labels int64 (n,). Raises as `sample` does."""
        self.check(n, seed, label, truncation)
        z, labels = self._inputs(0, n, seed, label, truncation)
        return z, labels if self.classes else None

    def _inputs(
        self, start: int, n: int, seed: int, label: int | None, truncation: float
    ) -> tuple[Vectors, Labels]:
        """Latents of images `start`, a multiple of `BLOCK`, to n; labels of an unconditional one are 0."""
        blocks = [self._sample_block(block, seed) for block in range(start // BLOCK, -(-n // BLOCK))]
        z = np.concatenate([z for z, _ in blocks])[: n - start] * np.float32(truncation)
        labels = np.concatenate([labels for _, labels in blocks])[: n - start]
        return z, labels if label is None else np.full_like(labels, label)

    def render(self, z: Vectors, labels: Labels | None = None, embeddings: Vectors | None = None) -> Images:
        """The images uint8 (n,H,W,C) of latents (n,Z) and labels (n,), or embeddings (n,E) in their place.

        embeddings: rows of `label_embeddings`, or points between them.
        """
        batches = []
        for begin in range(0, len(z), self._width):
            batch = slice(begin, begin + self._width)
            inputs = [self._padded(z[batch])]
            if self.classes and embeddings is None and labels is not None:
                inputs.append(self._padded(labels[batch]))
            batches.append(
                self._forward_pass(inputs, None if embeddings is None else self._padded(embeddings[batch]))
            )
        return np.concatenate(batches)[: len(z)]

    def label_embeddings(self) -> Vectors:
        """The generator's embedding of each label, float32 (K,E).

        Raises:
            RegistryError: it is unconditional, or has no table of embeddings.
        """
        table = self._forward.get_parameter(self._embedding_table())
        return np.array(table.detach().cpu().numpy())

    def _embedding_table(self) -> str:
        for name, _ in self._forward.named_parameters():
            if self.classes and name.endswith("embed.weight"):
                return str(name)
        raise self.error(
            "the model has no embeddings of labels",
            rule="a walk between labels needs a conditional model that embeds them",
            fix="leave labels out",
        )

    def _sample_block(self, block: int, seed: int) -> tuple[Vectors, Labels]:
        rng = np.random.default_rng([seed, block])
        z = rng.standard_normal((BLOCK, self.z_dim), dtype=np.float32)
        if self._label_cdf is None:
            return z, np.zeros(BLOCK, np.int64)
        labels = np.searchsorted(self._label_cdf, rng.random(BLOCK), side="right")
        return z, np.minimum(labels, self.classes - 1).astype(np.int64)

    def _padded(self, values: NDArray[Any]) -> torch.Tensor:
        padding = [(0, self._width - len(values)), *[(0, 0)] * (values.ndim - 1)]
        return torch.from_numpy(np.pad(values, padding)).to(self.device)

    def _forward_pass(self, inputs: list[torch.Tensor], embeddings: torch.Tensor | None) -> Images:
        with torch.no_grad():
            if embeddings is None:
                images = self._forward(*inputs)
            else:  # row i of the embedding table becomes the embedding of image i
                inputs.append(torch.arange(len(embeddings), device=self.device))
                images = torch.func.functional_call(
                    self._forward, {self._embedding_table(): embeddings}, tuple(inputs)
                )
            levels = images.float().mul(127.5).add_(128).clamp_(0, 255)  # as in the measurement of the fid
            pixels: Images = levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return pixels

    def check(self, n: int, seed: int, label: int | None, truncation: float) -> None:
        """Raise `error` unless `sample` accepts these arguments."""
        if label is not None and not self.classes:
            raise self.error(
                "label {seen} was given for an unconditional model",
                rule="only a conditional model has labels",
                seen=label,
                fix="leave it out",
            )
        known = label is None or 0 <= label < self.classes
        label_rule = f"a label lies in [0, {self.classes - 1}]"
        rules = (
            ("n", n, n >= 1, "n is at least 1", "use -n 16"),
            ("seed", seed, 0 <= seed < 2**63, "a seed lies in [0, 2^63)", "use --seed 0"),
            ("truncation", truncation, 0.0 < truncation <= 2.0, "truncation lies in (0, 2]", "use 1.0"),
            ("label", label, known, label_rule, "choose one of these"),
        )
        for name, value, valid, rule, fix in rules:
            if not valid:
                raise _out_of_range(self.error, name, value, rule, fix)


def _out_of_range(error: Error, name: str, value: object, rule: str, fix: str) -> Exception:
    return error(f"{name} = {{seen}} is out of range", rule=rule, seen=value, fix=fix)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, error: Error = PackedGeneratorError) -> None:
    """Raise `error` unless the files named in files.json have the hashes given there."""
    try:
        expected: dict[str, str] = json.loads((folder / "files.json").read_text(encoding="utf-8"))
        wrong = [n for n in expected if Path(n).name != n or sha256_of(folder / n) != expected[n]]
    except (OSError, ValueError) as cause:
        raise error(
            "the packed generator is incomplete: {seen}",
            rule="all its files must be there",
            seen=cause,
            fix="register it again",
        ) from cause
    if wrong or not {"generator.pt2", "facts.json"} <= expected.keys():
        raise error(
            "the model's files were altered: {seen}",
            rule="they must have the hashes that they were packed with",
            seen=", ".join(wrong) or "files.json",
            fix="do not use it; register the generator again",
        )


# An exported program loads tensors as raw bytes, but may also hold pickles, compiled code and expressions
# that torch evaluates. Archives that `pack_generator` writes hold none of these, so any other is not loaded.
_RECORDS = re.compile(
    r"models/\w+\.json|data/weights/(weight_\d+|\w+_weights_config\.json)|byteorder|archive_(format|version)"
    r"|data/constants/(tensor_\d+|\w+_constants_config\.json)|data/sample_inputs/\w+\.pt"
    r"|\.data/(version|serialization_id)"
)
_EXPRESSION = re.compile(
    r"(Symbol\('[a-z]+\d+'(, (positive|integer|nonnegative)=(True|False))*\)"
    r"|Integer\(|Add\(|Mul\(|Pow\(|FloorDiv\(|Mod\(|[-+*(), \d])*"
)
_TARGET = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|neg|eq|ge|le|getitem)")


def check_archive(archive: Path, error: Error = PackedGeneratorError) -> None:
    """Raise `error` unless the .pt2 archive holds raw tensors and a plain graph, nothing that could run."""
    try:
        found = _forbidden(archive)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as cause:
        found = str(cause) or type(cause).__name__
    if found:
        raise error(
            "the generator's archive is not safe to load: {seen}",
            rule="it must hold tensors and a plain graph, nothing that could run",
            seen=found,
            fix="do not use it; register the generator again",
        )


def _forbidden(archive: Path) -> str:
    """The first entry or value in the archive that is not allowed; empty if there is none."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.filename.partition("/")[2]  # the first part is the archive's own name
            if not _RECORDS.fullmatch(name) or (name.startswith("data/sample_inputs") and info.file_size):
                return info.filename
            if name.endswith(".json"):
                found = _forbidden_value(json.loads(opened.read(info)))
                if found:
                    return f"{info.filename}: {found}"
    return ""


def _forbidden_value(value: Any) -> str:
    items = value if isinstance(value, list) else []
    if isinstance(value, dict):
        if value.get("use_pickle"):
            return "use_pickle"
        for key, pattern in (("expr_str", _EXPRESSION), ("target", _TARGET)):
            text = value.get(key)
            if isinstance(text, str) and not pattern.fullmatch(text):
                return f"{key} {text}"
        items = list(value.values())
    return next((found for item in items if (found := _forbidden_value(item))), "")


class RegisteredModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined, unused-ignore]
    """The generator as an MLflow model: requests are made by params; the input is ignored."""

    def load_context(self, context: Any) -> None:
        """Read the packed folder that MLflow has fetched, onto MLFLOW_DEFAULT_PREDICTION_DEVICE (cpu)."""
        device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or "cpu"
        self.generator = PackedGenerator(Path(context.artifacts["generator"]), device)
        # A JSON response is tens of thousands of small lists. For every few hundred of them the garbage
        # collector would traverse all that torch and mlflow have loaded; frozen objects are left out.
        gc.freeze()

    def predict(
        self, context: Any, model_input: np.ndarray, params: Mapping[str, Any] | None = None
    ) -> Images:
        """n images, uint8 (n,H,W,C). Params: n=16, seed=0, label=-1 (any), truncation=1.0."""
        request = {"n": 16, "seed": 0, "label": -1, "truncation": 1.0, **(params or {})}
        label = None if request["label"] == -1 else int(request["label"])
        most = min(MAX_SERVED, MAX_VALUES // (self.generator.size**2 * self.generator.channels))
        try:
            if request["n"] > most:
                fix = "send several requests with other seeds"
                raise _out_of_range(self.generator.error, "n", request["n"], f"n is at most {most}", fix)
            images, _ = self.generator.sample(
                int(request["n"]), int(request["seed"]), label, float(request["truncation"])
            )
        except PackedGeneratorError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return images


if not __package__:  # run by MLflow instead of imported by gansweep
    mlflow.models.set_model(RegisteredModel())
