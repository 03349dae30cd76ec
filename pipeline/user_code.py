"""The user's own code, `module:name` in the place of a built-in name: found, hashed, loaded, run here alone.

The module is a Python file beside the space or in the current folder; else one that is installed. A process
runs only the code that it was given by `use_code`, from exactly the bytes that were hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pipeline.errors import ConfigError, GansweepError, nearest

T = TypeVar("T")

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class UserCode:
    """The modules that a sweep names: picklable, so that workers get it as an argument.

    files: module -> content of its file. installed: module -> SHA-256 of the file that is installed here.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    installed: Mapping[str, str] = field(default_factory=dict)

    @property
    def hashes(self) -> dict[str, str]:
        """Module -> SHA-256 of its file."""
        return {**{module: _digest(content) for module, content in self.files.items()}, **self.installed}


_active = UserCode()


def is_user_code(name: str) -> bool:
    """Whether a name has the form `module:name`."""
    return _FORM.fullmatch(name) is not None


def read_code(names: Iterable[str], folders: Sequence[Path]) -> UserCode:
    """Read the modules of those of `names` that are `module:name`, without running anything of them.

    folders: where their files may lie, the first that has one counts.

    Raises:
        ConfigError: a module is in none of the folders and is not installed.
    """
    files: dict[str, bytes] = {}
    installed: dict[str, str] = {}
    for module in sorted({name.partition(":")[0] for name in names if is_user_code(name)}):
        content = _read_file(module, folders)
        if content is not None:
            files[module] = content
        elif digest := _installed_hash(module):
            installed[module] = digest
        else:
            known = sorted({file.stem for folder in folders for file in folder.glob("*.py")})
            rule = "module:name is in a file beside the space or in the current folder, or is installed"
            fix = nearest(module, known) if known else f"put {module}.py beside the space"
            raise ConfigError("cannot find {seen}", rule=rule, seen=f"{module}.py", fix=fix)
    return UserCode(files, installed)


def use_code(code: UserCode) -> None:
    """Allow this process to run exactly this code; `UserCode()` = none."""
    global _active
    _active = code


def module_hash(name: str) -> str:
    """SHA-256 of the file behind `module:name`, which `use_code` was given."""
    return _active.hashes[name.partition(":")[0]]


def load(name: str, rule: str) -> Any:
    """What `module:name` stands for.

    rule: what it must be, for the messages.

    Raises:
        ConfigError: the module was not given to `use_code`, cannot be imported, or has no such name.
    """
    module, _, attribute = name.partition(":")
    loaded = _load_module(module)
    # A module's own `__getattr__` may import another one, which fails.
    found = run(f"{name} cannot be loaded", module, lambda: getattr(loaded, attribute, None))
    if found is None:
        names = [n for n, v in vars(loaded).items() if callable(v) and not n.startswith("_")]
        fix = nearest(attribute, names) if names else f"define {attribute} in {module}.py"
        raise ConfigError(f"{module} has no {{seen}}", rule=rule, seen=attribute, fix=fix)
    return found


def run(problem: str, name: str, call: Callable[[], T]) -> T:
    """Call the user's code; an exception becomes a ConfigError with the line in the user's file.

    problem: what has failed, for the message. name: `module:name`.
    """
    module = name.partition(":")[0]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the command's own output
            return call()
    except GansweepError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        file = f"/{module.replace('.', '/')}.py"
        lines = [frame.lineno for frame in frames if f"/{frame.filename}".endswith(file)]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        seen = f"{type(error).__name__}: {' '.join(str(error).split())}"
        fix = f"correct {module}.py{where}"
        if module in _active.installed and not lines:
            fix = "name another, or one of your own that inherits from it"
        raise ConfigError(problem, seen=seen, fix=fix) from error


def _read_file(module: str, folders: Sequence[Path]) -> bytes | None:
    """The content of `module.py` in the first folder that has one; None where none has."""
    for path in (folder / f"{module}.py" for folder in folders if "." not in module):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            seen = f"{path}: {error.strerror}"
            raise ConfigError("cannot read {seen}", seen=seen, fix="make it readable") from error
    return None


def _installed_hash(module: str) -> str:
    """SHA-256 of an installed module's file, found without running the packages around it; "" = no file."""
    package, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # `__main__`
        return ""
    for name in inner:
        if spec is None or spec.submodule_search_locations is None:
            return ""
        spec = PathFinder.find_spec(f"{spec.name}.{name}", spec.submodule_search_locations)
    return _digest(Path(spec.origin).read_bytes()) if spec and spec.origin and spec.has_location else ""


def _load_module(module: str) -> ModuleType:
    if module in _active.installed:
        if _installed_hash(module) != _active.installed[module]:
            problem = "{seen} is another one on this machine, or missing"
            rule = "all machines of a sweep need the same version"
            raise ConfigError(problem, rule=rule, seen=module, fix="install the same version everywhere")
        return run(f"{module} cannot be imported", module, lambda: importlib.import_module(module))
    if module not in _active.files:
        rule = "only `run`, `resume` and `rerun` run the code that a sweep names"
        fix = "finish the sweep: its champion needs no code"
        raise ConfigError("{seen} cannot be loaded by this command", rule=rule, seen=module, fix=fix)
    # Exactly the bytes that were hashed, under a name that shadows no module, with no bytecode on disk.
    content, file = _active.files[module], f"/gansweep-user-code/{module}.py"
    name = f"_gansweep_user_{module}_{_digest(content)}"
    if name not in sys.modules:
        loaded = sys.modules[name] = ModuleType(name)  # where dataclasses and pickle search
        loaded.__file__ = file
        problem = f"{module}.py cannot be imported"
        try:
            run(problem, module, lambda: exec(compile(content, file, "exec"), vars(loaded)))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
