"""The rule of the packages: each imports only those before it, and each framework has one home."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"

VOCABULARY = ["errors", "user_code", "tables", "config", "records"]
PACKAGES = [
    *["storage", "data", "metrics", "training", "search"],
    *["tracking", "serving", "reporting", "cluster", "sweep", "api", "cli"],
]
ORDER = [*VOCABULARY, *PACKAGES, "__main__"]
"""A name imports from those before it."""

HOMES = {
    "torch": {"data", "metrics", "training", "tracking"},
    "ray": {"cluster"},
    "optuna": {"search"},
    "mlflow": {"tracking"},
}
"""Who imports a framework: exactly these."""

WITHOUT_RAY = {"data", "metrics", "training"}
"""What trains and measures on a machine that has torch and numpy alone."""

NOT_ON_A_GPU_BOX = {"ray", "optuna", "mlflow", "pydantic", "tomlkit"}


def files(name: str) -> list[Path]:
    folder = PACKAGE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside functions, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def frameworks(name: str) -> set[str]:
    return {imported.split(".")[0] for path in files(name) for imported in imports(path)}


def test_the_packages_are_those_of_the_plan() -> None:
    no_modules = ("__init__.py", "__pycache__", "py.typed")
    entries = {p.stem for p in PACKAGE.iterdir() if p.name not in no_modules}
    assert entries == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_package_imports_only_those_before_it(name: str) -> None:
    allowed = {*ORDER[: ORDER.index(name)], name}
    later = {
        f"{path.relative_to(PACKAGE)}: {imported}"
        for path in files(name)
        for imported in imports(path)
        if imported.startswith("pipeline.") and imported.split(".")[1] in {*ORDER} - allowed
    }
    assert not later


@pytest.mark.parametrize("framework", HOMES)
def test_a_framework_is_imported_by_its_homes_alone(framework: str) -> None:
    assert {name for name in ORDER if framework in frameworks(name)} == HOMES[framework]


def test_training_needs_no_cluster_and_no_tracking() -> None:
    for name in (*VOCABULARY, "storage", *WITHOUT_RAY):
        assert not frameworks(name) & NOT_ON_A_GPU_BOX


def test_no_module_is_part_of_an_import_circle() -> None:
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: (imports(path) & set(modules)) - {name} for name, path in modules.items()}
    while leaves := [name for name, needed in graph.items() if not needed & set(graph)]:
        for name in leaves:
            del graph[name]
    assert sorted(graph) == []


def test_the_public_door_exports_and_starts_and_does_nothing_else() -> None:
    door = PACKAGE.parent / "gansweep"
    files = {"__init__.py", "__main__.py", "own_pipeline.py", "py.typed"}
    assert {path.name for path in door.iterdir()} - {"__pycache__"} == files
    for file in ("__init__.py", "__main__.py"):
        assert {name.split(".")[0] for name in imports(door / file)} <= {
            *("gansweep", "pipeline", "typing", "importlib", "__future__")
        }
    alone = imports(door / "own_pipeline.py")  # it runs before `pipeline` can be imported
    assert not {name.split(".")[0] for name in alone} & {"pipeline"}


def test_the_registered_model_stands_alone() -> None:
    """It is shipped inside every registered model and is run there without this package."""
    path = PACKAGE / "tracking" / "registry" / "registered_model.py"
    assert not {name.split(".")[0] for name in imports(path)} & {"pipeline", "ray", "optuna", "torchvision"}


def encoding_is_missing(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the encoding of whatever locale it runs in."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute):
        return "encoding" not in named and len(call.args) <= (name == "write_text")
    if name in ("open", "fdopen"):
        mode = named.get("mode") or next(iter(call.args[isinstance(call.func, ast.Name) :]), None)
        text = isinstance(mode, ast.Constant) and mode.value in ("r", "w", "a", "x", "r+", "w+", "a+")
        return text and "encoding" not in named
    return name in ("run", "Popen", "check_output") and "text" in named and "encoding" not in named


def test_text_is_utf8_whatever_the_locale() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Call) and encoding_is_missing(node)), f"{path}:{node.lineno}"


LONGEST_FUNCTION, LONGEST_FILE = 60, 350


def functions(path: Path) -> list[tuple[str, int]]:
    """Qualified names and lengths in lines, docstring included."""
    found: list[tuple[str, int]] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if not isinstance(child, ast.ClassDef):
                    found.append((prefix + child.name, (child.end_lineno or 0) - child.lineno + 1))
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def test_functions_and_files_stay_short() -> None:
    """A file above the limit gives its reason in its docstring: `Longer than 350 lines: ...`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        long = [f for f in functions(path) if f[1] > LONGEST_FUNCTION]
        assert not long, f"{path.name}: {long}"
        assert text.count("\n") <= LONGEST_FILE or f"Longer than {LONGEST_FILE} lines: " in text, path


MOST_PARAMETERS, MOST_UNTYPED_DICTS = 8, 40


def test_functions_take_few_parameters() -> None:
    """The commands apart: typer reads their options from the signature."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and path.parent.name != "cli":
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [one.arg for one in taken if one.arg not in ("self", "cls")]
                assert len(names) <= MOST_PARAMETERS, f"{path.name}: {node.name}"


def test_few_values_are_untyped_dicts() -> None:
    texts = (path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert sum(text.count("dict[str, Any]") for text in texts) <= MOST_UNTYPED_DICTS
