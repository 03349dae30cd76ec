"""What follows a search whose winner could not be registered."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from pipeline.cli.main import app
from pipeline.config import SweepConfig
from pipeline.search.space.builtin import load_space
from pipeline.sweep.finalize import register_command
from pipeline.sweep.request import Request
from pipeline.tracking.tracking_uri import default_uri


def test_the_command_to_register_later_names_what_the_sweep_would_have(tmp_path: Path) -> None:
    request = Request(load_space("smoke"), SweepConfig(name="s"), tmp_path / "my runs", "faces")
    request = dataclasses.replace(request, promote="candidate")
    program, command, sweep, *options = shlex.split(register_command(request, default_uri(request.out)))
    assert program == "gansweep"
    assert command in {one.callback.__name__ for one in app.registered_commands if one.callback}
    assert sweep == request.location
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--name": "faces",
        "--promote": "candidate",
        "--tracking-uri": default_uri(request.out),
    }
