"""report.html: one file that needs no network, readable in light, in dark and on a telephone.

Owns: the markup, its style and its few lines of script. Refuses: choosing what is in it.
Every text that comes from the sweep's files is escaped here.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.offline

from pipeline.checkpoint import grid_path
from pipeline.config import SweepPaths
from pipeline.evaluation import MEANINGS
from pipeline.records import METRICS
from pipeline.report.rows import COLUMNS, Row, cell_text, differing_params, finite, short

_RUN = {
    "trial": "and its configuration trained again with other seeds",
    "kimg": "of its best tick",
    "search fid": "the best of its ticks, as the search saw it",
    "fresh fid": "mean of fids just like it, with fresh latents",
    "luck": "fresh fid - search fid: above 0, the search saw it better than it is (the winner's curse)",
    "final fid": "of more samples; the mean over a trial's seeds decides",
    "interval": "95 % of measurements of this size lie in it",
    "verdict": "why it may not be promoted",
}


def render(
    root: Path, summary: Mapping[str, Any], rows: Sequence[Row], figures: Mapping[str, go.Figure]
) -> str:
    name = html.escape(str(summary.get("name") or root.name))
    body = [
        f"<h1>{name}</h1>",
        _facts(summary),
        _champion(root, summary, rows),
        _finalists(summary),
        *(_figure(number, title, figure) for number, (title, figure) in enumerate(figures.items())),
        _table(rows),
        _definitions(),
    ]
    return _HTML.format(
        title=name, css=_CSS, body="\n".join(body), plotly=plotly.offline.get_plotlyjs(), js=_JS
    )


def _facts(summary: Mapping[str, Any]) -> str:
    trials = summary.get("trials") or {}
    evaluator = summary.get("evaluator") or {}
    registered = summary.get("registered") or {}
    counts = ", ".join(f"{count} {state}" for state, count in trials.items())
    measured = f"{evaluator.get('extractor')} {evaluator.get('hash')}, N={evaluator.get('samples')}"
    facts = {
        "state": summary.get("state", "unknown"),
        "trials": counts,
        "training": f"{short(summary.get('kimg_total', 0))} kimg in {_clock(summary.get('wall_seconds'))}",
        "evaluator": measured if evaluator else "",
        "registered": registered.get("uri") or registered.get("name") or "",
    }
    return _list(facts)


def _list(facts: Mapping[str, object], hints: Mapping[str, str] | None = None) -> str:
    items = "".join(
        f'<div><dt title="{html.escape((hints or {}).get(name, ""))}">{html.escape(name)}</dt>'
        f"<dd>{html.escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value not in ("", None)
    )
    return f"<dl>{items}</dl>"


def _clock(seconds: object) -> str:
    whole = int(finite(seconds) or 0)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _champion(root: Path, summary: Mapping[str, Any], rows: Sequence[Row]) -> str:
    best = summary.get("best") or {}
    number = best.get("trial", rows[0]["trial"] if rows and rows[0]["fid"] is not None else None)
    row = next((row for row in rows if row["trial"] == number), None)
    if row is None:
        return "<section><h2>Champion</h2><p>No trial has a fid yet.</p></section>"
    shown = ("fid", "balance", "auc", "kimg", "stability", "verdict")
    facts: dict[str, object] = {name: cell_text(row, name, ()) for name in shown}
    facts["fid"] = format(finite(best.get("fid")) or row["fid"], ".4g")
    settings = {str(name): short(value) for name, value in row["params"].items()}
    return (
        f"<section><h2>Champion: trial {html.escape(str(number))}</h2>{_list(facts, COLUMNS)}"
        f"{_grid(root, row)}<details open><summary>its hyper-parameters</summary>{_list(settings)}</details>"
        "</section>"
    )


def _finalists(summary: Mapping[str, Any]) -> str:
    """Every number measured again of the best trials, one column each."""
    finals = [final for final in summary.get("finalists") or [] if isinstance(final, dict)]
    measured = [(final.get("best") or {}, final.get("measurement") or {}) for final in finals]
    first = measured[0][1] if measured else {}
    names = [str(name) for name, value in first.items() if finite(value) is not None]
    if not names:
        return ""
    numbers = [html.escape(str(best.get("trial", "?"))) for best, _ in measured]
    heads = "".join(f'<th scope="col">trial {number}</th>' for number in numbers)
    lines = "".join(
        f'<tr><th scope="row" title="{html.escape(MEANINGS.get(name, ""))}">{html.escape(name)}</th>'
        + "".join(f"<td>{_measured(values.get(name))}</td>" for _, values in measured)
        + "</tr>"
        for name in names
    )
    return (
        f"<section><h2>Finalists, measured again with fresh latents</h2>{_runs(finals)}"
        '<div class="scroll"><table>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{lines}</tbody></table></div></section>"
    )


def _runs(finals: Sequence[Mapping[str, Any]]) -> str:
    """Every training of the finalists: what the search saw, and what was left of it."""
    heads = "".join(
        f'<th scope="col" title="{html.escape(meaning)}">{name}</th>' for name, meaning in _RUN.items()
    )
    lines = ""
    for final in finals:
        for index, run in enumerate(final.get("runs") or []):
            seen, fresh = finite(run.get("search_fid")), finite(run.get("fresh_fid"))
            gap = None if seen is None or fresh is None else fresh - seen
            low, high = _measured(run.get("fid_low")), _measured(run.get("fid_high"))
            told = "; ".join([*run.get("verdicts", []), run.get("problem", "")]).strip("; ")
            name = f"{final['best'].get('trial', '?')}" + (f", seed {index}" if index else "")
            numbers = [_measured(value) for value in (run.get("kimg"), seen, fresh, gap, run.get("fid"))]
            cells = [name, *numbers, f"[{low}, {high}]", told or "ok"]
            lines += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="scroll">{table}</div>' if lines else ""


def _measured(value: object) -> str:
    known = finite(value)
    return "-" if known is None else f"{known:.4g}"


def _grid(root: Path, row: Row) -> str:
    """The champion's samples at its best tick (or the last tick before that has any), inlined."""
    folder = SweepPaths(root).trial(int(row["trial"]))
    path = grid_path(folder, int(row["kimg"] or 0))
    if not path.is_file():
        earlier = [p for p in sorted(path.parent.glob("*.png")) if p.name <= path.name]
        if not earlier:
            return ""
        path = earlier[-1]
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    kimg = int(path.stem) if path.stem.isdigit() else "?"
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    caption = f"Samples of its EMA generator at {kimg} kimg"
    return f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _figure(number: int, title: str, figure: go.Figure) -> str:
    figure.update_layout(template="none", margin={"l": 56, "r": 12, "t": 12, "b": 44}, height=380)
    figure.update_layout(legend={"orientation": "h", "y": -0.2}, autosize=True, width=None)
    wide = " wide" if title == "Parallel coordinates" else ""
    # "<" cannot end the script element early once it is written as an escape.
    content = figure.to_json().replace("<", "\\u003c")
    return (
        f"<section><h2>{html.escape(title)}</h2>"
        f'<div class="scroll"><div class="plot{wide}" id="plot-{number}"></div></div>'
        f'<script type="application/json" data-plot="plot-{number}">{content}</script></section>'
    )


