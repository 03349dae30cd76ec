"use strict";
// The figures in the colours of the page, the walks, sorting and filters of the table, the dialog of one trial.

const dark = matchMedia("(prefers-color-scheme: dark)");
const hover = matchMedia("(hover: hover)").matches ? "hover" : false;
const config = {responsive: true, displaylogo: false, displayModeBar: hover};
const byId = id => document.getElementById(id);
const plots = [...document.querySelectorAll("script[data-plot]")].map(source => {
  const figure = JSON.parse(source.textContent);
  return [byId(source.dataset.plot), figure];
});

// 1, 2 and 5 of every power of ten: plotly writes the 2 of 20 as 2.
const ticks = [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap(power => [1, 2, 5].map(digit => +`${digit}e${power}`));

function withTheme(layout) {
  const css = getComputedStyle(document.documentElement);
  const ink = css.getPropertyValue("--ink").trim(), line = css.getPropertyValue("--line").trim();
  const themed = structuredClone(layout);
  themed.font = {color: ink, family: "system-ui, sans-serif", size: 12};
  themed.paper_bgcolor = themed.plot_bgcolor = "rgba(0,0,0,0)";
  themed.modebar = {bgcolor: "rgba(0,0,0,0)", color: "#888", activecolor: ink};
  for (const name of Object.keys(themed).filter(key => /^[xy]axis/.test(key)))
    Object.assign(themed[name], {gridcolor: line, zerolinecolor: line, automargin: true},
      themed[name].type === "log" && name[0] === "y" ? {tickmode: "array", tickvals: ticks, ticktext: ticks.map(String)} : {});
  return themed;
}

function draw() {
  for (const [element, figure] of plots) Plotly.react(element, figure.data, withTheme(figure.layout), config);
}
draw();
dark.addEventListener("change", draw);

// The walks: a sprite has a column for each walk and a row for each frame.

const FRAME_MS = 100, still = matchMedia("(prefers-reduced-motion: reduce)").matches;
function startWalk(walk) {
  const sprite = walk.querySelector("img"), canvases = [...walk.querySelectorAll("canvas")];
  const button = walk.querySelector("button"), slider = walk.querySelector("input");
  const side = sprite.naturalWidth / canvases.length, frames = +slider.max + 1;
  let playing = !still, seen = false, waiting = false, last = 0;
  for (const canvas of canvases) {
    canvas.width = canvas.height = side;
    canvas.classList.toggle("pixels", side < 48);
  }
  const show = () => canvases.forEach((canvas, column) => canvas.getContext("2d").drawImage(
    sprite, column * side, slider.value * side, side, side, 0, 0, side, side));
  function run() {
    if (playing && seen && !waiting) requestAnimationFrame(step);
    waiting ||= playing && seen;
  }
  function step(now) {
    waiting = false;
    if (!playing) return;
    if (now - last >= FRAME_MS) {
      last = now;
      slider.value = (+slider.value + 1) % frames;
      show();
    }
    run();
  }
  function play(on) {
    playing = on;
    button.textContent = on ? "stop" : "play";
    button.setAttribute("aria-pressed", on);
    run();
  }
  button.addEventListener("click", () => play(!playing));
  slider.addEventListener("input", () => { play(false); show(); });
  new IntersectionObserver(entries => {
    seen = entries.at(-1).isIntersecting;
    run();
  }).observe(walk);
  show();
  play(playing);
}
document.querySelectorAll(".walk").forEach(walk =>
  walk.querySelector("img").decode().then(() => startWalk(walk), () => { walk.hidden = true; }));

// The table: a click on a heading sorts, rows without a value stay last; filters hide rows.

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

// The dialog of one trial.

const opened = JSON.parse(byId("opened").textContent);
const make = (tag, text) => Object.assign(document.createElement(tag), {textContent: text});

function drawCurves(series) {
  const line = (name, colour, axis) => ({
    x: series.kimg, y: series[name], name, yaxis: axis, mode: "lines+markers", line: {color: colour},
  });
  const layout = {
    height: 300, margin: {l: 56, r: 56, t: 12, b: 44}, legend: {orientation: "h", y: 1.02, yanchor: "bottom"},
    xaxis: {title: {text: "kimg"}}, yaxis: {title: {text: "fid"}, type: "log"},
    yaxis2: {title: {text: "balance"}, overlaying: "y", side: "right", range: [-0.02, 1.02], showgrid: false, tickvals: [0, .2, .4, .6, .8, 1]},
  };
  const traces = [line("fid", "#D55E00", "y"), line("balance", "#0072B2", "y2")];
  Plotly.react(byId("one-curves"), traces, withTheme(layout), config);
}

function open(number) {
  const trial = opened[number];
  byId("one-title").textContent = `trial ${number}`;
  const parts = [trial.state, trial.verdict && `last tick: ${trial.verdict}`, trial.cause];
  byId("one-state").textContent = parts.filter(Boolean).join("; ");
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
  if (trial.curves.kimg.length) drawCurves(trial.curves);
}
byId("trials").tBodies[0].addEventListener("click", event => {
  const row = event.target.closest("tr");
  if (row && !getSelection().toString()) open(row.dataset.trial);
});
