"""The space that the images choose: which, what it is called, and that the same command goes on with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import image_facts
from images import noise, write_npz

from pipeline.config import SweepConfig
from pipeline.errors import SpaceError, SweepError
from pipeline.search.space.builtin import load_space
from pipeline.search.space.notes import outline
from pipeline.sweep import space_choice
from pipeline.sweep.build_request import build_request
from pipeline.sweep.inputs import load_inputs
from pipeline.sweep.manifest import Manifest, SweepFacts, check_same_request, manifest_of, read_manifest
from pipeline.sweep.options import ResumeOptions, RunOptions
from pipeline.sweep.request import Request
from pipeline.sweep.space_choice import (
    describe_choice,
    facts_of_sweep,
    name_for_data,
    resolve_for_images,
    space_for,
    this_machine,
    trial_device,
)

OPTIONS: dict[str, Any] = {"extractor": "pixels", "second_extractor": "none", "fid_samples": 50}


@pytest.mark.parametrize(
    ("size", "channels", "classes", "space"),
    [
        (8, 1, 10, "mnist5k"),
        (28, 1, 10, "mnist5k"),
        (32, 1, 10, "mnist5k"),
        (33, 1, 10, "photos"),
        (28, 1, 0, "photos"),
        (28, 3, 10, "photos"),
        (256, 3, 0, "photos"),
    ],
)
def test_small_labelled_grey_images_have_a_space_of_their_own(
    size: int, channels: int, classes: int, space: str
) -> None:
    assert space_for(image_facts(size, channels=channels, classes=classes)) == space


def test_the_choice_is_told_in_one_line() -> None:
    photos, digits = image_facts(classes=10), image_facts(28, channels=1, classes=10)
    space = load_space("photos").on_images(photos)
    assert describe_choice(photos, "photos", space) == (
        f"photos: 2,000 labelled colour images of 64 px, on a CPU: {outline(space)} (fewer than 5,000 images)"
    )
    assert describe_choice(digits, "mnist5k", load_space("mnist5k")) == (
        "mnist5k: 2,000 labelled grey images of 28 px, on a CPU: 240 kimg, widths 8-48, "
        "batch 32-128, conditional"
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("mnist5k", "mnist5k"),
        ("folder:/a/b/icons", "icons"),
        ("folder:/a/photos.v2", "photos.v2"),
        ("folder:/a/my photos (2)", "my-photos-2"),
        ("folder:/a/日本", "sweep"),
        ("folder:/a/Äpfel von Zoë", "Apfel-von-Zoe"),
        ("folder:/a/" + "x" * 200, "x" * 100),
        ("folder:/", "folder"),
        ("npz:/x/cats.npz", "cats"),
        ("zip:/x/cats.zip", "cats"),
        ("hf:org/name", "name"),
        ("hf:org/name:small", "name-small"),
        ("hf:/data/train.parquet", "train"),
        ("mine:stripes", "stripes"),
        ("", "sweep"),
    ],
)
def test_the_name_of_a_sweep_follows_the_data(source: str, name: str) -> None:
    assert name_for_data(source) == name
    assert SweepConfig(name=name).name == name


def test_why_there_is_augmentation_is_told_where_there_is() -> None:
    facts = image_facts()
    for augment, told in {"ada": "augmentation ada (fewer than 5,000 images)", "none": "batch 32"}.items():
        space = load_space("photos").override({"augment": augment, "batch_size": 32}).on_images(facts)
        assert describe_choice(facts, "photos", space).endswith(told)


def test_a_given_name_or_space_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert build_request(RunOptions(data="folder:.")).config.name == name_for_data(f"folder:{tmp_path}")
    assert build_request(RunOptions(data="digits", space="smoke")).config.name == "smoke"
    assert build_request(RunOptions(data="digits", space="smoke", name="x")).config.name == "x"
    assert build_request(RunOptions(data="digits", space=load_space("smoke"))).config.name == "sweep"
    with pytest.raises(SpaceError, match="lr_x"):
        build_request(RunOptions(data="digits", set=["lr_x=1"]))


def test_the_device_is_what_a_trial_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_choice, "visible_gpus", lambda: 1)
    assert trial_device(SweepConfig(), this_machine()) == "gpu"
    assert trial_device(SweepConfig(gpus_per_trial=0.0), this_machine()) == "cpu"
    monkeypatch.setattr(space_choice, "visible_gpus", lambda: 0)
    assert trial_device(SweepConfig(), this_machine()) == "cpu"
    assert trial_device(SweepConfig(gpus_per_trial=0.5), this_machine()) == "gpu"


# --- A sweep that exists -------------------------------------------------------------------------


@pytest.fixture
def colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    """`run` on an npz of 80 colour images of 32 px, without a space."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(80) % 2
    write_npz(tmp_path / "cats.npz", images=noise((80, 32, 32, 3)), labels=labels)
    return RunOptions(**OPTIONS, data="npz:cats.npz")