def _table(rows: Sequence[Row]) -> str:
    differing = differing_params(rows)
    heads = "".join(
        f'<th scope="col" title="{html.escape(meaning)}"><button type="button">{name}</button></th>'
        for name, meaning in COLUMNS.items()
    )
    lines = "".join(f"<tr>{_cells(row, differing)}</tr>" for row in rows)
    shared = {str(k): short(v) for k, v in (rows[0]["params"] if rows else {}).items() if k not in differing}
    same = f"<details><summary>the same in all trials</summary>{_list(shared)}</details>" if shared else ""
    return (
        f'<section><h2>All trials</h2><div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>{same}</section>"
    )


def _cells(row: Row, differing: Sequence[str]) -> str:
    cells = []
    for column in COLUMNS:
        value, text = row[column], cell_text(row, column, differing)
        number = value if isinstance(value, int | float) else None
        key = f' data-value="{number!r}"' if number is not None else ""
        cells.append(f'<td class="{column.replace(" ", "-")}"{key}>{html.escape(text)}</td>')
    return "".join(cells)


def _definitions() -> str:
    meanings = {**{name: meaning for name, (_, meaning) in METRICS.items()}, **COLUMNS}
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(meaning)}</dd></div>"
        for name, meaning in meanings.items()
    )
    heading = "<summary>What the numbers mean</summary>"
    return f'<section><details>{heading}<dl class="long">{items}</dl></details></section>'


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

