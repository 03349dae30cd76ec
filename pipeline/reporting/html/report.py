"""Writes report.html from the files of a sweep: one file that needs no network.

`templates` has the document, its styles and its script; `champion`, `trust`, `trials` and `sections` compute
what it shows, `figures` and `pictures` make the plots and images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.config import SweepPaths
from pipeline.reporting.explain.narrative import how_it_searched, next_steps
from pipeline.reporting.explain.regions import MIN_TRIALS, best_trials, regions
from pipeline.reporting.history import History, read_history
from pipeline.reporting.html import commands, sections
from pipeline.reporting.html.cells import prose
from pipeline.reporting.html.champion import top_section, walks, won_section
from pipeline.reporting.html.savings import compute_savings
from pipeline.reporting.html.trials import trials_section
from pipeline.reporting.html.trust import trust_section
from pipeline.storage.files import write_text
from pipeline.storage.summary_file import SweepState


def write_report(root: Path, state: SweepState | None = None) -> Path:
    """Write report.html (5 MB of it plotly.js) from what the sweep has written so far; returns its path.

    state: to show in place of that in summary.json, which says `finished` when the report is there.

    Raises:
        SweepError: `root` is not a sweep's folder.
    """
    history = read_history(root)
    if state is not None and history.summary is not None:
        history = replace(history, summary=replace(history.summary, state=state))
    return write_page(history)


def write_page(history: History) -> Path:
    """Write report.html from a history that was read before; returns its path."""
    path = SweepPaths(history.root).report
    write_text(path, render_page(history))
    return path


def render_page(history: History) -> str:
    """The whole page as HTML."""
    best = best_trials(history)
    region = regions(history, best) if len(best) >= MIN_TRIALS else []
    saved = compute_savings(history)
    page = _templates(history).get_template("page.html.j2")
    return page.render(
        name=history.name,
        headline=sections.headline(history),
        top=top_section(history),
        walks=walks(history),
        trust=trust_section(history),
        won=won_section(history),
        searched_by=how_it_searched(history),
        overview=sections.overview(history),
        trials=trials_section(history),
        plots=sections.plots(history, region, saved),
        saved=sections.saved_facts(history, saved),
        region=sections.region_table(region) if region else (),
        best_trials=len(best),
        searched=len(history.space.search) if history.space else 0,
        failed=sections.failed_section(history),
        next_steps=next_steps(history),
        tools=commands.tools(history),
        definitions=sections.definitions(),
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def _templates(history: History) -> Environment:
    loader = PackageLoader("pipeline.reporting.html")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = commands.folder(history)
    environment.filters["prose"] = lambda text: prose(str(text).replace("SWEEP_DIR", folder))
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment
