"""Generators through a real registry: packed, verified, promoted, loaded where gansweep is not."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_tracker import Server
from torch import nn

from pipeline.errors import RegistryError
from pipeline.registered_model import BLOCK, Refused, vet
from pipeline.registry import decide, from_packed, load, pack, register, set_alias

pytestmark = pytest.mark.mlflow


class TinyGenerator(nn.Module):
    """8x8 images of 2 channels, from batch norm and a transposed convolution, like a real one."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.z_dim, self.classes = 6, classes
        self.embed = nn.Embedding(classes, 6) if classes else None
        self.body = nn.Sequential(
            nn.Linear(12 if classes else 6, 8 * 4 * 4),
            nn.Unflatten(1, (8, 4, 4)),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 2, 4, 2, 1),
        )

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if self.embed is not None and labels is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return torch.tanh(3 * self.body(z))


FACTS: dict[str, Any] = {
    "fid": 40.0,
    "fid_n": 2000,
    "evaluator": "e1",
    "fingerprint": "f1",
    "trial": 7,
    "params": {"loss": "hinge", "lr_g": 1e-4},
    "note": "x" * 9000,
    "balance": math.nan,
    "withhold": [],
}


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Pack TinyGenerator(classes, seed), once each."""
    done: dict[tuple[int, int], Path] = {}

    def packed(classes: int = 3, seed: int = 0) -> Path:
        if (classes, seed) not in done:
            folder = tmp_path_factory.mktemp("packed") / "generator"
            done[classes, seed] = pack(TinyGenerator(classes, seed), folder, FACTS)
        return done[classes, seed]

    return packed


# Packing and sampling


@pytest.mark.parametrize("classes", [0, 3])
def test_a_packed_generator_draws_what_the_module_draws(packing: Callable[..., Path], classes: int) -> None:
    generator = from_packed(packing(classes))
    images, labels = generator.sample(BLOCK, seed=5)
    random = np.random.default_rng([5, 0])
    z = torch.from_numpy(random.standard_normal((BLOCK, 6), dtype=np.float32))
    with torch.no_grad():
        wanted = TinyGenerator(classes, 0).eval()(z, None if labels is None else torch.from_numpy(labels))
    assert images.dtype == np.uint8
    assert images.shape == (BLOCK, 8, 8, 2)
    assert np.array_equal(images, (wanted * 127.5 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
    assert (labels is None) == (classes == 0)
    if labels is not None:
        assert labels.dtype == np.int64
        assert set(labels) == {0, 1, 2}


def test_packing_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    generator = TinyGenerator(3, 0).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    pack(generator, tmp_path, {})
    assert generator.training
    assert all(p.requires_grad for p in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_facts_come_back_with_none_for_what_json_cannot_hold(packing: Callable[..., Path]) -> None:
    facts = from_packed(packing()).facts
    assert facts == {**FACTS, "balance": None}


@pytest.mark.parametrize("batch", [1, 7, BLOCK, 50, 200])
def test_an_image_depends_on_neither_n_nor_batch(packing: Callable[..., Path], batch: int) -> None:
    generator = from_packed(packing())
    images, labels = generator.sample(101, seed=3)
    parts = list(generator.stream(101, seed=3, batch=batch))
    assert [len(part) for part, _ in parts] == [batch] * (101 // batch) + [101 % batch] * (101 % batch > 0)
    assert np.array_equal(np.concatenate([part for part, _ in parts]), images)
    assert labels is not None
    assert np.array_equal(np.concatenate([their for _, their in parts]), labels)
    few, _ = generator.sample(5, seed=3)
    assert np.array_equal(few, images[:5])
    assert len(np.unique(images, axis=0)) == 101


def test_seed_label_and_truncation_matter(packing: Callable[..., Path]) -> None:
    generator = from_packed(packing())
    plain, _ = generator.sample(4)
    assert not np.array_equal(plain, generator.sample(4, seed=1)[0])
    assert not np.array_equal(plain, generator.sample(4, truncation=0.5)[0])
    images, labels = generator.sample(4, label=2)
    assert labels is not None
    assert labels.tolist() == [2] * 4
    assert not np.array_equal(images, generator.sample(4, label=1)[0])


@pytest.mark.parametrize(
    ("classes", "asked", "message"),
    [
        (3, {"n": 0}, "at least 1 image.*got 0"),
        (3, {"n": 1, "seed": -1}, "seed lies in"),
        (3, {"n": 1, "label": 3}, r"label lies in \[0, 2\]; got 3"),
        (3, {"n": 1, "label": -1}, r"label lies in \[0, 2\]; got -1"),
        (0, {"n": 1, "label": 0}, "conditional model only; got 0"),
        (3, {"n": 1, "truncation": 0.0}, "truncation"),
        (3, {"n": 1, "truncation": math.nan}, "truncation"),
        (3, {"n": 1, "truncation": 2.1}, "truncation"),
    ],
)
def test_impossible_requests_are_told(
    packing: Callable[..., Path], classes: int, asked: dict[str, Any], message: str
) -> None:
    generator = from_packed(packing(classes))
    with pytest.raises(RegistryError, match=message):
        generator.sample(**asked)
    if "truncation" not in asked:
        with pytest.raises(RegistryError, match=message):
            generator.stream(**asked)  # told at once, not at the first image


@pytest.mark.parametrize("name", ["generator.pt2", "generator.safetensors", "facts.json", "files.json"])
def test_an_altered_or_missing_file_is_refused(
    packing: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(packing(), tmp_path / "generator")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(RegistryError):
        from_packed(folder)
    (folder / name).unlink()
    with pytest.raises(RegistryError):
        from_packed(folder)


def rewrite(archive: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes]) -> None:
    """Write the archive again with its records changed and others added."""
    with zipfile.ZipFile(archive) as opened:
        records = {info.filename: opened.read(info) for info in opened.infolist()}
    root = next(iter(records)).partition("/")[0]
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in records.items():
            opened.writestr(name, change(name, data))
        for name, data in extra.items():
            opened.writestr(f"{root}/{name}", data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"use_pickle": false', b'"use_pickle": true'),
        (b"Symbol('s", b"__import__('os')('s"),
        (b"torch.ops.aten.tanh.default", b"torch.ops.prim.tanh.default"),
    ],
)
def test_an_archive_that_could_run_something_stays_closed(
    packing: Callable[..., Path], tmp_path: Path, old: bytes, new: bytes
) -> None:
    archive = Path(shutil.copy(packing() / "generator.pt2", tmp_path))
    vet(archive)
    seen = []

    def change(name: str, data: bytes) -> bytes:
        seen.append(old in data)
        return data.replace(old, new)

    rewrite(archive, change, {})
    assert any(seen)
    with pytest.raises(Refused, match="nothing that could run"):
        vet(archive)


@pytest.mark.parametrize(
    "name", ["data/weights/model.pt", "data/sample_inputs/other.pt", "data/aotinductor/model/a.so", "extra/x"]
)
def test_an_archive_with_anything_else_in_it_stays_closed(
    packing: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    archive = Path(shutil.copy(packing() / "generator.pt2", tmp_path))
    rewrite(archive, lambda _, data: data, {name: b"payload"})
    with pytest.raises(Refused, match=name.replace(".", r"\.")):
        vet(archive)


# Promotion


@pytest.mark.parametrize(
    ("facts", "champion", "alias"),
    [
        ({"fid": 9.0, "evaluator": "e"}, None, "champion"),
        ({"fid": 9.0, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, "champion"),
        ({"fid": 10.0, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 11.0, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 9.0, "evaluator": "other"}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 9.0}, {"fid": "10.0"}, "candidate"),
        ({"fid": 9.0, "evaluator": "e"}, {"evaluator": "e"}, "champion"),
        ({"fid": 9.0, "evaluator": "e"}, {"fid": "NaN", "evaluator": "e"}, "champion"),
        ({"fid": None, "evaluator": "e"}, None, "candidate"),
        ({"fid": math.nan, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 1.0, "evaluator": "e", "withhold": ["copies"]}, None, None),
    ],
)
def test_who_becomes_champion(
    facts: dict[str, Any], champion: dict[str, str] | None, alias: str | None
) -> None:
    assert decide(facts, champion)[0] == alias


# The registry


@dataclasses.dataclass(frozen=True)
class Store:
    """An sqlite registry with two versions of 'gan': 1 verified (fid 40), 2 better (fid 30, champion)."""

    folder: Path
    uri: str
    packing: Callable[..., Path]
    aliases: tuple[str | None, ...] = ()

    def add(self, seed: int, fid: float | None = None, name: str = "gan", **options: Any) -> Any:
        options.setdefault("verify", False)
        facts = {**FACTS, "fid": fid, **options.pop("facts", {})}
        return register(self.packing(3, seed), tracking_uri=self.uri, name=name, facts=facts, **options)

    def load(self, model: str) -> Any:
        return load(model, tracking_uri=self.uri)

    def version(self, number: int, name: str = "gan") -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri).get_model_version(name, str(number))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, packing: Callable[..., Path]) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("registry")
    before = Path.cwd()
    os.chdir(folder)  # MLflow must leave nothing in the working directory
    store = Store(folder, f"sqlite:///{folder}/out/mlflow.db", packing)
    first = store.add(0, 40.0, verify=True)
    second = store.add(1, 30.0)
    yield dataclasses.replace(store, aliases=(first.alias, second.alias))
    os.chdir(before)


def test_first_and_better_versions_become_champion(store: Store) -> None:
    assert store.aliases == ("champion", "champion")
    assert store.version(2).aliases == ["champion"]
    assert {path.name for path in store.folder.iterdir()} == {"out"}
    assert {path.name for path in (store.folder / "out").iterdir()} == {"mlflow.db", "artifacts"}


def test_a_version_tells_where_it_comes_from(store: Store) -> None:
    version = store.version(1)
    assert version.tags["fid"] == "40.0"
    assert version.tags["params.loss"] == "hinge"
    assert len(version.tags["note"]) == 5000
    assert "balance" not in version.tags
    assert "| trial | 7 |" in version.description
    assert len(version.description) <= 5000


def test_loading_by_alias_and_by_version_gives_the_packed_bytes(store: Store) -> None:
    for model, seed in (("models:/gan/1", 0), ("models:/gan/2", 1), ("models:/gan@champion", 1)):
        images, _ = store.load(model).sample(40, seed=9)
        assert np.array_equal(images, from_packed(store.packing(3, seed)).sample(40, seed=9)[0])
    assert store.load("models:/gan/1").facts["trial"] == 7


def test_a_worse_version_becomes_candidate_and_the_champion_stays(store: Store) -> None:
    done = store.add(2, 35.0)
    assert (done.alias, done.reason) == ("candidate", "registered; fid 35 does not beat the champion's 30")
    assert store.version(2).aliases == ["champion"]


def test_the_same_source_makes_no_second_version(store: Store) -> None:
    again = store.add(1, 30.0)
    assert (again.version, again.alias, again.uri) == (2, "champion", "models:/gan/2")
    assert "registered before" in again.reason
    other = store.add(1, 30.0, facts={"fingerprint": "other data"})
    assert other.version > 2


def test_a_withheld_version_gets_no_alias_unless_asked_for(store: Store) -> None:
    done = store.add(3, 1.0, facts={"withhold": ["copies training images", "collapsed"]})
    assert done.alias is None
    assert "withheld: copies training images; collapsed" in done.reason
    assert store.version(done.version).aliases == []
    assert store.add(3, 1.0, alias="tried").alias == "tried"
    assert np.array_equal(store.load("models:/gan@tried").sample(1)[0], store.load(done.uri).sample(1)[0])


def test_an_alias_can_be_rolled_back(store: Store) -> None:
    store.add(0, 40.0, name="rolled")
    store.add(1, 30.0, name="rolled")
    done = set_alias("models:/rolled/1", "champion", tracking_uri=store.uri)
    assert (done.version, done.alias) == (1, "champion")
    assert store.version(1, "rolled").aliases == ["champion"]
    assert store.version(2, "rolled").aliases == []


def test_a_version_belongs_to_its_run(store: Store) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store.uri, store.uri)
    experiment = client.get_experiment_by_name("gansweep-models")
    assert experiment is not None
    run = client.create_run(experiment.experiment_id).info.run_id
    assert store.version(store.add(0, name="with-run", run_id=run).version, "with-run").run_id == run


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/gan@best", r"aliases: .*champion.*; versions: 1, 2"),
        ("models:/gan/99", r"aliases: .*champion.*; versions: 1, 2"),
        ("models:/none@champion", "models there: .*gan"),
        ("gan", "models:/NAME@ALIAS"),
        ("models:/gan/latest", "models:/NAME@ALIAS"),
    ],
)
def test_an_unknown_model_is_told_with_what_there_is(store: Store, model: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        store.load(model)


def test_a_model_of_another_maker_is_refused(store: Store) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store.uri, store.uri)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", source=str(store.folder / "out"))
    with pytest.raises(RegistryError, match="gansweep registered"):
        store.load("models:/foreign/1")


@pytest.mark.parametrize("all_of_them", [False, True])
def test_files_altered_in_the_registry_are_refused(store: Store, all_of_them: bool) -> None:
    """Also where all of them were exchanged and agree: their hash stands in the registry's tags."""
    name = f"altered-{all_of_them}"
    store.add(0, name=name)
    model = store.version(1, name).source.removeprefix("models:/")
    (folder,) = (store.folder / "out" / "artifacts" / "models" / model).rglob("generator")
    other = store.packing(3, 1)
    for path in other.iterdir() if all_of_them else [other / "generator.pt2"]:
        shutil.copy(path, folder)
    with pytest.raises(RegistryError, match="altered"):
        store.load(f"models:/{name}/1")


