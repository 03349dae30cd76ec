"""Generators through a real registry: packed, verified, promoted, loaded where gansweep is not."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from mlflow_server import Server, free_port
from torch import nn

from pipeline.data.dataset import Dataset, fingerprint
from pipeline.errors import RegistryError
from pipeline.metrics import extractors
from pipeline.metrics.frechet import Evaluator, build_evaluator
from pipeline.tracking.registry import model_version
from pipeline.tracking.registry.load import fetched_model, from_packed, load_registered
from pipeline.tracking.registry.model_version import fid_of
from pipeline.tracking.registry.pack import pack_generator
from pipeline.tracking.registry.promote import decide_promotion, register_version, set_alias
from pipeline.tracking.registry.registered_model import BLOCK, Refused, vet

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
            done[classes, seed] = pack_generator(TinyGenerator(classes, seed), folder, FACTS)
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
    pack_generator(generator, tmp_path, {})
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


INTERVAL = {"evaluator": "e", "fid_low": "9.0", "fid_high": "11.0"}  # one to each side


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
        ({"fid": None, "evaluator": "e"}, None, None),
        ({"fid": math.nan, "evaluator": "e"}, {"fid": "10.0", "evaluator": "e"}, None),
        ({**INTERVAL, "fid": 8.5}, {"fid": "10.0", "evaluator": "e"}, "champion"),
        ({**INTERVAL, "fid": 9.5}, {"fid": "10.0", "evaluator": "e"}, "candidate"),
        ({"fid": 9.5, "evaluator": "e"}, {**INTERVAL, "fid": "10.0"}, "candidate"),
        ({"fid": 8.5, "evaluator": "e"}, {**INTERVAL, "fid": "10.0"}, "champion"),
        ({"fid": 1.0, "evaluator": "e", "withhold": ["copies"]}, None, None),
    ],
)
def test_who_becomes_champion(
    facts: dict[str, Any], champion: dict[str, str] | None, alias: str | None
) -> None:
    assert decide_promotion(facts, champion)[0] == alias


# The registry


@dataclasses.dataclass(frozen=True)
class Store:
    """A real MLflow server over HTTP (sqlite) with two versions of 'gan': 1 verified by its fid, 2 better."""

    folder: Path
    uri: str
    packing: Callable[..., Path]
    first: Any = None
    second: Any = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, seed: int, fid: float | None = None, name: str = "gan", **options: Any) -> Any:
        options.setdefault("verify", False)
        facts = {**FACTS, **self.facts, "fid": fid, **options.pop("facts", {})}
        return register_version(
            self.packing(3, seed), tracking_uri=self.uri, name=name, facts=facts, **options
        )

    def load(self, model: str) -> Any:
        return load_registered(model, tracking_uri=self.uri)

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def version(self, number: int, name: str = "gan") -> Any:
        return self.client().get_model_version(name, str(number))

    def aliases(self, name: str) -> dict[str, int]:
        return {key: int(value) for key, value in self.client().get_registered_model(name).aliases.items()}


def judge() -> Evaluator:
    """A fid by pixels of 100 samples against noise that looks like TinyGenerator's images."""
    rng = np.random.default_rng(0)
    train, held = (rng.integers(0, 255, (count, 8, 8, 2), np.uint8) for count in (120, 64))
    noise = Dataset("noise", train, held, None, None, (), fingerprint(train, held, None, None))
    return build_evaluator(noise, extractors.build_extractor("pixels", noise), 100)


def measured(packed: Path) -> dict[str, Any]:
    """The facts that this generator's own fid makes."""
    fid = fid_of(judge(), from_packed(packed).sample(100, seed=1)[0])
    return {"fid": fid, "fid_low": 0.8 * fid, "fid_high": 1.2 * fid, "evaluator": judge().hash}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, packing: Callable[..., Path]) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("registry")
    server = Server(folder)
    try:
        server.start()
        facts = measured(packing())
        (packing() / "card").mkdir()
        (packing() / "card" / "README.md").write_text("# a card\n")
        store = Store(folder, server.uri, packing, facts={"evaluator": facts["evaluator"]})
        run = store.client().create_run("0").info.run_id
        first = store.add(0, facts["fid"], verify=True, facts=facts, evaluator=judge(), run_id=run)
        second = store.add(1, facts["fid"] / 2)
        yield dataclasses.replace(store, first=first, second=second)
    finally:
        server.kill()


def test_a_version_is_verified_in_a_fresh_process_and_by_its_fid(store: Store) -> None:
    assert (store.first.version, store.first.alias) == (1, "champion")
    tags = store.version(1).tags
    low, high = (float(tags[key]) for key in ("fid_low", "fid_high"))
    found = re.fullmatch(
        r"loaded fresh, draws the same images, fid ([\d.]+) in \[.*\]", tags["gansweep.verified"]
    )
    assert found is not None
    assert low <= float(found[1]) <= high


