"""The report: every trial in it, nothing of the network in it, nothing in it that can break out."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import SweepError
from pipeline.records import METRICS, TrialRecord
from pipeline.reporting import history
from pipeline.reporting.html import figures as drawing
from pipeline.reporting.html.report import write_report
from pipeline.reporting.leaderboard import text_table
from pipeline.search import study_figures
from pipeline.search.space.parser import parse_space

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
FIDS = {0: [90.0, 40.0, 44.0], 1: [120.0, 100.0], 2: [80.0, 30.0, 12.5], 3: [], 4: [70.0, 60.0, 55.0]}
STATES = {0: "complete", 1: "pruned", 2: "complete", 3: "failed", 4: "complete"}


def record(trial: int, kimg: int, fid: float | None, best: float | None) -> TrialRecord:
    fields: dict[str, Any] = {field.name: 0.5 for field in dataclasses.fields(TrialRecord)}
    fields.update(trial=trial, kimg=kimg, verdict="healthy", fid=fid, best_fid=best, best_kimg=kimg)
    return TrialRecord(**fields)


def leader(trial: int) -> dict[str, Any]:
    fids = FIDS[trial]
    best = min(fids, default=None)
    return {
        "trial": trial, "state": STATES[trial], "fid": best, "balance": 0.1 * trial if fids else None,
        "auc": 0.7, "kimg": 5 * (fids.index(best) + 1) if best else None, "last_kimg": 5 * len(fids),
        "verdict": "d_wins" if trial == 1 else "healthy", "stability": fids[-1] / best if best else None,
        "params": {"lr_g": 1e-4 * (trial + 1), "loss": "hinge", "width_g": 8 * (trial + 1)},
        "cause": EVIL if trial == 3 else "",
    }  # fmt: skip


MEASURED = {"n": 5000, "fid_low": 12.0, "fid_high": 14.0, "fid_held": 13.25, "verdicts": ["x"], "kid": None}
SPACE = """
[space.fixed]
kimg = 20
[space.search]
lr_g = { float = [1e-5, 1e-2], log = true }
width_g = { int = [4, 64], log = true }
loss = { choice = ["hinge"] }
"""


def write_spool(path: Path) -> None:
    """What the spool tells of beginnings and ends."""
    ends = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    with path.open("w") as spool:
        for trial in FIDS:
            end = {
                "event": "end",
                "trial": trial,
                "status": ends[STATES[trial]],
                "cause": f"cause of {trial}",
            }
            for event in ({"event": "start", "trial": trial, "params": leader(trial)["params"]}, end):
                spool.write(json.dumps(event) + "\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of five trials, as its files lie on disk."""
    root = tmp_path_factory.mktemp("sweep") / "tiny"
    for trial, fids in FIDS.items():
        folder = root / "trials" / str(trial)
        (folder / "samples").mkdir(parents=True)
        records = [record(trial, 5 * (i + 1), fid, min(fids[: i + 1])) for i, fid in enumerate(fids)]
        (folder / "records.jsonl").write_text("".join(r.to_json() + "\n" for r in records))
    grid = Image.fromarray(np.arange(80 * 40, dtype=np.uint32).astype(np.uint8).reshape(40, 80))
    for kimg in (5, 10, 15):
        grid.save(root / "trials" / "2" / "samples" / f"{kimg:06d}.png")
    write_spool(root / "spool.jsonl")
    (root / "sweep.toml").write_text(SPACE)
    best = {key: leader(2)[key] for key in ("trial", "fid", "balance", "kimg", "params")}
    summary = {
        "name": "tiny <b>", "state": "finished", "wall_seconds": 3723.4, "kimg_total": 55,
        "trials": {"complete": 3, "pruned": 1, "failed": 1, "running": 0}, "best": best,
        "leaderboard": [leader(trial) for trial in (2, 0, 4, 1, 3)],
        "evaluator": {"extractor": "classifier", "hash": "0123456789abcdef", "samples": 2000},
        "registered": {"name": "tiny", "version": "1", "alias": "champion", "uri": "models:/tiny@champion"},
        "finalists": [{"best": {**best, "search_fid": best["fid"]}, "measurement": MEASURED}],
    }  # fmt: skip
    (root / "summary.json").write_text(json.dumps(summary))
    return root


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return write_report(finished).read_text(encoding="utf-8")


def without_plotly(page: str) -> str:
    """The page less the one long script of others."""
    scripts = re.findall(r"<script>.*?</script>", page, flags=re.DOTALL)
    return page.replace(max(scripts, key=len), "")


def figures(page: str) -> dict[str, Any]:
    found = re.findall(r'data-plot="plot-(\w+)">(.*?)</script>', page)
    return {name: json.loads(content) for name, content in found}


