"""A packed generator as it is read, vetted and sampled, with no need of the package that trained it.

Owns: the sampling rule (the same model, n and seed give the same bytes), the vetting of a packed folder, the
model that MLflow serves. Refuses: importing anything but torch, numpy and mlflow: this very file is shipped
inside every registered model and is run there alone.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

FORMAT = 1
BLOCK = 32
"""Images that draw their latents from one stream of random numbers."""
STEP = 512
"""Where a stream may begin: at a multiple of this many images."""
MAX_SERVED = 65_536
"""Most images that one request to a served model may ask for,"""
MAX_VALUES = 2**25
"""and most bytes of pixels: written as JSON they are four times as many."""

Images = NDArray[np.uint8]  # (n,H,W,C)
Labels = NDArray[np.int64]  # (n,)
Vectors = NDArray[np.float32]  # (n,d)


class Refused(ValueError):
    """The packed folder or what is asked of it breaks a rule; carries rule, seen and fix."""

    def __init__(self, rule: str, *, seen: object, fix: str) -> None:
        super().__init__(f"{rule}; got {seen}; {fix}")
        self.rule, self.seen, self.fix = rule, seen, fix


class PackedGenerator:
    """A generator read from a packed folder (generator.pt2, facts.json, files.json).

    Attributes: z_dim; classes (0 = unconditional); size and channels of an image; facts of its training.

    Raises:
        Refused: a file is missing or altered, or the archive holds more than tensors and a plain graph.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        check_files(folder)
        packed = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if packed.get("format") != FORMAT:
            raise Refused("the packing is of this version", seen=packed.get("format"), fix="update gansweep")
        self.facts: dict[str, Any] = packed["facts"]
        shape = packed["generator"]
        self.z_dim, self.classes = int(shape["z_dim"]), int(shape["classes"])
        self.size, self.channels = int(shape["size"]), int(shape["channels"])
        self.device = torch.device(device)
        vet(folder / "generator.pt2")
        program = torch.export.load(folder / "generator.pt2")
        if self.device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(self.device))
        # Guards are Python source in the archive, and our inputs need none.
        self._forward = program.module(check_guards=False)
        # Always as many images per forward pass: another number may round differently in the last bit.
        fits = 2 ** max(
            0, 17 - 2 * (self.size - 1).bit_length()
        )  # on a CPU, where a part of one must be cheap
        self._width = min(128, max(4, fits)) if self.device.type == "cpu" else STEP
        shares = np.array(self.facts.get("label_shares") or [1.0] * self.classes)
        self._shares = np.cumsum(shares / shares.sum()) if len(shares) == self.classes > 0 else None

    def sample(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Images, Labels | None]:
        """n images, uint8 (n,H,W,C), and their labels, int64 (n,), where the model is conditional.

        Image i depends on the model, seed, label, truncation and i alone. `label` None = drawn as frequent
        as in the training images; `truncation` in (0, 2] multiplies z.

        Raises:
            Refused: n < 1, a seed below 0, a label that the model does not know, truncation out of bounds.
        """
        portions = self.stream(n, seed, label, STEP, truncation)
        images = np.empty((n, self.size, self.size, self.channels), np.uint8)
        labels = np.empty(n, np.int64)
        begin = 0
        for some, their in portions:
            images[begin : begin + len(some)] = some
            if their is not None:
                labels[begin : begin + len(some)] = their
            begin += len(some)
        return images, labels if self.classes else None

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
        """Images `start` to n of `sample` in portions of `batch` (the last may be smaller).

        start: a multiple of `STEP`. balanced: label i is i modulo the classes instead of drawn.
        """
        self.check(n, seed, label, truncation)
        if batch < 1:
            raise Refused("a batch holds at least 1 image", seen=batch, fix="ask for more")
        if start < 0 or start % STEP:
            raise Refused(f"a stream starts at a multiple of {STEP}", seen=start, fix="start at 0")
        if balanced and not self.classes:
            raise Refused("balanced labels want a conditional model", seen="no labels", fix="leave it out")
        return self._portions(n, seed, label, batch, truncation, start, balanced)

    def latents(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0, *, start: int = 0
    ) -> tuple[Vectors, Labels]:
        """What images `start` to n of `sample` are drawn from: z float32 (n-start,Z), labels int64.

        start: a multiple of `BLOCK`.
        """
        self.check(n, seed, label, truncation)
        blocks = [self._draw(block, seed) for block in range(start // BLOCK, -(-n // BLOCK))]
        z = np.concatenate([z for z, _ in blocks])[: n - start] * np.float32(truncation)
        labels = np.concatenate([labels for _, labels in blocks])[: n - start]
        return z, labels if label is None else np.full_like(labels, label)

    def render(self, z: Vectors, labels: Labels | None = None, mixed: Vectors | None = None) -> Images:
        """The images uint8 (n,H,W,C) of latents (n,Z) with labels (n,), or with vectors (n,E) in their place.

        mixed: points between the rows of `label_vectors`.
        """
        parts = []
        for begin in range(0, len(z), self._width):
            piece = slice(begin, begin + self._width)
            inputs = [self._padded(z[piece])]
            if self.classes and mixed is None and labels is not None:
                inputs.append(self._padded(labels[piece]))
            parts.append(self._pass(inputs, None if mixed is None else self._padded(mixed[piece])))
        return np.concatenate(parts)[: len(z)]

    def label_vectors(self) -> Vectors:
        """What the generator makes of each label: float32 (K,E).

        Raises:
            Refused: it knows no labels, or keeps no such table.
        """
        name = self._table()
        vectors: Vectors = self._forward.get_parameter(name).detach().cpu().numpy().copy()
        return vectors

    def _table(self) -> str:
        for name, _ in self._forward.named_parameters():
            if self.classes and name.endswith("embed.weight"):
                return str(name)
        raise Refused(
            "a walk between labels wants a conditional model that embeds them",
            seen="none",
            fix="leave labels out",
        )

    def _portions(
        self, n: int, seed: int, label: int | None, batch: int, truncation: float, start: int, balanced: bool
    ) -> Iterator[tuple[Images, Labels | None]]:
        held: list[tuple[Images, Labels]] = []
        waiting = 0
        step = max(BLOCK, self._width)
        for first in range(start, n, step):
            last = min(n, first + step)
            z, labels = self.latents(last, seed, label, truncation, start=first)
            if balanced:
                labels = np.arange(first, last, dtype=np.int64) % self.classes
            held.append((self.render(z, labels), labels))
            waiting += last - first
            while waiting >= batch or (waiting and last == n):
                images, labels = (np.concatenate(part) for part in zip(*held, strict=True))
                yield images[:batch], labels[:batch] if self.classes else None
                held = [(images[batch:], labels[batch:])]
                waiting = len(held[0][0])

    def _draw(self, block: int, seed: int) -> tuple[Vectors, Labels]:
        random = np.random.default_rng([seed, block])
        z = random.standard_normal((BLOCK, self.z_dim), dtype=np.float32)
        if self._shares is None:
            return z, np.zeros(BLOCK, np.int64)
        labels = np.searchsorted(self._shares, random.random(BLOCK), side="right")
        return z, np.minimum(labels, self.classes - 1).astype(np.int64)

    def _padded(self, values: NDArray[Any]) -> torch.Tensor:
        if len(values) < self._width:
            rest = np.zeros((self._width - len(values), *values.shape[1:]), values.dtype)
            values = np.concatenate([values, rest])
        return torch.from_numpy(values).to(self.device)

    def _pass(self, inputs: list[torch.Tensor], mixed: torch.Tensor | None) -> Images:
        with torch.no_grad():
            if mixed is None:
                images = self._forward(*inputs)
            else:  # row i of the table of labels becomes what image i wants
                inputs.append(torch.arange(len(mixed), device=self.device))
                images = torch.func.functional_call(self._forward, {self._table(): mixed}, tuple(inputs))
            levels = images.float().mul(127.5).add_(128).clamp_(0, 255)  # as the fid was measured
            pixels: Images = levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return pixels

    def check(self, n: int, seed: int, label: int | None, truncation: float) -> None:
        """Raise Refused unless `sample` can be asked this."""
        if n < 1:
            raise Refused("at least 1 image is asked for", seen=n, fix="use -n 16")
        if not 0 <= seed < 2**63:
            raise Refused("a seed lies in [0, 2^63)", seen=seed, fix="use --seed 0")
        if not 0.0 < truncation <= 2.0:
            raise Refused("truncation lies in (0, 2]", seen=truncation, fix="1.0 is the full variety")
        if label is not None and not self.classes:
            raise Refused("a label is asked of a conditional model only", seen=label, fix="leave it out")
        if label is not None and not 0 <= label < self.classes:
            raise Refused(f"a label lies in [0, {self.classes - 1}]", seen=label, fix="choose one of these")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path) -> None:
    """Raise Refused unless every file that files.json names is there with the hash it had when packed."""
    try:
        expected: dict[str, str] = json.loads((folder / "files.json").read_text(encoding="utf-8"))
        wrong = [n for n in expected if Path(n).name != n or digest(folder / n) != expected[n]]
    except (OSError, ValueError) as error:
        raise Refused("a packed generator is whole", seen=error, fix="register it again") from error
    if wrong or not {"generator.pt2", "facts.json"} <= expected.keys():
        raise Refused(
            "the files of a model are as they were packed",
            seen=f"altered: {', '.join(wrong) or 'files.json'}",
            fix="do not use it; register the generator again",
        )


# An exported program loads tensors as raw bytes, but may also hold pickles, compiled code and expressions
# that torch evaluates. Ours hold none of these, so an archive with any of them is not ours: it stays closed.
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


def vet(archive: Path) -> None:
    """Raise Refused unless the .pt2 archive holds raw tensors and a graph of plain tensor operations."""
    try:
        found = _foreign(archive)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        found = str(error) or type(error).__name__
    if found:
        raise Refused(
            "a generator's archive holds tensors and a plain graph, nothing that could run",
            seen=found,
            fix="do not use it; register the generator again",
        )


def _foreign(archive: Path) -> str:
    """The first thing in the archive that is not allowed; empty where there is none."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.filename.partition("/")[2]  # the first part is the archive's own name
            if not _RECORDS.fullmatch(name) or (name.startswith("data/sample_inputs") and info.file_size):
                return info.filename
            if name.endswith(".json"):
                found = _foreign_value(json.loads(opened.read(info)))
                if found:
                    return f"{info.filename}: {found}"
    return ""


def _foreign_value(value: Any) -> str:
    if isinstance(value, list):
        return next((found for item in value if (found := _foreign_value(item))), "")
    if not isinstance(value, dict):
        return ""
    if value.get("use_pickle"):
        return "use_pickle"
    for key, pattern in (("expr_str", _EXPRESSION), ("target", _TARGET)):
        text = value.get(key)
        if isinstance(text, str) and not pattern.fullmatch(text):
            return f"{key} {text}"
    return next((found for item in value.values() if (found := _foreign_value(item))), "")


class RegisteredModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined, unused-ignore]
    """The generator as an MLflow model: everything is asked by params, the input itself is not looked at."""

    def load_context(self, context: Any) -> None:
        """Read the packed folder that MLflow has fetched, onto MLFLOW_DEFAULT_PREDICTION_DEVICE (cpu)."""
        device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or "cpu"
        self.generator = PackedGenerator(Path(context.artifacts["generator"]), device)
        # An answer in JSON is tens of thousands of small lists, for every few hundred of which the collector
        # walks over all that torch and mlflow have loaded. That stays loaded: it need not look there.
        gc.freeze()

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Images:
        """n images, uint8 (n,H,W,C). Params: n=16, seed=0, label=-1 (any), truncation=1.0."""
        asked = {"n": 16, "seed": 0, "label": -1, "truncation": 1.0, **(params or {})}
        label = None if asked["label"] == -1 else int(asked["label"])
        most = min(MAX_SERVED, MAX_VALUES // (self.generator.size**2 * self.generator.channels))
        try:
            if asked["n"] > most:
                raise Refused(
                    f"n is at most {most}", seen=asked["n"], fix="ask in several requests with other seeds"
                )
            images, _ = self.generator.sample(
                int(asked["n"]), int(asked["seed"]), label, float(asked["truncation"])
            )
        except Refused as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return images


if not __package__:  # run by MLflow, not imported by gansweep
    mlflow.models.set_model(RegisteredModel())
