"""`gansweep init`: the file is valid, is the space that `run` would choose, and is never replaced."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from images import noise, write_folder, write_npz
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config import TrialConfig
from pipeline.errors import ConfigError
from pipeline.metrics.loading import load_images
from pipeline.search.space.builtin import load_space
from pipeline.search.space.distribution import Distribution
from pipeline.search.space.parser import space_from_tables
from pipeline.search.space.ranges import read_distribution
from pipeline.search.space.writer import example_range
from pipeline.sweep.build_request import build_request
from pipeline.sweep.options import RunOptions
from pipeline.sweep.space_choice import facts_of, resolve_for_images

invoke = CliRunner().invoke


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("sources")
    labels = np.arange(240) % 2
    write_folder(root / "colour", noise((240, 32, 32, 3)), labels)
    write_folder(root / "few", noise((70, 40, 40, 3)))
    write_npz(root / "grey.npz", images=noise((100, 16, 16)))
    return {
        "digits": "digits",
        "colour": f"folder:{root / 'colour'}",
        "few": f"folder:{root / 'few'}",
        "grey": f"npz:{root / 'grey.npz'}",
    }


@pytest.mark.parametrize(
    ("name", "device"),
    [("digits", "cpu"), ("colour", "cpu"), ("few", "gpu"), ("grey", "gpu"), ("digits", "gpu")],
)
def test_the_file_is_the_space_that_run_chooses(
    name: str, device: str, sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(app, ["init", sources[name], "--device", device], catch_exceptions=False)
    assert done.exit_code == 0
    file = tmp_path / f"{name}.toml"
    written = load_space(str(file))

    options = RunOptions(data=sources[name])
    request = build_request(options)
    size = 32 if name == "few" else 0  # 40 px cannot be drawn by the networks: `run` prepares them at 32
    dataset = load_images(build_request(RunOptions(data=sources[name], image_size=size)).config)
    chosen = resolve_for_images(request, facts_of(dataset, device)).space
    assert written == chosen
    assert written.hash == chosen.hash

    named = build_request(RunOptions(data=sources[name], space=str(file)))
    assert resolve_for_images(named, facts_of(dataset, device)).space == chosen
    assert invoke(app, ["validate", str(file)]).exit_code == 0
    assert f"gansweep run --space {name}.toml --data {sources[name]} --time-budget 1h" in file.read_text()
    assert f"--space {name}.toml" in done.stdout


def test_each_parameter_has_its_meaning_and_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    invoke(app, ["init", "digits", "--device", "cpu", "--out", str(file)], catch_exceptions=False)
    text = file.read_text()
    assert "# Adam learning rate of D (1e-07 to 1)\nlr_d = " in text
    assert "# its own range: the ratio of the two decides most\n" in text
    assert "[[enqueue]]  # the tuned point\n" in text
    assert "# images    1,797 images (179 held out), 8x8, grey\n" in text
    others = re.findall(r"^# (\w+ = {.*)$", text, re.MULTILINE)
    assert len(others) > 10
    tables = tomllib.loads(text)
    known = {**tables["fixed"], **tables["search"]}
    for line in others:
        ((name, table),) = tomllib.loads(line).items()
        assert name not in known
        search = {**tables["search"], name: table}
        assert isinstance(space_from_tables({**tables, "search": search}).search[name], Distribution)


@pytest.mark.parametrize(
    "name", [name for name in TrialConfig.fields() if name not in ("kimg", "tick_kimg", "seed")]
)
def test_an_example_range_is_valid_for_every_parameter(name: str) -> None:
    field = TrialConfig.fields()[name]
    found = read_distribution(name, example_range(field).unwrap(), "x")
    assert found.contains(field.default)


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("mine")
    failed = invoke(app, ["init", "digits", "--out", str(file)])
    assert isinstance(failed.exception, ConfigError)
    assert "mine.toml exists" in str(failed.exception)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "--device tpu is unknown; did you mean 'gpu'?"),
        (["--out", "space.txt"], "write --out space.toml"),
        (["--out", "nowhere/space.toml"], "no writable folder for --out nowhere/space.toml"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], message: str) -> None:
    failed = invoke(app, ["init", "digits", *arguments])
    assert isinstance(failed.exception, ConfigError)
    assert message in str(failed.exception)