def test_its_card_lies_in_the_model_and_in_its_run(store: Store) -> None:
    version = store.version(1)
    assert [file.path for file in store.client().list_artifacts(version.run_id, "model_card")] == [
        "model_card/README.md"
    ]
    with fetched_model("models:/gan/1", tracking_uri=store.uri) as folder:
        assert (folder / "card" / "README.md").read_text() == "# a card\n"


def test_what_has_another_fid_is_not_registered(store: Store) -> None:
    facts = measured(store.packing(3, 1))
    wrong = {"fid": 2 * facts["fid"], "fid_low": 1.9 * facts["fid"], "fid_high": 2.1 * facts["fid"]}
    with pytest.raises(RegistryError, match=r"the fid it claims; got fid [\d.]+ and [\d.]+, not in \["):
        store.add(1, name="wrong", verify=True, facts={**facts, **wrong}, evaluator=judge())
    assert store.client().search_model_versions("name = 'wrong'") == []
    with pytest.raises(RegistryError, match="have changed since its fid was measured"):
        store.add(1, name="wrong", verify=True, facts={"evaluator": "another"}, evaluator=judge())


def test_what_draws_other_images_or_nothing_is_not_registered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, _ = from_packed(store.packing(3, 1)).sample(5, model_version.PROBE_SEED)
    with monkeypatch.context() as patch:  # a machine on which the generator draws something else
        patch.setattr(
            model_version.Verifier,
            "_probe",
            lambda self, model, folder, n: np.save(f"{folder}/few.npy", other),
        )
        with pytest.raises(RegistryError, match="draws the same images.*; got other images"):
            store.add(0, name="unverified", verify=True)
    monkeypatch.setattr(model_version, "PROBE_SEC", 0.2)
    with pytest.raises(RegistryError, match="no images after 0.2 s"):
        store.add(0, name="unverified", verify=True)
    assert store.client().search_model_versions("name = 'unverified'") == []


def test_a_store_in_a_file_leaves_nothing_beside_it(
    tmp_path: Path, packing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/out/mlflow.db"
    done = register_version(packing(), tracking_uri=uri, name="gan", facts=FACTS, verify=False)
    assert done.alias == "champion"
    assert len(load_registered("models:/gan@champion", tracking_uri=uri).sample(3)[0]) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"mlflow.db", "artifacts"}


# The rule of promotion, over HTTP


def test_a_better_version_becomes_champion(store: Store) -> None:
    assert (store.second.version, store.second.alias) == (2, "champion")
    assert "by more than the interval" in store.second.reason
    assert store.aliases("gan")["champion"] == 2


@pytest.mark.parametrize(
    ("name", "facts", "alias", "reason", "holds"),
    [
        ("better", {"fid": 30.0}, "champion", "beats the champion's 40", {"champion": 2}),
        ("near", {"fid": 39.0, "fid_low": 37.0, "fid_high": 41.0}, "candidate", "within the interval",
         {"champion": 1, "candidate": 2}),
        ("worse", {"fid": 41.0}, "candidate", "does not beat", {"champion": 1, "candidate": 2}),
        ("foreign", {"fid": 1.0, "evaluator": "other"}, "candidate", "another evaluator",
         {"champion": 1, "candidate": 2}),
        ("copier", {"fid": 1.0, "withhold": ["copies training images", "collapsed"]}, None,
         "withheld: copies training images; collapsed", {"champion": 1}),
        ("unmeasured", {"fid": None}, None, "its fid is missing", {"champion": 1}),
    ],
)  # fmt: skip
def test_the_rule_of_promotion(
    store: Store, name: str, facts: dict[str, Any], alias: str | None, reason: str, holds: dict[str, int]
) -> None:
    assert store.add(0, 40.0, name=name).alias == "champion"
    done = store.add(1, name=name, facts=facts)
    assert (done.version, done.alias) == (2, alias)
    assert reason in done.reason
    assert store.aliases(name) == holds


def test_how_far_it_may_rise_can_be_bounded(store: Store) -> None:
    never = store.add(0, 40.0, name="bounded", promote="never")
    assert (never.alias, store.aliases("bounded")) == (None, {})
    candidate = store.add(1, 30.0, name="bounded", promote="candidate")
    assert (candidate.alias, store.aliases("bounded")) == ("candidate", {"candidate": 2})
    assert "candidate at most" in candidate.reason
    later = store.add(0, 40.0, name="bounded")  # not decided before, so now
    assert (later.version, later.alias) == (1, "champion")
    with pytest.raises(RegistryError, match="never, candidate or champion; got 'always'|got always"):
        store.add(0, 40.0, name="bounded", promote="always")


