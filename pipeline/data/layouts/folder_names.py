"""What the name of a folder says: a part of a split, the images themselves, or what belongs to them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

TRAIN, VALIDATION, TEST, EXTRA = "train", "validation", "test", "extra"
HELD = (VALIDATION, TEST)

_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "trainvalidation", "learn"), TRAIN),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "validating", "dev", "development"), VALIDATION
    ),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "heldout", "holdout"), TEST),
    **dict.fromkeys(("pred", "predict", "prediction"), TEST),
    **dict.fromkeys(("unlabeled", "unlabelled", "unsupervised", "extra"), EXTRA),
}
_PLAIN = frozenset(
    ("test", "testing", "tst", "val", "valid", "validation", "heldout", "holdout", "unlabeled", "unlabelled")
)
_NOISE = frozenset(
    ("set", "sets", "data", "dataset", "split", "part", "folder", "dir", "image", "images", "img", "imgs")
)
_IMAGES = frozenset(
    ("image", "images", "img", "imgs", "jpegimages", "pngimages", "jpg", "jpgs", "jpeg", "png", "pngs",
     "photos", "pictures", "rgb", "originals", "inputs", "leftimgbit")
)  # fmt: skip
_ANNOTATIONS = frozenset(
    ("annotation", "annotations", "annot", "annots", "label", "labels", "mask", "masks", "trimap", "trimaps",
     "segmentation", "segmentations", "segmentationclass", "segmentationobject", "seg", "segs", "gt",
     "groundtruth", "bbox", "bboxes", "boxes", "depth", "heatmaps", "keypoints", "landmarks", "labelimages",
     "semantic", "contours", "gtfine", "gtcoarse")
)  # fmt: skip


class SplitName(NamedTuple):
    """part: `train`, `validation`, `test` or `extra`. rest: the other words of the name."""

    part: str
    rest: str


def split_name(name: str) -> SplitName | None:
    """The part of a split that a folder's name says: `Training Set`, `val2017`, `cats_test`, `trainA`."""
    if part := _WORDS.get(letters(name)):
        return SplitName(part, "")
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = [re.sub(r"(?<=[A-Za-z])[0-9]+$", "", word) for word in re.split(r"[\W_]+", spread)]
    words = [re.sub(r"(?<=[a-z])(sets?|data|images|imgs)$", "", word) for word in words]
    parts = [_WORDS[word.casefold()] for word in words if word.casefold() in _WORDS]
    if len(parts) != 1 and EXTRA not in parts:
        return None
    rest = [
        word for word in words if word.strip("0123456789") and word.casefold() not in _NOISE | _WORDS.keys()
    ]
    return SplitName(EXTRA if EXTRA in parts else parts[0], " ".join(rest))


def is_split(names: Iterable[str]) -> bool:
    """Whether there is a folder to train on, and one that is held out, among folders of these names."""
    parts = {split.part for name in names if (split := split_name(name)) and not split.rest}
    return TRAIN in parts and not parts.isdisjoint(HELD)


def is_plain_split_name(name: str) -> bool:
    """Whether a name hardly means anything else: `test` and `valid` do, `dev`, `extra` and `train` may."""
    return letters(name) in _PLAIN


def is_images(name: str) -> bool:
    """Whether a folder is called after what it holds: `images`, `JPEGImages`."""
    return letters(name) in _IMAGES


def is_annotations(name: str) -> bool:
    """Whether a folder is called after what belongs to images: `masks`, `labels`."""
    return letters(name) in _ANNOTATIONS


def letters(name: str) -> str:
    """The letters of a name, in small ones."""
    return re.sub(r"[\W_\d]+", "", unicodedata.normalize("NFKC", name)).casefold()
