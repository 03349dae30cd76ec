"""Every block of code of docs/extend is run: the user's own by the checks of a run, the rows in a copy."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import torch
from extend_mistakes import MISTAKES
from torchvision.models import resnet18

from pipeline.cli.main import app
from pipeline.cli.submit import _parse
from pipeline.config import SweepConfig
from pipeline.errors import UserError
from pipeline.search.pruners import make_pruner
from pipeline.search.recipes import parse_recipe
from pipeline.search.samplers import make_sampler
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space
from pipeline.storage.summary_file import read_summary
from pipeline.sweep.build_request import build_request
from pipeline.sweep.inputs import load_inputs
from pipeline.training.trainer import Trainer
from pipeline.user_code import UserCode, read_code, use_code

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/extend").glob("*.md"))}
QUICK = ("--fid-samples", "64", "--second-extractor", "none", "--quiet")


@dataclass(frozen=True)
class Block:
    """A fenced block. title: of a file of the user's, a file of the repository, or `FILE: TABLE`."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    found = re.findall(r'(?ms)^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', PAGES[page])
    return [Block(*parts) for parts in found]


def commands(page: str, name: str) -> list[list[str]]:
    """The arguments of the page's commands `gansweep NAME ...`."""
    lines = [line for b in blocks(page) if b.language == "bash" for line in b.text.splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith(f"gansweep {name} ")]


def write_own(page: str, folder: Path) -> None:
    """The page's files of the user's own."""
    for block in blocks(page):
        if block.title and "/" not in block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with weights of ResNet-18; random ones, of the published names and shapes."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), folder / "weights" / "resnet18-f37072fd.pth")
    return folder


@pytest.fixture
def here(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    yield tmp_path
    use_code(UserCode())


def check_run(arguments: list[str], *more: str) -> tuple[Space, Trainer]:
    """All that `gansweep run` checks before it starts Ray; and a trainer of the first enqueued point."""
    quick = () if "--extractor" in arguments else ("--extractor", "pixels")
    request, inputs = load_inputs(build_request(_parse([*arguments, *quick, *QUICK, *more])), None)
    data, point = inputs.dataset, next(iter(request.space.enqueue), {})
    config = request.space.config(point)
    labels = torch.from_numpy(data.train_labels) if config.conditional else None
    return request.space, Trainer(config, torch.from_numpy(data.train), labels, len(data.classes))


def test_every_page_has_an_example_a_command_and_a_row() -> None:
    kinds = "loss penalty network extractor sampler pruner data-source metric recipe space".split()
    assert set(PAGES) == {"index", *kinds}
    for page in kinds:
        assert commands(page, "run")
        titles = [block.title for block in blocks(page)]
        assert any("/" in title for title in titles)
        assert any(title.startswith("tests/") for title in titles)
        assert f"({page}.md)" in PAGES["index"]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index"])
def test_the_example_passes_all_checks_and_trains(page: str, here: Path) -> None:
    write_own(page, here)
    for arguments in commands(page, "validate"):
        assert not app(["validate", *arguments], standalone_mode=False)
    for arguments in commands(page, "data"):
        assert not app(["data", *arguments], standalone_mode=False)
    for arguments in commands(page, "run"):
        _, trainer = check_run(arguments)
        before = [p.clone() for p in trainer.G.parameters()]
        trainer.advance(1, should_stop=lambda trainer=trainer: trainer.d_steps == 3)
        after = list(trainer.G.parameters())
        assert all(p.isfinite().all() for p in after)
        assert not all(p.equal(old) for p, old in zip(after, before, strict=True))


def test_each_loss_of_the_page_trains(here: Path) -> None:
    write_own("loss", here)
    for name in ("losses:rahinge", "losses:smoothed"):
        check_run(commands("loss", "run")[0], "--set", f"loss={name}")[1].advance(1)


@pytest.mark.parametrize(
    ("page", "old", "new", "expected"),
    [(page, *case) for page, cases in MISTAKES.items() for case in cases],
)
def test_a_mistake_is_one_line(page: str, old: str, new: str, expected: str, here: Path) -> None:
    write_own(page, here)
    own = next(block for block in blocks(page) if block.title and "/" not in block.title)
    assert old in own.text
    (here / own.title).write_text(own.text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        check_run(commands(page, "run")[0])
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("beta1", "betta1", "recipe dragan: betta1 is no field of the configuration"),
        ("[labelled]", "[auto]\ngamma = { size = 1 }\n[labelled]", "recipe dragan: [auto] cannot have"),
    ],
)
def test_a_mistake_in_a_recipe(old: str, new: str, expected: str) -> None:
    text = next(block.text for block in blocks("recipe") if block.title.startswith("search_spaces/"))
    assert expected in PAGES["recipe"]
    with pytest.raises(UserError, match=re.escape(expected)):
        parse_recipe(text.replace(old, new), "dragan")


