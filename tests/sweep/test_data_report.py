"""What is proposed for a data set, and the object of `gansweep data --json`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from images import noise, write_npz

from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.loading import read_images
from pipeline.search.space.builtin import builtin_spaces
from pipeline.sweep.data_report import report_data, report_rows


def made(count: int, size: int, channels: int, classes: int = 0) -> Dataset:
    images, labels = noise((count, size, size, channels)), np.arange(count) % max(1, classes)
    known = labels if classes else None
    names = tuple(map(str, range(classes)))
    return Dataset("npz:x.npz", images[16:], images[:16], *(
        None if known is None else part for part in (labels[16:], labels[:16])
    ), names, "0" * 16)  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "space", "extractor"),
    [
        (made(80, 28, 1, 4), "mnist5k", "classifier"),
        (made(80, 8, 1, 4), "mnist5k", "classifier"),
        (made(80, 28, 1), "photos", "efficientnet"),
        (made(80, 32, 3, 4), "photos", "efficientnet"),
        (made(80, 100, 1, 4), "photos", "efficientnet"),
    ],
)
def test_a_space_that_exists_for_any_images(dataset: Dataset, space: str, extractor: str) -> None:
    report = report_data(dataset, SweepConfig(data="npz:x.npz"))
    assert (report.space, report.extractor) == (space, extractor)
    assert space in builtin_spaces()
    assert report.command == "gansweep run --data npz:x.npz --time-budget 1h"


def test_the_command_reads_the_images_in_the_same_way() -> None:
    config = SweepConfig(data="folder:my photos", image_size=64, fit="pad", split="merge", classes="none")
    command = report_data(made(80, 64, 3), config).command
    assert "--data 'folder:my photos' --image-size 64 --classes none --split merge --fit pad" in command


def test_a_size_that_the_networks_cannot_draw_is_told() -> None:
    report = report_data(made(80, 33, 1, 4), SweepConfig())
    assert "prepared at 32 px for a sweep: its networks cannot draw 33 px" in report.hints
    assert (report.space, report.extractor) == ("mnist5k", "classifier")  # of 32 px
    assert "--image-size" not in report.command
    asked = report_data(made(80, 33, 1, 4), SweepConfig(image_size=33))
    assert "--image-size 32" in asked.command


def test_classes_that_are_not_drawn_are_told() -> None:
    (hint,) = [h for h in report_data(made(80, 32, 3, 4), SweepConfig()).hints if "drawn" in h]
    assert hint == "classes are not drawn: the smallest (0) has 16 images; --set conditional=true draws them"
    large = report_data(made(400, 32, 3, 4), SweepConfig())
    assert not any("classes are not drawn" in hint for hint in large.hints)
    assert ", conditional" in dict(report_rows(large))["space"]


def test_mirroring_is_proposed_for_symmetric_images_alone() -> None:
    symmetric = made(1200, 16, 1, 4)
    assert "--set mirror=true" in report_data(symmetric, SweepConfig()).command
    symmetric.train[:, :, :8] //= 4
    report = report_data(symmetric, SweepConfig())
    assert "mirror" not in report.command + " ".join(report.hints)


def test_a_biased_fid_is_told_before() -> None:
    (hint,) = [hint for hint in report_data(made(80, 32, 3), SweepConfig()).hints if "fid" in hint]
    assert "2,000 samples and 64 images are few for 320 features" in hint
    assert "kid" in hint
    assert not any("fid" in hint for hint in report_data(made(1200, 28, 1, 4), SweepConfig()).hints)


def test_classes_of_one_image_are_told_once() -> None:
    hints = report_data(made(80, 32, 3, 79), SweepConfig()).hints
    (single,) = [hint for hint in hints if "one image" in hint]
    assert single.startswith("78 classes have one image, which is trained on (1, 2, 3, ...)")


def test_the_object_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "cache"))
    images, labels = noise((100, 16, 16)), np.arange(100) % 2
    images[50:60], labels[50:60] = images[:10], labels[:10]
    file = write_npz(tmp_path / "a.npz", images=images, labels=labels)
    config = SweepConfig(data=f"npz:{file}")
    found = report_data(read_images(config), config).to_json()
    contract = {
        "kind": "images",
        "images": 100,
        "size": 16,
        "channels": 1,
        "range": [0, 255],
        "classes": {"0": 50, "1": 50},
        "left_out": {},
    }
    assert {key: found[key] for key in contract} == contract
    assert found["held_out"] == 16
    assert (found["duplicates"]["exact"], found["duplicates"]["across_split"]) == (10, 0)
    assert found["suggest"].startswith("gansweep run")
    assert any("only 84 images are trained on" in note for note in found["notes"])
