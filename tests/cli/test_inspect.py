"""The commands that show a sweep: watch and explain."""

from __future__ import annotations

from pathlib import Path

import factories
from sweep_folders import write_running_sweep, write_summary
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import SweepError

invoke = CliRunner().invoke


def test_watch_shows_a_sweep_once_and_fails_if_it_failed(tmp_path: Path) -> None:
    sweep = write_running_sweep(tmp_path / "digits")
    assert "digits: running" in invoke(app, ["watch", "--once", str(sweep.root)]).stdout
    assert isinstance(invoke(app, ["watch", str(tmp_path / "nothing")]).exception, SweepError)
    write_summary(sweep, state="failed")
    assert invoke(app, ["watch", str(sweep.root)]).exit_code == 1


def test_explain_shows_the_sweep_or_a_trial_and_writes_the_next_space(tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    for n in range(4):
        folder = root / "trials" / str(n)
        folder.mkdir(parents=True)
        folder.joinpath("records.jsonl").write_text(factories.record(10, 30.0 + n).to_json() + "\n")
    events = [
        f'{{"event": "start", "trial": {n}, "params": {{"lr_g": {1e-3 * (n + 1)}}}}}\n' for n in range(4)
    ]
    (root / "spool.jsonl").write_text("".join(events))
    (root / "sweep.toml").write_text(
        '[sweep]\ndata = "folder:my photos"\n'
        "[space.fixed]\nkimg = 40\n[space.search]\nlr_g = { float = [1e-4, 1e-2] }\n"
    )
    explained = invoke(app, ["explain", str(root)])
    assert explained.exit_code == 0
    assert "Trial 0 leads" in explained.stdout
    assert "10 of 40 kimg" in invoke(app, ["explain", str(root), "3"]).stdout
    assert isinstance(invoke(app, ["explain", str(root), "9"]).exception, SweepError)
    target = tmp_path / "next.toml"
    written = invoke(app, ["explain", str(root), "--next", str(target)])
    assert (written.exit_code, f"--space {target} --data 'folder:my photos'" in written.stdout) == (0, True)
    assert invoke(app, ["validate", str(target)]).exit_code == 0
    assert invoke(app, ["explain", str(root), "--next", str(target)]).exit_code == 1, "it exists already"
