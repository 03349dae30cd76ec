"""Versions of a model: verified, described, loaded and served where gansweep is not installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests
from mlflow_server import free_port
from registry_store import FACTS, Store, measured, pixel_evaluator

from pipeline.errors import RegistryError
from pipeline.serving.models import load_generator
from pipeline.tracking.registry import model_version
from pipeline.tracking.registry.load import LoadedGenerator, fetched_model
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.promote import register_version

pytestmark = pytest.mark.mlflow


def test_a_version_is_verified_in_a_fresh_process_and_by_its_fid(store: Store) -> None:
    assert (store.first.version, store.first.alias) == (1, "champion")
    tags = store.version(1).tags
    low, high = (float(tags[key]) for key in ("fid_low", "fid_high"))
    found = re.fullmatch(
        r"loaded fresh, draws the same images, fid ([\d.]+) in \[.*\]", tags["gansweep.verified"]
    )
    assert found is not None
    assert low <= float(found[1]) <= high


def test_the_card_is_in_the_model_and_in_its_run(store: Store) -> None:
    version = store.version(1)
    assert [file.path for file in store.client().list_artifacts(version.run_id, "model_card")] == [
        "model_card/README.md"
    ]
    with fetched_model("models:/gan/1", tracking_uri=store.uri) as folder:
        assert (folder / "card" / "README.md").read_text() == "# a card\n"


def test_a_model_with_another_fid_is_not_registered(store: Store) -> None:
    facts = measured(store.packing(3, 1))
    wrong = {"fid": 2 * facts["fid"], "fid_low": 1.9 * facts["fid"], "fid_high": 2.1 * facts["fid"]}
    with pytest.raises(RegistryError, match=r"verification: its fid is [\d.]+ and [\d.]+, not in \["):
        store.add(1, name="wrong", verify=True, facts={**facts, **wrong}, evaluator=pixel_evaluator())
    assert store.client().search_model_versions("name = 'wrong'") == []
    with pytest.raises(RegistryError, match="have changed since its fid was measured"):
        store.add(1, name="wrong", verify=True, facts={"evaluator": "another"}, evaluator=pixel_evaluator())


def test_a_model_with_other_images_or_none_is_not_registered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, _ = LoadedGenerator(store.packing(3, 1)).sample(5, model_version.PROBE_SEED)
    with monkeypatch.context() as patch:  # as on a machine where the generator gives other images
        patch.setattr(
            model_version.Verifier,
            "_probe",
            lambda self, model, folder, n: np.save(f"{folder}/few.npy", other),
        )
        with pytest.raises(RegistryError, match="verification: it gives other images"):
            store.add(0, name="unverified", verify=True)
    monkeypatch.setattr(model_version, "PROBE_SEC", 0.2)
    with pytest.raises(RegistryError, match="no images after 0.2 s"):
        store.add(0, name="unverified", verify=True)
    assert store.client().search_model_versions("name = 'unverified'") == []


def test_an_sqlite_registry_writes_nothing_beside_it(
    tmp_path: Path, packing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/out/mlflow.db"
    done = register_version(
        packing(), ModelMetadata.from_json(FACTS), tracking_uri=uri, name="gan", verify=False
    )
    assert done.alias == "champion"
    assert len(load_generator("models:/gan@champion", tracking_uri=uri).sample(3)[0]) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"mlflow.db", "artifacts"}


def test_tags_and_description_hold_the_facts(store: Store) -> None:
    version = store.version(1)
    assert float(version.tags["fid"]) == measured(store.packing())["fid"]
    assert version.tags["params.loss"] == "hinge"
    assert len(version.tags["note"]) == 5000
    assert "balance" not in version.tags
    assert "| trial | 7 |" in version.description
    assert len(version.description) <= 5000


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
for params, message in (
    ({{"label": 3}}, "label lies in [0, 2]"),
    ({{"n": 0}}, "at least 1"),
    ({{"n": "x"}}, "Invalid parameters"),
    ({{"n": 10**9}}, "at most"),
):
    try:
        model.predict([0], params=params)
    except MlflowException as error:
        assert message in str(error), error
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
    """The real `mlflow models serve`, over HTTP."""
    port = free_port()
    command = f"-m mlflow models serve -m models:/gan/2 --env-manager local -h 127.0.0.1 -p {port}".split()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where it looks for uvicorn
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
        request = {"inputs": [0], "params": {"n": 3, "seed": 5, "label": 1}}
        answer = requests.post(f"{address}/invocations", json=request, timeout=30)
        images = np.array(answer.json()["predictions"], np.uint8)
        assert np.array_equal(images, store.load("models:/gan/2").sample(3, seed=5, label=1)[0])
        for params, message in (({"n": 10**9}, "n is at most 65536"), ({"label": 3}, "label lies in")):
            refused = requests.post(
                f"{address}/invocations", json={"inputs": [0], "params": params}, timeout=30
            )
            assert refused.status_code == 400
            assert message in refused.text
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        log.close()
