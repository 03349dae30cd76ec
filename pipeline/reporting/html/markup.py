"""Pieces of the page: facts, tables, figures, sections. Every text from outside is escaped here.

Owns: how a number carries its source and its meaning. Refuses: choosing what is shown.

A number from summary.json stands in an element with `data-key` (its path there, as `best.fid`) and
`data-value` (the number itself), so that page and summary can be compared.
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
    """A named value. key: where summary.json has it, with the number `value`; hint: what it means."""

    name: str
    text: str
    key: str = ""
    value: object = None
    hint: str = ""


def esc(value: object) -> str:
    return html.escape(str(value))


def number(value: object, form: str = ".4g") -> str:
    """A number in few digits; "-" where it is not known."""
    known = finite(value)
    return "-" if known is None else format(known, form)


def measured(name: str, value: object, key: str, hint: str = "", form: str = ".4g") -> Fact:
    """A number of summary.json."""
    return Fact(name, number(value, form), key, value, hint)


def source(key: str, value: object) -> str:
    """The attributes that tell where a number comes from."""
    known = finite(value)
    return "" if known is None or not key else f' data-key="{esc(key)}" data-value="{known!r}"'


def hinted(hint: str) -> str:
    return f' title="{esc(hint)}"' if hint else ""


def facts(items: Iterable[Fact], kind: str = "") -> str:
    """A list of definitions; what is not known is left out."""
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
    """A sentence; what stands in backquotes is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", esc(text))


def sentences(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{prose(line)}</li>" for line in lines) + "</ul>" if lines else ""


def scroll(label: str, content: str) -> str:
    """A part that may be wider than the page; with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}">{content}</div>'


def picture(uri: str, alt: str, caption: str = "", kind: str = "") -> str:
    """An image from a data URI; nothing where there is none."""
    if not uri:
        return ""
    below = f"<figcaption>{esc(caption or alt)}</figcaption>"
    return f'<figure class="{kind}"><img src="{uri}" alt="{esc(alt)}">{below}</figure>'


def plot(name: str, label: str, figure: go.Figure | None, *, height: int = 380, width: int = 0) -> str:
    """A place for a figure and its content; a sentence where there is nothing to draw.

    width: pixels below which it scrolls instead of shrinking.
    """
    if figure is None or not figure.data:
        return note("Too few trials, or too much alike, for this figure.")
    figure.update_layout(template="none", margin={"l": 56, "r": 12, "t": 12, "b": 44}, height=height)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_layout(autosize=True, width=None)
    style = f"height:{height}px" + (f";min-width:{width}px" if width else "")
    # "<" cannot end the script element early once it is written as an escape.
    content = figure.to_json().replace("<", "\\u003c")
    place = (
        f'<div class="plot" id="plot-{name}" role="figure" aria-label="{esc(label)}" style="{style}"></div>'
    )
    return (
        scroll(label, place) + f'<script type="application/json" data-plot="plot-{name}">{content}</script>'
    )