def begun(options: RunOptions, **facts: object) -> tuple[Request, Manifest]:
    """A sweep that `run` began with these options, from its sweep.toml. facts: of `SweepFacts`."""
    request, inputs = load_inputs(build_request(options), None)
    known: SweepFacts = dataclasses.replace(inputs.facts, **facts)
    request.paths.root.mkdir(parents=True)
    request.paths.config.write_text(manifest_of(request, known, "").to_toml())
    manifest = read_manifest(request.paths)
    assert manifest is not None
    return request, manifest


def again(options: RunOptions, manifest: Manifest) -> None:
    """What the same command compares before it goes on."""
    check_same_request(manifest, resolve_for_images(build_request(options), facts_of_sweep(manifest.facts)))


def test_the_same_command_goes_on_and_another_is_refused(
    colour: RunOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    request, manifest = begun(colour)
    assert "space: photos: 64 labelled colour images of 32 px, on a CPU: " in caplog.text
    assert "classes are not drawn: the smallest (" in caplog.text
    assert (manifest.config.name, manifest.config.space) == ("cats", "photos")
    assert manifest.space == request.space
    assert not manifest.space.rules
    again(colour, manifest)
    assert load_inputs(build_request(colour), manifest)[0].space == manifest.space
    again(dataclasses.replace(colour, space="photos", name="cats"), manifest)
    with pytest.raises(SweepError, match=r"other values of enqueue, fixed\.kimg"):
        again(dataclasses.replace(colour, kimg=7), manifest)
    resumed = build_request(ResumeOptions("runs/cats"))
    assert load_inputs(resumed, manifest)[0].space == manifest.space


def test_a_sweep_goes_on_where_the_device_is_another(colour: RunOptions) -> None:
    request, manifest = begun(colour, device="gpu")
    photos = load_space("photos").on_images(image_facts(32, images=64, classes=2, device="gpu"))
    manifest = dataclasses.replace(manifest, space=photos)  # as a machine with a GPU wrote it
    again(colour, manifest)
    resolved, inputs = load_inputs(build_request(colour), manifest)
    assert resolved.space == photos != request.space
    assert inputs.facts.device == "gpu"


def test_set_and_recipe_are_taken_before_what_the_images_choose(colour: RunOptions) -> None:
    changed = dataclasses.replace(colour, set=["batch_size=16", "beta1=0.25"], kimg=9, recipe="r1")
    space = load_inputs(build_request(changed), None)[0].space
    assert {name: space.fixed[name] for name in ("batch_size", "beta1", "kimg")} == {
        "batch_size": 16,
        "beta1": 0.25,
        "kimg": 9,
    }
    assert space.enqueue[0]["gamma"] == pytest.approx(2e-4 * 32**2 / 16)


def test_digits_have_the_space_that_is_given_by_name(tmp_path: Path) -> None:
    chosen = load_inputs(build_request(RunOptions(**OPTIONS, data="digits", out=tmp_path)), None)[0]
    given = RunOptions(**OPTIONS, data="digits", space="mnist5k", out=tmp_path)
    assert chosen.space == load_inputs(build_request(given), None)[0].space
    assert chosen.config.space == "mnist5k"
