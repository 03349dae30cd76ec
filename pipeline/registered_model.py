"""A packed generator as it is read, vetted and sampled, with no need of the package that trained it.

Owns: the sampling rule (the same model, n and seed give the same bytes), the vetting of a packed folder, the
model that MLflow serves. Refuses: importing anything but torch, numpy and mlflow: this very file is shipped
inside every registered model and is run there alone.
"""

from __future__ import annotations

import hashlib
import json
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
"""Images per forward pass, always: a batch of another size may round differently in its last bit."""
MAX_SERVED = 65_536
"""Most images that one request to a served model may ask for."""

Images = NDArray[np.uint8]  # (n,H,W,C)
Labels = NDArray[np.int64]  # (n,)


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

    def __init__(self, folder: Path) -> None:
        check_files(folder)
        packed = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if packed.get("format") != FORMAT:
            raise Refused("the packing is of this version", seen=packed.get("format"), fix="update gansweep")
        self.facts: dict[str, Any] = packed["facts"]
        shape = packed["generator"]
        self.z_dim, self.classes = int(shape["z_dim"]), int(shape["classes"])
        self.size, self.channels = int(shape["size"]), int(shape["channels"])
        vet(folder / "generator.pt2")
        # Guards are Python source in the archive, and our inputs need none.
        self._forward = torch.export.load(folder / "generator.pt2").module(check_guards=False)

    def sample(
        self, n: int, seed: int = 0, label: int | None = None, truncation: float = 1.0
    ) -> tuple[Images, Labels | None]:
        """n images, uint8 (n,H,W,C), and their labels, int64 (n,), where the model is conditional.

        Image i depends on the model, seed, label, truncation and i alone. `label` None = drawn at random;
        `truncation` in (0, 2] multiplies z.

        Raises:
            Refused: n < 1, a seed below 0, a label that the model does not know, truncation out of bounds.
        """
        portions = self.stream(n, seed, label, BLOCK, truncation)
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
        self, n: int, seed: int = 0, label: int | None = None, batch: int = 256, truncation: float = 1.0
    ) -> Iterator[tuple[Images, Labels | None]]:
        """The images of `sample` in portions of `batch` (the last may be smaller)."""
        self._check(n, seed, label, truncation)
        if batch < 1:
            raise Refused("a batch holds at least 1 image", seen=batch, fix="ask for more")
        return self._portions(n, seed, label, batch, truncation)

    def _portions(
        self, n: int, seed: int, label: int | None, batch: int, truncation: float
    ) -> Iterator[tuple[Images, Labels | None]]:
        held: list[tuple[Images, Labels]] = []
        waiting = 0
        for index in range(-(-n // BLOCK)):
            images, labels = self._block(index, seed, label, truncation)
            keep = min(BLOCK, n - index * BLOCK)
            held.append((images[:keep], labels[:keep]))
            waiting += keep
            while waiting >= batch or (waiting and index == (n - 1) // BLOCK):
                images, labels = (np.concatenate(part) for part in zip(*held, strict=True))
                yield images[:batch], labels[:batch] if self.classes else None
                held = [(images[batch:], labels[batch:])]
                waiting = len(held[0][0])

    def _block(self, index: int, seed: int, label: int | None, truncation: float) -> tuple[Images, Labels]:
        random = np.random.default_rng([seed, index])
        z = random.standard_normal((BLOCK, self.z_dim), dtype=np.float32) * np.float32(truncation)
        labels = random.integers(max(self.classes, 1), size=BLOCK, dtype=np.int64)
        if label is not None:
            labels[:] = label
        inputs = [torch.from_numpy(z)] + ([torch.from_numpy(labels)] if self.classes else [])
        with torch.no_grad():
            images = self._forward(*inputs)
        levels = (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)  # as the fid was measured
        return levels.permute(0, 2, 3, 1).contiguous().numpy(), labels

    def _check(self, n: int, seed: int, label: int | None, truncation: float) -> None:
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
        """Read the packed folder that MLflow has fetched."""
        self.generator = PackedGenerator(Path(context.artifacts["generator"]))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Images:
        """n images, uint8 (n,H,W,C). Params: n=16, seed=0, label=-1 (any), truncation=1.0."""
        asked = {"n": 16, "seed": 0, "label": -1, "truncation": 1.0, **(params or {})}
        label = None if asked["label"] == -1 else int(asked["label"])
        try:
            if asked["n"] > MAX_SERVED:
                raise Refused(f"n is at most {MAX_SERVED}", seen=asked["n"], fix="ask in several requests")
            images, _ = self.generator.sample(
                int(asked["n"]), int(asked["seed"]), label, float(asked["truncation"])
            )
        except Refused as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return images


if not __package__:  # run by MLflow, not imported by gansweep
    mlflow.models.set_model(RegisteredModel())