def test_the_page_is_one_file_that_asks_for_nothing(finished: Path, page: str) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "summary.json", "sweep.toml", "spool.jsonl", "trials", "report.html"
    }, "and no temporary file is left"  # fmt: skip
    assert page.count("plotly.js v") == 1, "plotly.js is embedded once"
    ours = without_plotly(page)
    assert not re.search(r"https?://", ours)
    asked = re.findall(r"<[^>]*\b(?:src|href)=[\"']?([^\"' >]*)", ours)
    assert all(url.startswith(("data:", "#")) for url in asked)
    assert "default-src 'none'" in ours, "and a browser would refuse to ask"
    assert "prefers-color-scheme: dark" in ours
    assert 'name="viewport"' in ours


def test_every_trial_is_a_row_best_first(page: str) -> None:
    body = re.search(r"<tbody>(<tr data-trial=.*?)</tbody>", page)
    assert body is not None
    numbers = [int(n) for n in re.findall(r'<td class="trial" data-value="(\d+)"', body.group(1))]
    assert numbers == [2, 0, 4, 1, 3]
    assert '<td class="fid" data-value="12.5">12.5</td>' in body.group(1)
    assert '<td class="stability" data-value="1.1">1.10</td>' in body.group(1)
    assert "lr_g=0.0003 width_g=24" in body.group(1), "what differs is in the row"
    assert "loss=hinge" not in body.group(1), "what does not is told once"
    assert "<dt>loss</dt><dd>hinge</dd>" in page


def test_texts_are_escaped_everywhere(page: str) -> None:
    ours = without_plotly(page)
    assert EVIL not in ours
    assert "&lt;/script&gt;&lt;script&gt;alert(" in ours
    assert "<h1>tiny &lt;b&gt;</h1>" in ours
    assert "<title>tiny &lt;b&gt; - gansweep</title>" in ours


def test_numbers_are_defined_on_hover_and_in_a_list(page: str) -> None:
    assert 'title="1 - |2 AUC - 1|: 1 = D at chance, 0 = one side has won; at the best fid"' in page
    assert all(f"<dt>{name}</dt>" in page for name in METRICS)


def test_the_champions_grid_is_inlined_and_its_life_is_a_strip(page: str) -> None:
    ours = without_plotly(page)
    assert ours.count("data:image/png;base64,iVBORw0KGgo") == 2, "in its section and where its trial opens"
    assert "Samples of its EMA generator at 15 kimg" in page
    assert "a row per tick (5, 10, 15 kimg)" in page


def test_the_sections_come_in_their_order(page: str) -> None:
    names = re.findall(r'<section id="(\w+)"', page)
    assert names[:5] == "champion looks life all balance".split()
    assert names[5:] == "coordinates importances slices savings progress space definitions".split()


def test_the_figures_hold_the_sweeps_numbers(page: str) -> None:
    drawn = figures(page)
    assert list(drawn) == "life balance coordinates importances slices savings progress space".split()
    champion = next(trace for trace in drawn["life"]["data"] if trace["name"] == "champion")
    assert champion["y"] == [80.0, 30.0, 12.5]
    assert [trace["name"] for trace in drawn["balance"]["data"]] == ["d_wins", "healthy", "champion"]
    lowest = drawn["progress"]["data"][1]["y"]
    assert list(lowest) == [40.0, 40.0, 12.5, 12.5]
    assert [trace["x"] for trace in drawn["savings"]["data"]] == [[50.0], [5.0], [10.0]]
    axes = drawn["coordinates"]["layout"]["xaxis"]["ticktext"]
    assert axes == ["log10 fid", "loss", "lr_g", "width_g"]


def test_what_opens_of_a_trial(page: str) -> None:
    found = re.search(r'id="opened">(.*?)</script>', page)
    assert found is not None
    opened = json.loads(found.group(1))
    assert list(opened) == ["2", "0", "4", "1", "3"]
    assert opened["2"]["grid"].startswith("data:image/png;base64,")
    assert opened["0"]["curves"]["fid"] == [90.0, 40.0, 44.0]
    assert opened["3"]["cause"] == EVIL
    why = " ".join(opened["1"]["words"]["Why it lost"])
    assert "D won at 10 kimg" in why
    assert "It was stopped at 10 kimg" in why
    assert opened["1"]["params"]["width_g"] == "16"


def test_every_number_from_the_summary_says_where_it_stands_there(finished: Path, page: str) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    said = re.findall(r'data-key="([^"]+)" data-value="([^"]+)"', page)
    assert {
        "best.fid",
        "best.balance",
        "kimg_total",
        "trials.pruned",
        "finalists.0.measurement.fid_held",
    } <= {key for key, _ in said}
    for key, value in said:
        assert float(value) == looked_up(summary, key), key


def looked_up(summary: Any, key: str) -> Any:
    for step in key.split("."):
        summary = summary[int(step)] if step.isdigit() else summary[step]
    return summary


def test_finalists_and_facts_are_told(page: str) -> None:
    assert re.search(r">fid_held</th><td[^>]*>13.25</td>", page)
    assert "1:02:03" in page
    assert "models:/tiny@champion" in page


