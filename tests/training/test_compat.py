"""torch's private interfaces: each is there, and `_compat` alone uses them."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path

import pytest
import torch

PACKAGE = Path(__file__).parents[2] / "pipeline" / "training"
COMPAT = PACKAGE / "_compat.py"  # read, not imported: the import fails where torch lacks one
PRIVATE = re.compile(r"torch(?:\.\w+)*\._\w+(?:\.\w+)*|from torch[\w.]* import .*\b_\w+")


def used(path: Path) -> list[str]:
    """The dotted names of torch's private interfaces in a file's code, not in its comments' backquotes."""
    found = PRIVATE.findall(re.sub(r"`.*?`", "", path.read_text(encoding="utf-8")))
    return sorted(set(found))


def lacks(name: str) -> bool:
    return reduce(lambda value, part: getattr(value, part, None), name.split(".")[1:], torch) is None


@pytest.mark.parametrize("name", used(COMPAT))
def test_torch_has_what_training_uses_of_its_private_interfaces(name: str) -> None:
    if name.startswith("torch._C._cuda_") and not torch.backends.cuda.is_built():
        pytest.skip("torch was built without CUDA")
    assert not lacks(name), f"torch {torch.__version__} lacks {name}: give {COMPAT.name} another way"


def test_the_names_are_found() -> None:
    assert {"torch._foreach_norm", "torch.nn.modules.batchnorm._BatchNorm"} <= set(used(COMPAT))
    assert "torch._C._cuda_releasePool" in used(COMPAT)
    assert lacks("torch._no_such_function")


def test_no_other_file_of_training_uses_them() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if path != COMPAT]
    assert {path.name: used(path) for path in others if used(path)} == {}
