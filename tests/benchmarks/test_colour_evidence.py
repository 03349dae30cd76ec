"""The benchmarks on colour pictures: what they compare is what they say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from noise import noise_dataset

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import json_lines
import limited_data
import rank_agreement


def test_few_images_and_the_reference_share_no_image_and_no_copy():
    dataset = noise_dataset(n=60, channels=3)
    groups = np.full(60, -1)
    groups[[3, 40, 55]] = 7  # copies of one another
    few, others = limited_data.few_images(replace(dataset, train_groups=groups), 20)
    trained, reference = ({image.tobytes() for image in part} for part in (few.train, others))
    known = {image.tobytes() for image in dataset.held}
    assert (len(few.train), few.labelled) == (20, False)
    assert len(others) == 60 - 2 - 20 + len(dataset.held)
    assert not trained & (reference - known)


def test_ranks_are_those_within_each_set():
    """Two sets of very different scales, each perfectly ordered, agree perfectly; reversed ones do not."""
    ordered, large = np.array([[1, 10], [2, 20], [3, 40]]), np.array([[900, 1], [800, 0.5], [950, 2]])
    assert rank_agreement.correlation([ordered, large]) == pytest.approx(1)
    assert rank_agreement.correlation([ordered * [1, -1], large * [1, -1]]) == pytest.approx(-1)
    assert rank_agreement.correlation([ordered, large * [1, -1]]) == pytest.approx(0, abs=1e-12)


def test_a_benchmark_that_was_cut_off_knows_its_results(tmp_path, capsys):
    path = tmp_path / "new" / "results.jsonl"
    assert json_lines.read_lines(path) == []
    for seed in (0, 1):
        json_lines.add_line(path, {"seed": seed})
    assert json_lines.read_lines(path) == [{"seed": 0}, {"seed": 1}]
    assert json.loads(capsys.readouterr().out.splitlines()[1]) == {"seed": 1}
