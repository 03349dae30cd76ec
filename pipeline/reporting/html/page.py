"""The frame of report.html and the order of its sections.

The page is one file that needs no network and is readable in light mode, dark mode and on a telephone.
page.css has its styles, page.js its behaviour.
"""

from __future__ import annotations

from importlib import resources

import plotly.offline

from pipeline.reporting.history import History
from pipeline.reporting.html import champion, pictures, sections, trials
from pipeline.reporting.html.markup import esc
from pipeline.search import study_figures

_CONTENTS = {
    "champion": "champion",
    "looks": "looks",
    "life": "life",
    "all": "all trials",
    "balance": "balance",
    "coordinates": "parameters",
    "savings": "savings",
    "progress": "progress",
    "space": "space",
}


def render_page(history: History) -> str:
    """The whole page as HTML."""
    name = esc(history.name)
    links = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in _CONTENTS.items())
    searched = len(history.space.search) if history.space else 0
    body = [
        f"<h1>{name}</h1><nav aria-label='sections'>{links}</nav>{sections.overview(history)}",
        champion.champion(history),
        champion.looks(history),
        champion.life(history),
        trials.table(history, pictures.thumbnails(history)),
        sections.balance(history),
        sections.search(study_figures.draw_study(history.space, history.points), searched),
        sections.saved(history),
        sections.progress(history),
        sections.space(history),
        sections.definitions(),
    ]
    return _HTML.format(
        title=name,
        css=_asset("page.css"),
        body="\n".join(body),
        plotly=plotly.offline.get_plotlyjs(),
        js=_asset("page.js"),
    )


def _asset(name: str) -> str:
    return (resources.files("pipeline.reporting.html") / name).read_text(encoding="utf-8")


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title} - gansweep</title>
<style>{css}</style>
</head>
<body>
<main>
{body}
</main>
<script>{plotly}</script>
<script>{js}</script>
</body>
</html>
"""
