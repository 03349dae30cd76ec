"use strict";
// What moves: figures in the reader's colours, the table's order and filters, one trial opened.

const dark = matchMedia("(prefers-color-scheme: dark)");
const hover = matchMedia("(hover: hover)").matches ? "hover" : false;
const config = {responsive: true, displaylogo: false, displayModeBar: hover};
const byId = id => document.getElementById(id);
const plots = [...document.querySelectorAll("script[data-plot]")].map(source => {
  const figure = JSON.parse(source.textContent);
  return [byId(source.dataset.plot), figure];
});

function dress(layout) {
  const css = getComputedStyle(document.documentElement);
  const ink = css.getPropertyValue("--ink").trim(), line = css.getPropertyValue("--line").trim();
  const dressed = structuredClone(layout);
  dressed.font = {color: ink, family: "system-ui, sans-serif", size: 12};
  dressed.paper_bgcolor = dressed.plot_bgcolor = "rgba(0,0,0,0)";
  dressed.modebar = {bgcolor: "rgba(0,0,0,0)", color: "#888", activecolor: ink};
  for (const name of Object.keys(dressed).filter(key => /^[xy]axis/.test(key)))
    Object.assign(dressed[name], {gridcolor: line, zerolinecolor: line, automargin: true},
      dressed[name].type === "log" && name[0] === "y" ? {dtick: "D2"} : {});
  return dressed;
}

function draw() {
  for (const [place, figure] of plots) Plotly.react(place, figure.data, dress(figure.layout), config);
}
draw();
dark.addEventListener("change", draw);

// The table: a click on a head sorts, blanks stay last; filters hide.

document.querySelectorAll("#trials th button").forEach(button => button.addEventListener("click", () => {
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

const rows = [...byId("trials").tBodies[0].rows];
function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = byId("only-state").value, verdict = byId("only-verdict").value;
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word))
      || (state && row.dataset.state !== state) || (verdict && row.dataset.verdict !== verdict);
    shown += !row.hidden;
  }
  byId("count").textContent = `${shown} of ${rows.length} trials`;
}
["filter", "only-state", "only-verdict"].forEach(id => byId(id).addEventListener("input", filter));

// One trial, opened over the page.

const opened = JSON.parse(byId("opened").textContent);
const make = (tag, text) => Object.assign(document.createElement(tag), {textContent: text});

function curves(of) {
  const line = (name, colour, axis) => ({
    x: of.kimg, y: of[name], name, yaxis: axis, mode: "lines+markers", line: {color: colour},
  });
  const layout = {
    height: 300, margin: {l: 56, r: 56, t: 12, b: 44}, legend: {orientation: "h", y: 1.02, yanchor: "bottom"},
    xaxis: {title: {text: "kimg"}}, yaxis: {title: {text: "fid"}, type: "log"},
    yaxis2: {title: {text: "balance"}, overlaying: "y", side: "right", range: [-0.02, 1.02], showgrid: false, tickvals: [0, .2, .4, .6, .8, 1]},
  };
  const traces = [line("fid", "#D55E00", "y"), line("balance", "#0072B2", "y2")];
  Plotly.react(byId("one-curves"), traces, dress(layout), config);
}

function open(number) {
  const trial = opened[number];
  byId("one-title").textContent = `trial ${number}`;
  const said = [trial.state, trial.verdict && `last tick: ${trial.verdict}`, trial.cause];
  byId("one-state").textContent = said.filter(Boolean).join("; ");
  byId("one-words").replaceChildren(...Object.entries(trial.words).flatMap(([heading, lines]) => {
    const list = document.createElement("ul");
    list.append(...lines.map(text => make("li", text)));
    return [make("h3", heading), list];
  }));
  byId("one-params").replaceChildren(...Object.entries(trial.params).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(make("dt", name), make("dd", value));
    return pair;
  }));
  byId("one-figure").hidden = !trial.grid;
  if (trial.grid) byId("one-grid").src = trial.grid;
  byId("one-curves").hidden = !trial.curves.kimg.length;
  byId("one").showModal();
  if (trial.curves.kimg.length) curves(trial.curves);
}
byId("trials").tBodies[0].addEventListener("click", event => {
  const row = event.target.closest("tr");
  if (row && !getSelection().toString()) open(row.dataset.trial);
});
