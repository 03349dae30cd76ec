"""docs/reference/ equals the code, and leaves nothing out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from markdown_pages import ROOT

from pipeline.cli.main import app
from pipeline.config import EFFECTIVE_WHEN, SweepConfig, SweepPaths, TrialConfig
from pipeline.storage.summary_file import SweepSummary, parse_summary
from pipeline.storage.typed_json import schema_of
from pipeline.training.checkpoint import TRIAL_FILES, Failure, TrialFolder, append_failure
from tools.reference import cli, sweep_options
from tools.reference.__main__ import main, stale, write
from tools.reference.markdown import code, table, text
from tools.reference.summary_json import EXAMPLE

REFERENCE = ROOT / "docs" / "reference"


def reference(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_the_pages_equal_the_code() -> None:
    assert stale() == [], "run python -m tools.reference"


def test_a_page_that_is_missing_changed_or_left_over_is_stale(tmp_path: Path) -> None:
    assert "index.md" in write(tmp_path)
    assert write(tmp_path) == []
    (tmp_path / "files.md").write_text("edited", encoding="utf-8")
    (tmp_path / "cli" / "run.md").unlink()
    (tmp_path / "cli" / "gone.md").write_text("of a command that is no more", encoding="utf-8")
    assert stale(tmp_path) == ["cli/gone.md", "cli/run.md", "files.md"]
    write(tmp_path)
    assert stale(tmp_path) == []


def test_the_check_names_stale_pages_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], tmp_path) == 0
    (tmp_path / "files.md").write_text("edited", encoding="utf-8")
    capsys.readouterr()
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[0] == "stale: docs/reference/files.md"
    assert (tmp_path / "files.md").read_text(encoding="utf-8") == "edited"
    assert main([], tmp_path) == main(["--check"], tmp_path) == 0


def test_every_command_has_a_page_with_each_of_its_flags() -> None:
    pages = cli.pages()
    flags = {"run": ["--space", "--time-budget", "-q"], "sample": ["-n", "--out"], "data": ["--json"]}
    assert len(pages) == len(app.registered_commands) + 1
    for command, expected in flags.items():
        options = re.findall(r"^\| `(-[^`]*)`", pages[f"cli/{command}.md"], re.MULTILINE)
        assert {*expected} <= {flag for option in options for flag in option.split(", ")}
    assert "MLFLOW_TRACKING_URI" in pages["cli/run.md"]


@pytest.mark.parametrize(
    ("page", "kind"), [("parameters.md", TrialConfig), ("sweep-options.md", SweepConfig)]
)
def test_every_field_is_a_row_under_a_heading(page: str, kind: type[TrialConfig] | type[SweepConfig]) -> None:
    content = reference(page)
    assert all(f"| `{name}` |" in content for name in kind.fields())
    assert all(f"## {heading.partition(': ')[0]}" in content for heading in kind.groups())
    assert [field for group in kind.groups().values() for field in group] == [*kind.fields().values()]


def test_conditions_are_of_fields_that_exist() -> None:
    named = [name for names in EFFECTIVE_WHEN.values() for name in names]
    of_conditions = {part.split()[0] for condition in EFFECTIVE_WHEN for part in condition.split(", ")}
    assert {*named, *of_conditions} <= TrialConfig.fields().keys()
    assert len(named) == len(set(named))


def test_every_field_of_a_sweep_names_its_option() -> None:
    without = [name for name, field in SweepConfig.fields().items() if not sweep_options.option_of(field)]
    assert without == ["finalists"]


def keys_of(value: Any) -> Iterator[str]:
    """Every key below a JSON value, except hyper-parameters and what a measurement holds."""
    for item in value if isinstance(value, list) else []:
        yield from keys_of(item)
    for key, item in value.items() if isinstance(value, dict) else []:
        yield key
        yield from keys_of(item) if key not in ("params", "measurement") else ()


def test_every_key_of_a_real_summary_is_described() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    page, content = reference("summary-json.md"), json.loads(text)
    assert parse_summary(text).finalists
    assert all(f"| `{key}` |" in page for key in keys_of(content))
    measured = content["finalists"][0]["measurement"].keys() - {"verdicts"}
    assert all(f"| `{key}` |" in reference("measurement.md") for key in measured)


def test_every_key_of_the_schema_has_a_description() -> None:
    def properties(schema: Any) -> Iterator[tuple[str, Any]]:
        for key, value in schema.items() if isinstance(schema, dict) else []:
            yield from value.items() if key == "properties" else ()
            yield from properties(value)
        for each in schema if isinstance(schema, list) else []:
            yield from properties(each)

    found = dict(properties(schema_of(SweepSummary)))
    assert len(found) > 50
    assert [key for key, schema in found.items() if not schema.get("description")] == []


def test_a_trials_folder_holds_nothing_else(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.save(1, {})
    folder.save_best(1, {})
    folder.append(factories.record())
    folder.save_grid(1, torch.zeros(4, 8, 8, 1, dtype=torch.uint8))
    append_failure(tmp_path, Failure(0, "hang", "silent", 1))
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    patterns = {name: name.replace("KIMG", r"\d+").replace("SHA", "[0-9a-f]{16}") for name in TRIAL_FILES}
    assert {next(n for n, p in patterns.items() if re.fullmatch(p, file)) for file in found} == {*TRIAL_FILES}


def test_every_file_of_a_sweep_has_a_meaning() -> None:
    files = SweepPaths.files()
    assert {"sweep.toml", "summary.json", "spool.jsonl", "trials", "finals", "champion"} <= files.keys()
    assert all(files.values())
    assert all(f"| `{name}` |" in reference("files.md") for name in files)


def test_what_would_break_a_table_does_not() -> None:
    row = table(("a", "b"), [(code("report|veto"), text("a | <b> `c|d` *e*"))]).splitlines()[-1]
    assert row == (r"| <code>report&#124;veto</code> | a &#124; &lt;b> <code>c&#124;d</code> \*e\* |")
    assert table(("a", "empty"), [("1", "")]) == "| a |\n| --- |\n| 1 |"