def test_a_registry_that_is_away_is_told(tmp_path: Path, packing: Callable[..., Path]) -> None:
    with pytest.raises(RegistryError, match="can be read"):
        load("models:/gan@champion", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(RegistryError, match="tracking server answers"):
        register(packing(), tracking_uri="http://127.0.0.1:9", name="gan", facts=FACTS)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "it's"])
def test_an_impossible_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(RegistryError, match="a model's name"):
        store.add(0, name=name)


def test_what_fails_its_verification_is_not_registered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    from pipeline.registry import registering

    # A stand-in for a machine on which the generator draws something else.
    monkeypatch.setattr(registering, "from_packed", lambda _: from_packed(store.packing(3, 1)))
    with pytest.raises(RegistryError, match="draws the same images; got other images"):
        store.add(0, name="unverified", verify=True)
    client = MlflowClient(store.uri, store.uri)
    assert client.search_model_versions("name = 'unverified'") == []


@pytest.mark.slow
def test_a_registry_behind_a_server(tmp_path: Path, packing: Callable[..., Path]) -> None:
    server = Server(tmp_path)
    try:
        server.start()
        done = register(packing(), tracking_uri=server.uri, name="gan", facts=FACTS)
        assert (done.version, done.alias) == (1, "champion")
        again = register(packing(), tracking_uri=server.uri, name="gan", facts=FACTS)
        assert (again.version, again.alias) == (1, "champion")
        images, _ = load(done.uri, tracking_uri=server.uri).sample(3)
        assert np.array_equal(images, from_packed(packing()).sample(3)[0])
    finally:
        server.kill()


