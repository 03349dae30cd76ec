"""GitHub's files, the citation, hooks and make targets are what their readers expect."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent

FILES = {
    "github-workflows": ".github/workflows/*.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "dependabot": ".github/dependabot.yml",
    "citation-file-format": "CITATION.cff",
}
"""Schema of check-jsonschema -> files."""


def _yaml(name: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("schema", FILES)
def test_a_file_follows_its_schema(schema: str) -> None:
    files = sorted(str(path) for path in ROOT.glob(FILES[schema]))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_workflows_test_every_python_that_is_promised() -> None:
    matrix = _yaml(".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]
    promised = [c.rsplit(" ", 1)[1] for c in _project()["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert matrix["python"] == promised
    assert _project()["requires-python"] == f">={promised[0]}"
    assert matrix["include"] == [{"python": promised[0], "versions": "lowest"}]


def test_every_dependency_has_a_lowest_version() -> None:
    """Without one, the lowest of `uv pip install --resolution lowest-direct` is the first ever published."""
    groups = [_project()["dependencies"], *_project()["optional-dependencies"].values()]
    assert [line for group in groups for line in group if not re.search(r"[>=]=\d", line)] == []


def test_workflows_and_documents_name_targets_that_make_has() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    readers = [
        *ROOT.glob(".github/workflows/*.yml"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / ".ci/run",
    ]
    named = {
        name
        for path in readers
        for name in re.findall(r"(?m)(?:^| |`)make ([a-z]+)\b(?=$|`| +#| INSTALL)", path.read_text())
    }
    assert {"setup", "sweep", "test", "check", "docs"} <= named <= targets


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"(?m)^\.PHONY: (.*)$", makefile)
    printed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [line.split()[1] for line in printed.splitlines()] == phony.split()


def test_make_sweep_takes_other_options() -> None:
    command = ["make", "--dry-run", "--always-make", "sweep", "SWEEP=--space smoke --trials 1"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == ".venv/bin/gansweep run --space smoke --trials 1"


def test_hooks_run_what_make_check_runs() -> None:
    """The programs of ./.venv, so that a hook's version is that of constraints.txt."""
    hooks = [hook for repo in _yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "check"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    checks = {
        tuple(line.split()[:2]) for line in printed.splitlines() if re.match(r"\.venv/bin/(ruff|mypy)", line)
    }
    assert checks < {tuple(hook["entry"].split()[:2]) for hook in hooks}


def test_a_bug_report_asks_for_what_is_needed_to_find_the_bug() -> None:
    body = _yaml(".github/ISSUE_TEMPLATE/bug.yml")["body"]
    asked = " ".join(part["attributes"].get("label", "") for part in body)
    for needed in ("command", "gansweep --version", "gansweep doctor", "sweep.toml", "summary.json"):
        assert needed in asked
