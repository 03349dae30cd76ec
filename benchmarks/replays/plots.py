"""The regret plot of replays: the expected fid of the incumbent over compute, with bands over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from replays.scores import Curves

MINE = "gansweep"
_DRAWN = 7  # methods in one plot: ours, random, and those that come next; more would hide one another


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
    for (table, count), curves in drawn.items():
        panel = axes[tables.index(table)][workers.index(count)]
        _panel(panel, curves)
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


def _panel(panel: object, curves: Mapping[str, Curves]) -> None:
    first = [name for name in (MINE, "random", "random+asha") if name in curves]
    rest = sorted(curves.keys() - set(first), key=lambda name: float(np.log(curves[name].middle).mean()))
    for name in [*first, *rest[: _DRAWN - len(first)]]:
        curve = curves[name]
        compute = curve.grid / curve.grid[-1]
        style = {"linewidth": 2.2 if name == MINE else 1.1, "label": name}
        (line,) = panel.plot(compute, curve.middle, **style)  # type: ignore[attr-defined]
        if name in (MINE, "random"):
            low, high = np.quantile(curve.truth, [0.25, 0.75], axis=0)
            panel.fill_between(compute, low, high, color=line.get_color(), alpha=0.15)  # type: ignore[attr-defined]
    panel.axhline(curves["random"].middle[-1], color="grey", linewidth=0.8, linestyle=":")  # type: ignore[attr-defined]
    panel.set_xscale("log")  # type: ignore[attr-defined]
    panel.set_yscale("log")  # type: ignore[attr-defined]