_CSS = """
:root { color-scheme: light dark;
 --ink: #1b1f24; --dim: #59636e; --paper: #fff; --card: #f6f8fa; --line: #d1d9e0 }
@media (prefers-color-scheme: dark) {
 :root { --ink: #e6edf3; --dim: #9198a1; --paper: #0d1117; --card: #161b22; --line: #30363d }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1100px; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.6rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin: 0 0 .6rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px }
section { padding: 1rem; margin: 1rem 0 }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) }
dl { gap: .5rem 1rem; margin: .5rem 0 }
dl.long { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
dt { color: var(--dim); font-size: .8rem } dt[title]:not([title=""]) { cursor: help }
dd { margin: 0; overflow-wrap: anywhere }
figure { margin: 1rem 0 } figcaption { color: var(--dim); font-size: .8rem }
img { width: min(100%, 640px); image-rendering: pixelated; border-radius: 4px }
.scroll { overflow-x: auto } .plot { height: 380px } .plot.wide { min-width: 700px }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td:not(.params):not(.cause) { white-space: nowrap } td.params, td.cause { min-width: 16rem; font-size: .8rem }
th button { all: unset; cursor: pointer; font-weight: 600; white-space: nowrap }
th button:focus-visible { outline: 2px solid #0072B2 }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
summary { cursor: pointer }
"""

_JS = """
"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = [...document.querySelectorAll("script[data-plot]")].map(source => {
  const figure = JSON.parse(source.textContent);
  return [document.getElementById(source.dataset.plot), figure];
});
function dress(layout) {
  const css = getComputedStyle(document.documentElement), line = css.getPropertyValue("--line").trim();
  const dressed = structuredClone(layout);
  const light = dressed.plot_bgcolor === "white";  // Optuna's colours are made for it
  const ink = light ? "#1b1f24" : css.getPropertyValue("--ink").trim();
  dressed.font = {color: ink, family: "system-ui, sans-serif", size: 12};
  dressed.paper_bgcolor = light ? "#f6f8fa" : "rgba(0,0,0,0)";
  dressed.plot_bgcolor = "rgba(0,0,0,0)";
  dressed.modebar = {bgcolor: "rgba(0,0,0,0)", color: "#888", activecolor: ink};
  for (const axis of ["xaxis", "yaxis"])
    if (dressed[axis]) Object.assign(dressed[axis], {gridcolor: line, zerolinecolor: line, automargin: true});
  return dressed;
}
const config = {responsive: true, displaylogo: false};
config.displayModeBar = matchMedia("(hover: hover)").matches ? "hover" : false;
function draw() {
  for (const [place, figure] of plots) Plotly.react(place, figure.data, dress(figure.layout), config);
}
draw();
dark.addEventListener("change", draw);

document.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
  const head = button.parentElement, column = head.cellIndex, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  head.parentElement.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.value, text = row => row.cells[column].textContent;
  const blank = row => key(row) === undefined && ["", "-"].includes(text(row));
  const compare = (a, b) => key(a) !== undefined && key(b) !== undefined
    ? key(a) - key(b) : text(a).localeCompare(text(b));
  body.append(...[...body.rows].sort((a, b) =>
    blank(a) - blank(b) || (up ? compare(a, b) : compare(b, a))));
}));
"""
