"""The page of `gansweep serve`, through a real server on loopback."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn
from factories import generator_of
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.serving import page
from pipeline.tracking.registry.latent_walk import slerp
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.pack import pack_generator


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> LoadedGenerator:
    metadata = ModelMetadata.from_json({"fid": 3.0, "class_names": ["cat", "<b>dog</b>", "cow"]})
    return LoadedGenerator(pack_generator(generator_of(), tmp_path_factory.mktemp("packed"), metadata))


@pytest.fixture(scope="module")
def address(generator: LoadedGenerator) -> Iterator[str]:
    app = page.page_app(generator, "models:/pets@champion")
    server = uvicorn.Server(uvicorn.Config(app, host=page.HOST, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://{page.HOST}:{port}"
    server.should_exit = True
    thread.join(timeout=10)


def grid(address: str, **query: Any) -> np.ndarray:
    answer = requests.get(f"{address}/grid.png", params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_the_page_is_self_contained_and_escapes_what_it_shows(address: str) -> None:
    text = requests.get(address, timeout=30).text
    assert "models:/pets@champion" in text
    assert "&lt;b&gt;dog&lt;/b&gt;" in text
    assert "<b>dog" not in text
    assert '<option value="number:2">cow</option>' in text
    assert "http" not in text  # no font, script or image from another machine
    assert not {"{{", "{%"} & {text[i : i + 2] for i in range(len(text))}  # every placeholder is filled


def test_a_seed_fixes_the_bytes_and_a_label_the_class(address: str, generator: LoadedGenerator) -> None:
    wanted, _ = generator.sample(4, seed=7)
    assert np.array_equal(grid(address, n=4, seed=7)[:8, :8], wanted[0, :, :, 0])
    wanted, _ = generator.sample(4, seed=7, label=2, truncation=0.5)
    assert np.array_equal(grid(address, n=4, seed=7, label=2, truncation=0.5)[8:, 8:], wanted[3, :, :, 0])
    assert np.array_equal(grid(address, n=4, seed=7, label="cow", truncation=0.5)[8:, 8:], wanted[3, :, :, 0])
    assert np.array_equal(grid(address, n=1, label="number:0"), generator.sample(1, label=0)[0][0, :, :, 0])
    answer = requests.get(f"{address}/samples.npz", params={"n": 4, "seed": 7}, timeout=30)
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], generator.sample(4, seed=7)[0])


def test_the_slider_interpolates_to_the_other_seed(address: str, generator: LoadedGenerator) -> None:
    ends = [generator.latents(1, seed, 1)[0] for seed in (3, 4)]
    for at in (0.0, 0.25, 1.0):
        z = slerp(ends[0], ends[1], at) if at else ends[0]
        wanted = generator.render(z, np.array([1]))[0, :, :, 0]
        assert np.array_equal(grid(address, n=1, seed=3, to=4, at=at, label=1), wanted)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"n": 0}, "n: "),
        ({"n": -1}, "n: "),
        ({"n": 10**9}, "n: "),
        ({"n": "many"}, "n: "),
        ({"seed": -1}, "seed: "),
        ({"label": 3}, "label = 3 is out of range (a label lies in [0, 2]"),
        ({"label": "dogs"}, "no class is called 'dogs' (a label is a number in [0, 2], or a name)"),
        ({"label": "x" * 301}, "label: "),
        ({"truncation": 0}, "truncation: "),
        ({"truncation": "nan"}, "truncation: "),
        ({"at": 1.5}, "at: "),
    ],
)
def test_an_impossible_request_gets_one_line(address: str, query: dict[str, Any], message: str) -> None:
    answer = requests.get(f"{address}/grid.png", params=query, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


def test_the_number_of_large_images_is_limited(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_BYTES", 640)  # ten images of 8x8
    assert requests.get(f"{address}/grid.png", params={"n": 11}, timeout=30).status_code == 400
    assert requests.get(f"{address}/grid.png", params={"n": 10}, timeout=30).status_code == 200


def test_another_host_name_is_not_answered(address: str) -> None:
    """A web page that resolves its own name to loopback cannot read anything."""
    answer = requests.get(address, headers={"Host": "evil.example"}, timeout=30)
    assert answer.status_code == 400
    facts = requests.get(f"{address}/facts", timeout=30).json()
    assert (facts["size"], facts["labels"][0], facts["facts"]["fid"]) == (8, "cat", 3.0)


def test_a_port_in_use_is_refused(generator: LoadedGenerator, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((page.HOST, 0))
        other.listen()
        with pytest.raises(ConfigError, match="port [0-9]+ cannot be used.*in use.*--port 0"):
            page.serve_page(generator, "gan", other.getsockname()[1])
