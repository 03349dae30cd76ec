"""The sizes of images that an architecture can draw: asked without building a network, and without torch."""

from __future__ import annotations

import functools

from pipeline.data.options import MAX_SIDE, MIN_SIDE
from pipeline.errors import ConfigError
from pipeline.tables import NETWORKS

SMALLEST_MAP = (4, 7)
"""Least and largest side, in pixels, of the smallest feature map of an architecture with `halves`."""


def halve(size: int) -> tuple[int, int] | None:
    """Side of the smallest feature map of images of `size` px, and how many halvings lead to it.

    None where halving does not lead to a side in `SMALLEST_MAP`, or needs no step.
    """
    low, high = SMALLEST_MAP
    side, steps = size, 0
    while side % 2 == 0 and side > high:
        side, steps = side // 2, steps + 1
    return (side, steps) if low <= side <= high and steps else None


def can_draw(architecture: str, size: int) -> bool:
    """Whether the architecture can draw images of `size` px; the user's own is assumed to."""
    row = NETWORKS.get(architecture)
    return row is None or not row.halves or halve(size) is not None


@functools.cache
def drawable_sizes(architecture: str) -> tuple[int, ...]:
    """All sizes that the architecture can draw and `--image-size` takes, ascending."""
    return tuple(size for size in range(MIN_SIDE, MAX_SIDE + 1) if can_draw(architecture, size))


def nearest_sizes(architecture: str, size: int) -> tuple[int, ...]:
    """`size` itself where the architecture can draw it; else the nearest below and above, those there are."""
    if can_draw(architecture, size):
        return (size,)
    below = [other for other in drawable_sizes(architecture) if other < size]
    above = [other for other in drawable_sizes(architecture) if other > size]
    return (*below[-1:], *above[:1])


def any_size() -> tuple[str, ...]:
    """The architectures that can draw images of any size."""
    return tuple(name for name, row in NETWORKS.items() if not row.halves)


def halvings(size: int, architecture: str) -> tuple[int, int]:
    """`halve`, for building an architecture.

    Raises:
        ConfigError: it cannot draw images of `size` px.
    """
    found = halve(size)
    if found is None:
        sizes = " or ".join(map(str, nearest_sizes(architecture, size)))
        others = " or ".join(f"'{name}'" for name in any_size())
        raise ConfigError(
            f"{architecture} cannot draw images of {size} px",
            rule="sizes are 4, 5, 6 or 7 times a power of two: 8, 16, 28, 32, 48, 64, ...",
            fix=f"pass --image-size {sizes}, or search architecture = {others}",
        )
    return found