def test_the_same_source_makes_no_second_version(store: Store) -> None:
    first = store.add(0, 40.0, name="twice")
    again = store.add(0, 40.0, name="twice")
    assert (again.version, again.alias, again.uri) == (1, "champion", first.uri)
    assert "registered before" in again.reason
    assert store.add(0, 40.0, name="twice", facts={"fingerprint": "other data"}).version == 2


def test_an_alias_can_be_rolled_back_and_stays_so(store: Store) -> None:
    store.add(0, 40.0, name="rolled")
    store.add(1, 30.0, name="rolled")
    done = set_alias("models:/rolled/1", "champion", tracking_uri=store.uri)
    assert (done.version, done.alias) == (1, "champion")
    assert store.aliases("rolled") == {"champion": 1}
    assert store.add(1, 30.0, name="rolled").alias is None  # the same sweep again does not undo it
    assert store.aliases("rolled") == {"champion": 1}


def test_a_withheld_version_gets_an_alias_that_is_asked_for(store: Store) -> None:
    done = store.add(2, 1.0, name="asked", facts={"withhold": ["collapsed"]}, alias="tried")
    assert (done.alias, store.aliases("asked")) == ("tried", {"tried": 1})
    assert np.array_equal(store.load("models:/asked@tried").sample(1)[0], store.load(done.uri).sample(1)[0])


# What stands in the registry


def test_a_version_tells_where_it_comes_from(store: Store) -> None:
    version = store.version(1)
    assert float(version.tags["fid"]) == measured(store.packing())["fid"]
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
    store.add(0, name="foreign-made")
    store.client().delete_model_version_tag("foreign-made", "1", "gansweep.files")
    with pytest.raises(RegistryError, match="gansweep registered"):
        store.load("models:/foreign-made/1")


@pytest.mark.parametrize("all_of_them", [False, True])
def test_files_altered_in_the_registry_are_refused(store: Store, all_of_them: bool) -> None:
    """Also where all of them were exchanged and agree: their hash stands in the registry's tags."""
    name = f"altered-{all_of_them}"
    store.add(0, name=name)
    model = store.version(1, name).source.removeprefix("models:/")
    (folder,) = (store.folder / "artifacts").glob(f"*/models/{model}/**/generator")
    other = store.packing(3, 1)
    for path in other.iterdir() if all_of_them else [other / "generator.pt2"]:
        shutil.copy(path, folder)
    with pytest.raises(RegistryError, match="altered"):
        store.load(f"models:/{name}/1")


def test_a_registry_that_is_away_is_told(tmp_path: Path, packing: Callable[..., Path]) -> None:
    with pytest.raises(RegistryError, match="can be read"):
        load_registered("models:/gan@champion", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(RegistryError, match="tracking server answers"):
        register_version(packing(), tracking_uri="http://127.0.0.1:9", name="gan", facts=FACTS)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "it's"])
def test_an_impossible_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(RegistryError, match="a model's name"):
        store.add(0, name=name)


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
"""


def test_it_loads_without_gansweep_and_without_pickle(store: Store, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    arrays = tmp_path / "images.npy"
    command = [sys.executable, "-c", ALONE, "models:/gan@champion", str(arrays)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    generator = store.load("models:/gan@champion")
    assert np.array_equal(np.load(arrays, allow_pickle=False), generator.sample(40, seed=9)[0])


def test_mlflow_serves_it_over_http(store: Store, tmp_path: Path) -> None:
    """The real `mlflow models serve`, asked as curl asks it."""
    port = free_port()
    command = f"-m mlflow models serve -m models:/gan/2 --env-manager local -h 127.0.0.1 -p {port}".split()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it looks for uvicorn there
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store.uri, "PATH": path}
    log = (tmp_path / "serve.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=tmp_path,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                requests.get(f"{address}/ping", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                alive = process.poll() is None and time.monotonic() < deadline
                assert alive, (tmp_path / "serve.log").read_text()[-2000:]
                time.sleep(0.2)
        asked = {"inputs": [0], "params": {"n": 3, "seed": 5, "label": 1}}
        answer = requests.post(f"{address}/invocations", json=asked, timeout=30)
        images = np.array(answer.json()["predictions"], np.uint8)
        assert np.array_equal(images, store.load("models:/gan/2").sample(3, seed=5, label=1)[0])
        for params, told in (({"n": 10**9}, "n is at most 65536"), ({"label": 3}, "label lies in")):
            refused = requests.post(
                f"{address}/invocations", json={"inputs": [0], "params": params}, timeout=30
            )
            assert refused.status_code == 400
            assert told in refused.text
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        log.close()
