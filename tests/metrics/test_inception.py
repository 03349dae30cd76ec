"""Inception's weights: found, refused, and loaded without unpickling."""

from __future__ import annotations

import http.server
import pickle
import threading
import urllib.error

import pytest
import torch
from noise import noise_dataset

from pipeline.errors import EvaluatorError
from pipeline.metrics import extractors


def test_without_weights_or_a_connection_the_options_are_named(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    options = r"cannot be downloaded.*FILE \(weights-inception.*--extractor efficientnet"
    with pytest.raises(EvaluatorError, match=options):
        extractors.build_extractor("inception", noise_dataset(), cache=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_download_that_is_cut_off_is_not_kept(tmp_path, monkeypatch):
    class CutOff(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"the first part")

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with http.server.HTTPServer(("127.0.0.1", 0), CutOff) as server:
        url = f"http://127.0.0.1:{server.server_port}/weights"
        monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.URL_INCEPTION_V3", url)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(EvaluatorError, match="cannot be downloaded .IncompleteRead"):
            extractors.build_extractor("inception", noise_dataset(), cache=tmp_path)
        thread.join()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"no weights at all", None])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "wrong.pth"
    if content is None:
        torch.save({"conv.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(
        EvaluatorError, match="wrong.pth.*cannot be loaded.*weights-inception-2015-12-05-6726825d.pth"
    ):
        extractors.build_extractor("inception", noise_dataset(), weights=str(path))
    with pytest.raises(EvaluatorError, match="absent.pth"):
        extractors.build_extractor("inception", noise_dataset(), weights=str(tmp_path / "absent.pth"))


def test_a_pickle_is_not_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    (tmp_path / "payload.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(EvaluatorError):
        extractors.build_extractor("inception", noise_dataset(), weights=str(tmp_path / "payload.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_inception_from_a_local_file(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.save({}, tmp_path / "empty.pth")
    with monkeypatch.context() as patch:  # random weights stand in for the published ones
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        empty = tmp_path / "empty.pth"
        random = FeatureExtractorInceptionV3("r", ["2048"], feature_extractor_weights_path=empty)
    grey = noise_dataset(size=8)
    pixels = torch.from_numpy(grey.train[:4])
    rgb = pixels.permute(0, 3, 1, 2).repeat(1, 3, 1, 1)
    calibrate(random, rgb)
    torch.save(random.state_dict(), tmp_path / "weights.pth")
    extractor = extractors.build_extractor("inception", grey, weights=str(tmp_path / "weights.pth"))
    found, expected = extractor(pixels), random(rgb)[0]
    assert found.shape == (4, 2048)
    assert expected.std() > 0.01  # not all the same
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert extractor.hash == extractor.to("cpu").hash
    many = torch.from_numpy(noise_dataset(n=100).train)
    features = []
    for extractor.block in (50, 250):
        features.append(extractor(many).double())
    assert float((features[0] - features[1]).norm() / features[1].norm()) < 1e-6


@torch.no_grad()
def calibrate(net, images):
    """Random weights with activations of order 1: the default ones give features near 1e-8."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    net.train()(images)
    net.eval()
