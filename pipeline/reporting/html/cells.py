"""The texts, numbers and plots that the templates of the page show.

A number from summary.json has its key there (such as `best.fid`): the page can be compared with the summary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import plotly.graph_objects as go
from markupsafe import Markup, escape

from pipeline.storage.readable import finite, readable_number


@dataclass(frozen=True)
class Cell:
    """A text of a definition list or a table; hint: what it means, shown on hover.

    key, value: for a number of summary.json: its path there, and the number. heading: of its row in a table.
    """

    text: str
    hint: str = ""
    key: str = ""
    value: float | None = None
    heading: bool = False

    @property
    def known(self) -> bool:
        """Whether a definition list shows it."""
        return self.text not in ("", "-", "None")


def measured(value: object, key: str, hint: str = "", form: str = ".4g") -> Cell:
    """The number at `key` of summary.json."""
    return Cell(readable_number(value, form), hint, key, finite(value))


def prose(text: str) -> Markup:
    """Escaped text; words in backquotes become code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def figure_json(figure: go.Figure | None) -> Markup | None:
    """What page.js draws, which fills its element; None if there is nothing to draw."""
    if figure is None or not figure.data:
        return None
    figure.update_layout(template="none", margin={"l": 56, "r": 12, "t": 12, "b": 44})
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_layout(autosize=True, width=None, height=None)
    # "<" is written as an escape, so that no text can end the script element early.
    return Markup(figure.to_json().replace("<", "\\u003c"))
