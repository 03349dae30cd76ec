"""Copies of an image within a data set: exact ones, and near ones such as the same picture in another file
format.

Every image has a small descriptor: its brightness in box averages on a grid of about 16x16, its colour on one
of 4x4. Near copies are images whose descriptors differ by less than `NEAR_RMS` levels of 255 per value (root
mean square), and by less than a twentieth of what two images of the set differ by. A photograph saved again
as JPEG of quality 60 differs by 1.4 at most; the nearest two of MNIST's 5,000 digits by 7. Shifted, cropped
or mirrored copies are not found. All comparisons that decide are of whole numbers, so that every machine
finds the same copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.data.pictures import to_picture
from pipeline.data.source_types import Labels, Pixels

NEAR_RMS = 2.0
MAX_SHARE = 0.05
"""A chain of near copies (a film, a stack of slices) longer than this share of the set is none."""
_GRID, _COARSE_GRID, _MANY = 16, 8, 200_000
_SAMPLE = 1000
_COLOUR = 4
_DIRECTIONS = 8
_MAX_PAIRS_PER_IMAGE = 64

Descriptors = npt.NDArray[np.uint8]


class Copies(NamedTuple):
    """groups: int64 (N,), the same number for copies of one image, -1 for images without copies.

    exact: how many images are the same as an earlier one, pixel by pixel. near: how many others are near
    copies of an earlier one. note: what could not be judged; "" = nothing.
    """

    groups: Labels
    exact: int
    near: int
    note: str = ""


def describe(images: Pixels, total: int) -> Descriptors:
    """The descriptors uint8 (n,d) of images uint8 (n,S,S,C).

    total: images of the set; of many they are coarser.
    """
    cells = _GRID if total <= _MANY else _COARSE_GRID
    small = _shrink(images, max(1, round(images.shape[1] / cells)))
    count, grid, _, channels = small.shape
    if channels == 1:
        return small.reshape(count, -1)
    # Brightness everywhere, colour coarsely: JPEG keeps no more of it.
    planes = np.asarray(to_picture(small.reshape(-1, grid, 3)).convert("YCbCr")).reshape(small.shape)
    coarse = planes[:, : grid // _COLOUR * _COLOUR, : grid // _COLOUR * _COLOUR, 1:]
    colour = coarse.reshape(count, grid // _COLOUR, _COLOUR, grid // _COLOUR, _COLOUR, 2)
    colour = (colour.sum((2, 4), dtype=np.uint16) // _COLOUR**2).astype(np.uint8)
    return np.concatenate([planes[..., 0].reshape(count, -1), colour.reshape(count, -1)], 1)


def _shrink(images: Pixels, factor: int) -> Pixels:
    """The averages uint8 (n,G,G,C) of images (n,S,S,C) in cells of `factor` pixels; a rest is cut off."""
    count, side, _, channels = images.shape
    grid, narrow = side // factor, np.uint16 if factor <= 257 else np.uint32  # 257 x 255 fits 16 bits
    used = images[:, : grid * factor, : grid * factor]
    rows = used.reshape(count, grid, factor, grid * factor * channels).sum(2, dtype=narrow)
    rows = rows.astype(np.uint32)
    # einsum: `sum` over an axis that is followed by a short one is three times slower.
    sums = np.einsum("abcde->abce", rows.reshape(count, grid, grid, factor, channels))
    return np.asarray(sums // factor**2, np.uint8)


def find_copies(descriptors: Descriptors, image_of: Callable[[int], Pixels]) -> Copies:
    """The groups of copies among N images. image_of: image i, uint8 (S,S,C); asked for where it may be a
    copy.
    """
    distinct, index = np.unique(descriptors, axis=0, return_inverse=True)
    index = index.reshape(-1)
    if len(distinct) < 2:
        groups = np.zeros(len(descriptors), np.int64)
        return Copies(groups, *_count(groups, index, image_of))
    pairs, note = _near_pairs(distinct)
    component = _components(len(distinct), pairs)
    is_chain = _without_centre(component, pairs)
    component = component[index]
    sizes = np.bincount(component)
    chained = (is_chain & (sizes > max(MAX_SHARE * len(descriptors), 8)))[component]
    if chained.any():
        note = f"{int(chained.sum())} images form chains of near copies: only the exact ones count as copies"
        component = np.where(chained, len(sizes) + index, component)
    _, component, sizes = np.unique(component, return_inverse=True, return_counts=True)
    groups = np.where(sizes[component] > 1, component, -1).astype(np.int64)
    return Copies(groups, *_count(groups, index, image_of), note)


def with_frames(groups: Labels, files: Sequence[str]) -> Labels:
    """`groups` joined with those of the images that come from one file: int64 (N,), -1 = alone."""
    _, file = np.unique(np.array(files), return_inverse=True)
    rows, count = np.arange(len(groups)), len(groups) + int(file.max()) + 1
    copies = groups >= 0
    ends = np.concatenate([len(groups) + file, count + groups[copies]])
    pairs = np.stack([np.concatenate([rows, rows[copies]]), ends], 1)
    component = _components(count + int(groups.max(initial=-1)) + 1, pairs)[: len(groups)]
    sizes = np.bincount(component)
    return np.where(sizes[component] > 1, component, -1).astype(np.int64)


def _near_pairs(distinct: Descriptors) -> tuple[npt.NDArray[np.int64], str]:
    """Pairs int64 (p,2) of distinct descriptors that are near; and why not all of them are there."""
    from scipy.spatial import cKDTree  # a fifth of a second

    few = distinct[np.linspace(0, len(distinct) - 1, min(len(distinct), _SAMPLE)).astype(int)].astype(
        np.float64
    )
    spread = float(np.sqrt(((few - few[np.random.RandomState(0).permutation(len(few))]) ** 2).mean()))
    limit = int(distinct.shape[1] * min(NEAR_RMS, spread / 20) ** 2)  # of the sum of squared differences
    # A distance is never smaller than that of projections: a tree in few dimensions misses no pair.
    _, _, directions = np.linalg.svd(few - few.mean(0), full_matrices=False)
    blocks = np.array_split(distinct, max(1, len(distinct) // 4096))
    points = np.concatenate([block @ directions[:_DIRECTIONS].T for block in blocks])
    tree, radius = cKDTree(points), limit**0.5 + 1e-3
    if tree.count_neighbors(tree, radius) > (_MAX_PAIRS_PER_IMAGE + 1) * len(distinct):
        return np.empty((0, 2), np.int64), "the images are so alike that near copies cannot be told from them"
    pairs = tree.query_pairs(radius, output_type="ndarray").astype(np.int64)
    near = [
        ((distinct[a].astype(np.int32) - distinct[b].astype(np.int32)) ** 2).sum(1) <= limit
        for a, b in (block.T for block in np.array_split(pairs, max(1, len(pairs) // 4096)))
    ]
    return pairs[np.concatenate(near)], ""


def _components(count: int, pairs: npt.NDArray[np.int64]) -> Labels:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def _without_centre(component: Labels, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Of each component, whether no member is near to all others, as no frame of a film is."""
    nearest = np.zeros(int(component.max()) + 1, np.int64)
    np.maximum.at(nearest, component, np.bincount(pairs.ravel(), minlength=len(component)))
    found: npt.NDArray[np.bool_] = nearest < np.bincount(component) - 1
    return found


def _count(groups: Labels, index: Labels, image_of: Callable[[int], Pixels]) -> tuple[int, int]:
    """How many images are exact copies of an earlier one, and how many others are near copies of one."""
    rows = np.flatnonzero(groups >= 0)
    seen = {(int(index[row]), _digest(image_of(int(row)))) for row in rows}
    exact = len(rows) - len(seen)
    return exact, len(rows) - len(np.unique(groups[rows])) - exact


def _digest(image: Pixels) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
