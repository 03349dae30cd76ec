"""HTML building blocks of the page: facts, tables, figures, sections. All text from files is escaped here.

A number from summary.json is in an element with `data-key` (its path there, such as `best.fid`) and
`data-value` (the number itself), so that the page can be compared with the summary.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.reporting.history import finite


@dataclass(frozen=True)
class Fact:
    """A named value.

    Attributes:
        name, text: what is shown.
        key, value: for a number of summary.json: its path there, and the number.
        hint: what it means, shown on hover.
    """

    name: str
    text: str
    key: str = ""
    value: object = None
    hint: str = ""


def esc(value: object) -> str:
    return html.escape(str(value))


def number(value: object, form: str = ".4g") -> str:
    """A number in the given format; "-" if it is unknown or not finite."""
    known = finite(value)
    return "-" if known is None else format(known, form)


def measured(name: str, value: object, key: str, hint: str = "", form: str = ".4g") -> Fact:
    """A fact whose number comes from `key` of summary.json."""
    return Fact(name, number(value, form), key, value, hint)


def source(key: str, value: object) -> str:
    """The attributes data-key and data-value of a number; empty if it is unknown or has no key."""
    known = finite(value)
    return "" if known is None or not key else f' data-key="{esc(key)}" data-value="{known!r}"'


def hinted(hint: str) -> str:
    return f' title="{esc(hint)}"' if hint else ""


def facts(items: Iterable[Fact], kind: str = "") -> str:
    """A definition list; facts without a value are left out."""
    shown = "".join(
        f"<div><dt{hinted(fact.hint)}>{esc(fact.name)}</dt>"
        f"<dd{source(fact.key, fact.value)}>{esc(fact.text)}</dd></div>"
        for fact in items
        if fact.text not in ("", "-", "None")
    )
    return f'<dl class="{kind}">{shown}</dl>' if shown else ""


def section(name: str, title: str, *parts: str) -> str:
    head = f'<h2 id="h-{name}">{title}</h2>'
    return f'<section id="{name}" aria-labelledby="h-{name}">{head}{"".join(parts)}</section>'


def note(text: str) -> str:
    return f'<p class="note">{prose(text)}</p>'


def prose(text: str) -> str:
    """Escaped text; words in backquotes become code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", esc(text))


def sentences(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{prose(line)}</li>" for line in lines) + "</ul>" if lines else ""


def scroll(label: str, content: str) -> str:
    """A box for content that may be wider than the page; it scrolls, with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}">{content}</div>'


def picture(uri: str, alt: str, caption: str = "", kind: str = "") -> str:
    """An image from a data URI; nothing if the URI is empty."""
    if not uri:
        return ""
    below = f"<figcaption>{esc(caption or alt)}</figcaption>"
    return f'<figure class="{kind}"><img src="{uri}" alt="{esc(alt)}">{below}</figure>'


def plot(name: str, label: str, figure: go.Figure | None, *, height: int = 380, width: int = 0) -> str:
    """The element that page.js draws a figure into, and its content; a sentence if there is nothing to draw.

    Args:
        name: the element's id is `plot-NAME`.
        label: description for screen readers.
        figure: None if there is nothing to draw.
        height, width: pixels; below `width` the figure scrolls instead of shrinking.
    """
    if figure is None or not figure.data:
        return note("Too few trials, or too little difference between them, for this figure.")
    figure.update_layout(template="none", margin={"l": 56, "r": 12, "t": 12, "b": 44}, height=height)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_layout(autosize=True, width=None)
    style = f"height:{height}px" + (f";min-width:{width}px" if width else "")
    # "<" is written as an escape, so that no text can end the script element early.
    content = figure.to_json().replace("<", "\\u003c")
    element = (
        f'<div class="plot" id="plot-{name}" role="figure" aria-label="{esc(label)}" style="{style}"></div>'
    )
    return (
        scroll(label, element) + f'<script type="application/json" data-plot="plot-{name}">{content}</script>'
    )
