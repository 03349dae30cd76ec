"""Images and evaluator of a configuration."""

from __future__ import annotations

from pipeline.config import SweepConfig
from pipeline.metrics.loading import load_measuring


def test_a_configuration_gives_its_images_and_evaluator(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path))
    config = SweepConfig(data="digits", image_size=9, extractor="pixels", fid_samples=50, metrics="own:edges")
    dataset, evaluator = load_measuring(config)
    assert (dataset.source, dataset.size) == ("digits", 9)
    assert (evaluator.extractor_name, evaluator.samples, evaluator.data) == (
        "pixels",
        50,
        dataset.fingerprint,
    )
    assert evaluator.metrics == ("own:edges",)
    assert load_measuring(config, samples=70)[1].samples == 70
