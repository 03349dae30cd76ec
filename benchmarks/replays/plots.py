"""The regret plot of replays: the expected fid of the incumbent over compute, with bands over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from replays.scores import Curves

_FIRST = ("gansweep", "random", "random+asha")
_DRAWN = 7  # methods: those and the next best ones; more would hide one another


def plot_regret(drawn: Mapping[tuple[str, int], Mapping[str, Curves]], path: Path) -> None:
    """A panel per table and number of workers: medians as lines, quartiles of ours and random's as bands."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    tables = list(dict.fromkeys(table for table, _ in drawn))
    workers = list(dict.fromkeys(count for _, count in drawn))
    figure, axes = pyplot.subplots(
        len(tables), len(workers), figsize=(5.2 * len(workers), 3.4 * len(tables)), squeeze=False
    )
    methods = shown_methods(drawn)
    for (table, count), curves in drawn.items():
        panel = axes[tables.index(table)][workers.index(count)]
        _panel(panel, curves, methods)
        panel.set_title(f"{table}, {count} workers")
    for panel in axes[-1]:
        panel.set_xlabel("compute, of random search's")
    for row in axes:
        row[0].set_ylabel("expected fid of the incumbent")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"new-{path.name}")
    figure.savefig(fresh, metadata={"Date": None} if path.suffix == ".svg" else None)
    fresh.replace(path)
    pyplot.close(figure)


def shown_methods(drawn: Mapping[tuple[str, int], Mapping[str, Curves]]) -> list[str]:
    """Ours, random search without and with ASHA, and the others of most panels that are best at the end."""
    ends: dict[str, list[float]] = {}
    for curves in drawn.values():
        for method, curve in curves.items():
            ends.setdefault(method, []).append(float(np.log(curve.middle[-1] / curves["random"].middle[-1])))
    others = sorted(ends.keys() - set(_FIRST), key=lambda m: (-len(ends[m]), np.mean(ends[m]), m))
    return [*(method for method in _FIRST if method in ends), *others][:_DRAWN]


def _panel(panel: Any, curves: Mapping[str, Curves], methods: Sequence[str]) -> None:
    for number, method in enumerate(methods):
        if method not in curves:
            continue
        curve, colour = curves[method], f"C{number}"
        compute = curve.grid / curve.grid[-1]
        width = 2.2 if method == _FIRST[0] else 1.1
        panel.plot(compute, curve.middle, color=colour, linewidth=width, label=method)
        if method in _FIRST[:2]:
            low, high = np.quantile(curve.truth, [0.25, 0.75], axis=0)
            panel.fill_between(compute, low, high, color=colour, alpha=0.15)
    panel.axhline(curves["random"].middle[-1], color="grey", linewidth=0.8, linestyle=":")
    panel.set_xscale("log")
    panel.set_yscale("log")