def test_a_shuffled_search_is_expected_to_find_the_mean_first_and_the_best_last() -> None:
    assert drawing.shuffled([4.0, 1.0, 7.0]) == pytest.approx([4.0, 2.0, 1.0])
    many = [float(n) for n in range(200)]
    assert drawing.shuffled(many)[0] == pytest.approx(99.5)
    assert drawing.shuffled(many)[99] == pytest.approx(201 / 101 - 1), "of n of 1 to N: (N+1)/(n+1)"


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        (lambda root: (root / "spool.jsonl").unlink(), "All trials"),
        (lambda root: (root / "spool.jsonl").write_bytes(b"\x00garbage\n{"), "All trials"),
        (lambda root: (root / "sweep.toml").write_bytes(b"\x00garbage"), "All trials"),
        (lambda root: (root / "summary.json").unlink(), "Champion: trial 2"),
        (lambda root: shutil.rmtree(root / "trials"), "Champion: trial 2"),
        (lambda root: (root / "trials/2/samples/000015.png").write_bytes(b"no png"), "Champion: trial 2"),
    ],
)
def test_partial_files_are_read_as_far_as_they_go(
    finished: Path, tmp_path: Path, damage: Callable[[Path], object], shown: str
) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    damage(root)
    assert shown in write_report(root).read_text(encoding="utf-8")


def test_trials_beyond_the_summary_are_told_by_spool_and_records(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    summary = json.loads((root / "summary.json").read_text())
    (root / "summary.json").write_text(json.dumps({**summary, "leaderboard": [leader(2)]}))
    with (root / "spool.jsonl").open("a") as spool:
        spool.write('{"event": "end", "tri')  # torn by a kill
    text = write_report(root).read_text(encoding="utf-8")
    assert "cause of 1" in text
    states = re.findall(r'<td class="state">(\w+)</td>', text)
    assert states == ["complete", "complete", "complete", "pruned", "failed"]


def test_an_empty_sweep_has_a_report_and_a_strange_folder_has_none(tmp_path: Path) -> None:
    new = {
        "name": "new",
        "state": "running",
        "leaderboard": [],
        "best": None,
        "wall_seconds": 0,
        "kimg_total": 0,
    }
    trials = dict.fromkeys(("complete", "pruned", "failed", "running"), 0)
    (tmp_path / "summary.json").write_text(json.dumps({**new, "trials": trials}))
    assert "No trial has a fid yet." in write_report(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(SweepError, match=r"holds summary.json; got .*nothing; pass DIR/NAME"):
        write_report(tmp_path / "nothing")


def test_importances_come_with_enough_trials_and_their_uncertainty() -> None:
    space = parse_space("[search]\nlr_g = { float = [1e-5, 1e-2], log = true }\nwidth_g = { int = [8, 64] }")
    rng = np.random.default_rng(0)

    def sweep(count: int) -> history.History:
        rates = 10 ** rng.uniform(-5, -2, count)
        drawn = ({"lr_g": float(r), "width_g": int(rng.integers(8, 65))} for r in rates)
        trials = [
            history.TrialView(n, "complete", p, fid=10 + abs(np.log(p["lr_g"]))) for n, p in enumerate(drawn)
        ]
        failed = history.TrialView(99, "failed", {"lr_g": 1e-3, "width_g": 8})
        return history.History(Path("x"), {}, (*trials, failed), {}, space)

    assert study_figures.draw_study(sweep(3).space, sweep(3).points)["importances"] is None
    drawn = study_figures.draw_study(sweep(20).space, sweep(20).points)
    bars = drawn["importances"].data[0]
    assert list(bars.y) == ["width_g", "lr_g"], "the one that matters is on top"
    assert bars.x[1] - bars.error_x.arrayminus[1] > bars.x[0] + bars.error_x.array[0], "beyond doubt"
    assert len(drawn["coordinates"].data) == 20, "the one without a fid is not in it"


def test_text_table_for_the_terminal() -> None:
    summary = {"leaderboard": [leader(trial) for trial in (3, 1, 2, 0)]}
    table = text_table(summary, limit=3)
    assert table[0] == ["trial", "state", "fid", "balance", "kimg", "stability", "verdict", "params"]
    assert table[1] == ["2", "complete", "12.5", "0.20", "15", "1.00", "healthy", "lr_g=0.0003 width_g=24"]
    assert [row[0] for row in table[1:]] == ["2", "0", "1"]
    assert text_table({}) == [table[0]]
    assert text_table({"leaderboard": [leader(3)]})[1][2:6] == ["-"] * 4


def test_parameters_of_some_trials_only_are_shown() -> None:
    trials = [
        history.TrialView(0, params={"loss": "hinge", "gamma": 1.0}),
        history.TrialView(1, params={"loss": "hinge"}),
    ]
    assert history.differing_params(trials) == ["gamma"]