BLOCKED = ("pipeline", "ray", "optuna", "torchvision", "safetensors", "torch_fidelity")
ALONE = f"""
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError("refused: " + name)
sys.meta_path.insert(0, Blocker())
import mlflow, mlflow.pyfunc.model, numpy, warnings
from mlflow.exceptions import MlflowException
with warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)
    model = mlflow.pyfunc.load_model(sys.argv[1])
images = model.predict([0], params={{"n": 40, "seed": 9}})
assert model.predict(None).shape == (16, 8, 8, 2)
numpy.save(sys.argv[2], images, allow_pickle=False)
for params, told in (
    ({{"label": 3}}, "label lies in [0, 2]"),
    ({{"n": 0}}, "at least 1"),
    ({{"n": "x"}}, "Invalid parameters"),
    ({{"n": 10**9}}, "at most"),
):
    try:
        model.predict([0], params=params)
    except MlflowException as error:
        assert told in str(error), error
    else:
        raise AssertionError(params)
from mlflow.pyfunc.scoring_server import predictions_to_json
with open(sys.argv[3], "w") as file:
    predictions_to_json(model.predict([0], params={{"n": 2, "label": 1}}), file)
"""


def test_it_loads_without_gansweep_and_without_pickle(store: Store, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    arrays, answer = tmp_path / "images.npy", tmp_path / "answer.json"
    command = [sys.executable, "-c", ALONE, "models:/gan@champion", str(arrays), str(answer)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    generator = store.load("models:/gan@champion")
    assert np.array_equal(np.load(arrays, allow_pickle=False), generator.sample(40, seed=9)[0])
    served = np.array(json.loads(answer.read_text())["predictions"], dtype=np.uint8)
    assert np.array_equal(served, generator.sample(2, label=1)[0])