def test_the_sampler_keeps_its_constraint(here: Path) -> None:
    write_own("sampler", here)
    use_code(read_code(["samplers:TwoTimescale"], [here]))
    rate = "{ float = [1e-5, 1e-2], log = true }"
    space = parse_space(f"[search]\nlr_g = {rate}\nlr_d = {rate}\n")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for number in range(20):  # from the eleventh on the estimators propose
        study.sampler = make_sampler(SweepConfig(sampler="samplers:TwoTimescale"), space, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = study.ask()
            lr_g, lr_d = (trial.suggest_float(name, 1e-5, 1e-2, log=True) for name in ("lr_g", "lr_d"))
        assert lr_g <= lr_d
        study.tell(trial, lr_d / lr_g)  # the best is where they meet


def test_the_pruner_stops_a_flat_curve(here: Path) -> None:
    write_own("pruner", here)
    use_code(read_code(["pruners:Plateau"], [here]))
    space = parse_space("[fixed]\nkimg = 100\ntick_kimg = 5\n[search]\nlr_g = { float = [1e-4, 1e-2] }\n")
    study = optuna.create_study(pruner=make_pruner("pruners:Plateau", space))
    falling, flat = study.ask(), study.ask()
    for tick in range(1, 6):
        falling.report(100 / tick, step=5 * tick)
        flat.report(100, step=5 * tick)
    assert [trial.should_prune() for trial in (falling, flat)] == [False, True]


# --- As rows of gansweep -------------------------------------------------------------------------


def apply(block: Block, copy: Path) -> None:
    """Add a block to a copy of the repository, as the page says."""
    file, _, table = block.title.partition(": ")
    path = copy / file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if table:
        code = "".join(f"    {line}\n" for line in block.text.splitlines())
        start = rf"^{table} = \w+\(.*?^    \{{\n"
        if table == "Measurement":
            start = r"^class Measurement:.*?(?=^    fid: float)"
        text, found = re.subn(f"(?ms)({start})", lambda match: match[1] + code, text, count=1)
        assert found == 1, block.title
    else:
        assert not text or path.name in ("losses.py", "generator_metrics.py"), f"{file} exists"
        text += f"\n\n{block.text}" if text else block.text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository to which every page has added its row, its code and its test."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("pipeline", "gansweep", "search_spaces", "tests/support"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, copy / name)
    for page in PAGES:
        for block in blocks(page):
            if "/" in block.title:
                apply(block, copy)
    return copy


def in_copy(copy: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "300"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=copy, env=environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tests_of_the_rows_pass_with_the_rows(patched: Path) -> None:
    files = [block.title for page in PAGES for block in blocks(page) if block.title.startswith("tests/")]
    printed = in_copy(patched, "pytest", "-q", "-p", "no:cacheprovider", *files)
    assert re.search(r"^\d+ passed", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_rows_are_offered_and_can_be_searched(patched: Path) -> None:
    """What `--help` and `validate` derive from the tables, by a space that names what the pages add."""
    offered = in_copy(patched, "pipeline", "run", "--help")
    for name in ("edges", "ttur", "plateau", "tiles"):
        assert re.search(rf"\b{name}\b", offered)
    (patched / "rows.toml").write_text(
        '[fixed]\narchitecture = "pixelshuffle"\nnorm_g = "none"\n[search]\n'
        'loss = { choice = ["hinge", "rahinge"] }\npenalty = { choice = ["lp", "none"] }\n'
    )
    printed = in_copy(patched, "pipeline", "validate", "rows.toml", "fewshot")
    assert "rows.toml: ok" in printed
    assert "fewshot: ok" in printed


# --- One sweep with one of each ------------------------------------------------------------------


def gansweep(*arguments: str) -> str:
    """The command in a process of its own; returns what it printed, in one line."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True, text=True, timeout=350,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sweep_with_one_of_each(here: Path) -> None:
    for page in PAGES:
        write_own(page, here)
    [arguments] = [found for found in commands("index", "run") if "all.toml" in found]
    few = ("--concurrency", "1", "--fid-samples", "64", "--final-samples", "64", "--no-register")
    gansweep("run", *arguments, *few, "--second-extractor", "none")
    summary = read_summary(here / "runs" / "all" / "summary.json")
    assert summary is not None
    assert (summary.state, summary.trials.failed) == ("finished", 0)
    first = next(row for row in summary.leaderboard if row.trial == 0)
    assert first.params["architecture"] == "networks:pixelshuffle"
    assert all(row.params["lr_g"] <= row.params["lr_d"] for row in summary.leaderboard)
    custom = summary.finalists[0].measurement.values["custom"]
    assert set(custom) == {"metrics:diversity", "metrics:saturation"}
    kept = {path.name for path in (here / "runs" / "all" / "code").iterdir()}
    own = "features losses metrics networks penalties pruners samplers tiles".split()
    assert kept == {f"{name}.py" for name in own}
    explained = gansweep("explain", "runs/all")
    for name in (
        *("losses:rahinge", "networks:pixelshuffle", "features:resnet18"),
        *("samplers:TwoTimescale", "pruners:Plateau", "tiles:tiles"),
    ):
        assert name in explained
