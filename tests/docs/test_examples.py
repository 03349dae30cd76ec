"""Every example is run: own code by the checks of a run and a few steps, the others as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch

from pipeline.cli.submit import _parse
from pipeline.sweep.build_request import build_request
from pipeline.sweep.inputs import load_inputs
from pipeline.training.trainer import Trainer
from pipeline.user_code import UserCode, use_code

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
OWN = ("own_extractor", "own_loss", "own_network")
QUICK = ("--data", "digits", "--fid-samples", "64", "--second-extractor", "none", "--quiet")


def test_each_file_is_short_and_says_how_it_is_run() -> None:
    files = [path for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".toml")]
    assert {path.parent.name for path in files} == {*OWN, "local_cluster"}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 60, path
        header = text.split('"""')[1] if path.suffix == ".py" else text[: text.index("[fixed]")]
        assert re.search(r"^#? +(gansweep run|python) ", header, re.MULTILINE), path


def test_the_list_names_every_example() -> None:
    linked = set(re.findall(r"\]\((\w+)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert {path.stem for path in EXAMPLES.iterdir()} - {"README", "__pycache__"} == linked


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of examples/ that is the home folder, with random weights for the extractor."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "weights/mobilenetv3_small_050.pth")
    yield tmp_path / "examples"
    use_code(UserCode())


@pytest.mark.parametrize("example", OWN)
def test_own_code_passes_all_checks_and_trains(
    example: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command of its header, on smaller images."""
    monkeypatch.chdir(here / example)
    [file] = (here / example).glob("*.py")
    command = re.search(r"gansweep run (.*)", file.read_text(encoding="utf-8"))
    assert command
    arguments = shlex.split(command[1])
    quick = QUICK if "--extractor" in arguments else (*QUICK, "--extractor", "pixels")
    request, inputs = load_inputs(build_request(_parse([*arguments, *quick])), None)
    named = {str(value) for name in ("loss", "architecture") for value in request.space.possible_values(name)}
    assert any(name.startswith(f"{file.stem}:") for name in (*named, inputs.evaluator.extractor_name))
    for point in [*request.space.enqueue, {}][:2]:
        trainer = Trainer(request.space.config(point), torch.from_numpy(inputs.dataset.train), None, 0)
        before = [p.clone() for p in trainer.G.parameters()]
        trainer.advance(1, should_stop=lambda trainer=trainer: trainer.d_steps == 3)
        after = list(trainer.G.parameters())
        assert all(p.isfinite().all() for p in after)
        assert not all(p.equal(old) for p, old in zip(after, before, strict=True))


# --- A cluster of three processes, and a notebook that opens its champion -------------------------


@dataclass(frozen=True)
class Finished:
    """What the example of a cluster printed, the folder of its sweep, and the folder of Ray's files."""

    output: str
    out: Path
    temporary: str


@pytest.fixture(scope="module")
def cluster_sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    out = tmp_path_factory.mktemp("cluster") / "runs"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    with tempfile.TemporaryDirectory(prefix="gs") as temporary:  # pytest's are too deep for Ray's sockets
        done = subprocess.run(
            [sys.executable, EXAMPLES / "local_cluster/local_cluster.py", out],
            env={**plain, "PYTHONPATH": str(ROOT), "TMPDIR": temporary},
            capture_output=True, text=True, timeout=350,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        yield Finished(done.stdout, out, temporary)


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_cluster_prints_a_champion_and_ends(cluster_sweep: Finished) -> None:
    summary = json.loads((cluster_sweep.out / "digits/summary.json").read_text())
    assert summary["state"] == "finished"
    assert summary["registered"]["alias"] == "champion"
    assert re.search(rf"champion: trial {summary['best']['trial']}, fid \d+\.\d\d", cluster_sweep.output)
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert cluster_sweep.temporary not in left


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_notebook_walks_the_champion(cluster_sweep: Finished, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "latent_walk.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    [given] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    store = f"sqlite:///{cluster_sweep.out / 'mlflow.db'}"
    given.source = f"MODEL, TRACKING, DATA = 'models:/digits@champion', {store!r}, 'digits'"
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert "10 classes" in printed
    assert len(pictures) == 1 + 4 + 3 + 1  # samples, four walks between seeds, three between labels, copies
