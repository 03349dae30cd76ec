"""What a sweep would do with a data set: the space, the extractor, the memory, and the line to start it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.data.description import (
    class_counts,
    describe_classes,
    describe_copies,
    describe_images,
    describe_single,
)
from pipeline.data.findings import printable
from pipeline.metrics.extractors import resolve_extractor
from pipeline.metrics.frechet import CONSIDERABLE_BIAS, bias_share
from pipeline.metrics.mirrored import ALIKE, mirror_ratio
from pipeline.search.space.builtin import load_builtin
from pipeline.search.space.definition import Space
from pipeline.search.space.notes import augmentation
from pipeline.search.space.rules import ImageFacts
from pipeline.storage.readable import readable_bytes
from pipeline.sweep.space_choice import (
    describe_choice,
    describe_undrawn_classes,
    drawable_size,
    facts_of,
    space_for,
    this_machine,
    trial_device,
)
from pipeline.tables import EXTRACTORS

MAX_CLASSES = 20
"""So many classes are listed for people."""
FEW_IMAGES = 500
"""Of fewer images D soon knows every one."""


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """A data set and what is proposed for it.

    space: name of a built-in space. resolved: what it becomes for the images, which `facts` describe. choice:
    why it, in words. extractor: what fid would be measured in. mirror: the ratio of `metrics.mirrored`.
    memory: bytes of the prepared images, which all trials of a machine share. command: starts a sweep. hints:
    what is worth a thought before.
    """

    dataset: Dataset
    space: str
    resolved: Space
    facts: ImageFacts
    choice: str
    extractor: str
    mirror: float
    memory: int
    command: str
    hints: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that `gansweep data --json` prints."""
        dataset, found = self.dataset, self.dataset.understood
        return {
            "kind": "images",
            "images": len(dataset.train) + len(dataset.held),
            "held_out": len(dataset.held),
            "size": dataset.size,
            "channels": dataset.channels,
            "range": list(found.value_range),
            "classes": class_counts(dataset) if dataset.labelled else None,
            "classes_from": found.classes_from,
            "left_out": dict(found.left_out),
            "left_out_examples": {reason: list(names) for reason, names in found.examples.items()},
            "duplicates": {
                "exact": found.exact,
                "near": found.near,
                "moved": found.moved,
                "across_split": found.across,
                "examples": [list(pair) for pair in found.pairs],
            },
            "blank": found.blank,
            "different": found.distinct,
            "mirror_ratio": round(self.mirror, 2),
            "fingerprint": dataset.fingerprint,
            "notes": [*found.notes, *self.hints],
            "space": self.space,
            "extractor": self.extractor,
            "memory_bytes": self.memory,
            "suggest": self.command,
        }


def report_data(dataset: Dataset, config: SweepConfig, device: str = "") -> DataReport:
    """The report on `dataset`, which `config` describes how to read.

    device: what would train, cpu or gpu; "" = what this machine has.
    """
    size, hints = drawable_size(dataset.size), []
    drawn = replace(dataset, train=dataset.train[:, :size, :size])  # of the size that is trained on
    facts = facts_of(drawn, device or trial_device(config, this_machine()))
    name, mirror = space_for(facts), mirror_ratio(dataset)
    space = load_builtin(name).on_images(facts)
    mirrors = "mirror" in space.search or space.config({}).mirror
    alike = mirror <= ALIKE and len(dataset.different) >= FEW_IMAGES and not mirrors
    if size != dataset.size:
        hints = [f"prepared at {size} px for a sweep: its networks cannot draw {dataset.size} px"]
        config = replace(config, image_size=size if config.image_size else 0)
    extractor = resolve_extractor("auto", drawn)
    return DataReport(
        dataset=dataset,
        space=name,
        resolved=space,
        facts=facts,
        choice=describe_choice(facts, name, space),
        extractor=extractor,
        mirror=mirror,
        memory=dataset.train.nbytes + dataset.held.nbytes,
        command=run_command(config, settings=["mirror=true"] if alike else []),
        hints=(*hints, *_hints(dataset, space, extractor, mirror if alike else 0.0)),
    )


def run_command(config: SweepConfig, *, space: str = "", settings: Sequence[str] = ()) -> str:
    """`gansweep run ...` with every option of `config` that says how the images are read.

    space: a file, or "" = chosen by the images. settings: values of --set.
    """
    default = SweepConfig()
    options = {
        f"--{name.replace('_', '-')}": str(getattr(config, name))
        for name in ("image_size", "classes", "split", "fit", "background", "frames")
        if getattr(config, name) != getattr(default, name)
    }
    words = ["gansweep", "run", *(["--space", space] if space else []), "--data", config.data]
    words += [word for pair in options.items() for word in pair]
    words += [word for setting in settings for word in ("--set", setting)]
    return shlex.join([*words, "--time-budget", "1h"])


def _hints(dataset: Dataset, space: Space, extractor: str, mirror: float) -> list[str]:
    """space, extractor: those that `run` takes by itself. mirror: the ratio, 0 = not alike, or searched."""
    hints = []
    if mirror:
        hints.append(
            f"mirrored images look like the images (distance ratio {mirror:.1f}): --set mirror=true trains "
            "on both; leave it out where text or sides matter"
        )
    if len(dataset.train) < FEW_IMAGES:
        helps = "".join(augmentation(space)) or "--set augment=ada helps"
        hints.append(f"only {len(dataset.train):,} images are trained on: D soon knows them; {helps}")
    if dataset.understood.distinct < len(dataset.train) // 2:
        hints.append(f"only {dataset.understood.distinct:,} images differ from one another")
    if single := describe_single(dataset):
        hints.append(single)
    if undrawn := describe_undrawn_classes(dataset, space):
        hints.append(undrawn)
    return [*hints, *_bias(dataset, extractor)]


def _bias(dataset: Dataset, extractor: str) -> Iterator[str]:
    """What is to be known of a fid of more features than `run` takes samples for."""
    features = EXTRACTORS[extractor].features
    samples, reals = SweepConfig().fid_samples, len(dataset.train)
    if bias_share(features, samples, reals) >= CONSIDERABLE_BIAS:
        few = f"{samples:,} samples and {reals:,} images are few for {features:,} features"
        yield (
            f"fid will be biased upwards ({few}): compare it only at the same number of samples; kid, which "
            "finalists have too, is unbiased"
        )


def report_rows(report: DataReport) -> list[tuple[str, str]]:
    """Rows of (heading, text) for people; the command is not among them."""
    dataset, found = report.dataset, report.dataset.understood
    low, high = found.value_range
    classes = list(class_counts(dataset).items())
    lines = [f"{label}: {printable(name)} ({count:,})" for label, (name, count) in enumerate(classes)]
    if more := lines[MAX_CLASSES:]:
        lines[MAX_CLASSES:] = [f"... and {len(more):,} more"]
    memory = f"{readable_bytes(report.memory)}, one file that all trials of a machine share"
    return [
        ("images", describe_images(dataset)),
        ("values", f"{low}..{high}"),
        ("classes", describe_classes(dataset)),
        *(("", line) for line in lines),
        ("left out", found.describe_left_out() or "nothing"),
        ("copies", describe_copies(dataset) or "none"),
        *([("one colour", f"{found.blank:,} images")] if found.blank else []),
        *((("notes" if i == 0 else "", line)) for i, line in enumerate((*found.notes, *report.hints))),
        ("space", report.choice),
        ("fid in", report.extractor),
        ("memory", memory),
    ]
