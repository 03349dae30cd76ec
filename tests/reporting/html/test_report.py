"""The report shows every trial, loads nothing from the network and escapes every text."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import SweepError
from pipeline.records import METRICS
from pipeline.reporting.html.report import write_report

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
FIDS = {0: [90.0, 40.0, 44.0], 1: [120.0, 100.0], 2: [80.0, 30.0, 12.5], 3: [], 4: [70.0, 60.0, 55.0]}
STATES = {0: "complete", 1: "pruned", 2: "complete", 3: "failed", 4: "complete"}


def leaderboard_row(trial: int) -> dict[str, Any]:
    fids = FIDS[trial]
    best = min(fids, default=None)
    return {
        "trial": trial, "state": STATES[trial], "fid": best, "balance": 0.1 * trial if fids else None,
        "auc": 0.7, "kimg": 5 * (fids.index(best) + 1) if best else None, "last_kimg": 5 * len(fids),
        "verdict": "d_wins" if trial == 1 else "healthy", "stability": fids[-1] / best if best else None,
        "params": {"lr_g": 1e-4 * (trial + 1), "loss": "hinge", "width_g": 8 * (trial + 1)},
        "cause": EVIL if trial == 3 else "",
    }  # fmt: skip


MEASURED = {
    "n": 5000, "fid_low": 12.0, "fid_high": 14.0, "fid_held": 13.25, "verdicts": ["x"], "kid": None,
    "custom": {"mine:brightness": 0.75},
}  # fmt: skip
SPACE = """
[space.fixed]
kimg = 20
[space.search]
lr_g = { float = [1e-5, 1e-2], log = true }
width_g = { int = [4, 64], log = true }
loss = { choice = ["hinge"] }
"""


def write_event_log(path: Path) -> None:
    """The start and end events of all trials."""
    ends = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    with path.open("w") as event_log:
        for trial in FIDS:
            end = {
                "event": "end",
                "trial": trial,
                "status": ends[STATES[trial]],
                "cause": f"cause of {trial}",
            }
            for event in (
                {"event": "start", "trial": trial, "params": leaderboard_row(trial)["params"]},
                end,
            ):
                event_log.write(json.dumps(event) + "\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a finished sweep of five trials."""
    root = tmp_path_factory.mktemp("sweep") / "tiny"
    for trial, fids in FIDS.items():
        folder = root / "trials" / str(trial)
        (folder / "samples").mkdir(parents=True)
        records = [
            factories.record(5 * (i + 1), fid, trial=trial, best_fid=min(fids[: i + 1]))
            for i, fid in enumerate(fids)
        ]
        (folder / "records.jsonl").write_text("".join(r.to_json() + "\n" for r in records))
    grid = Image.fromarray(np.arange(80 * 40, dtype=np.uint32).astype(np.uint8).reshape(40, 80))
    for kimg in (5, 10, 15):
        grid.save(root / "trials" / "2" / "samples" / f"{kimg:06d}.png")
    write_event_log(root / "spool.jsonl")
    (root / "sweep.toml").write_text(SPACE)
    best = {key: leaderboard_row(2)[key] for key in ("trial", "fid", "balance", "kimg", "params")}
    summary = {
        "name": "tiny <b>", "state": "finished", "wall_seconds": 3723.4, "kimg_total": 55,
        "trials": {"complete": 3, "pruned": 1, "failed": 1, "running": 0}, "best": best,
        "leaderboard": [leaderboard_row(trial) for trial in (2, 0, 4, 1, 3)],
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
    """The page without the script of plotly.js, the longest one."""
    scripts = re.findall(r"<script>.*?</script>", page, flags=re.DOTALL)
    return page.replace(max(scripts, key=len), "")


def figures(page: str) -> dict[str, Any]:
    found = re.findall(r'data-plot="plot-(\w+)">(.*?)</script>', page)
    return {name: json.loads(content) for name, content in found}


def test_the_page_is_one_file_that_loads_nothing(finished: Path, page: str) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "summary.json", "sweep.toml", "spool.jsonl", "trials", "report.html"
    }, "no temporary file is left"  # fmt: skip
    assert page.count("plotly.js v") == 1, "plotly.js is embedded once"
    ours = without_plotly(page)
    assert not re.search(r"https?://", ours)
    loaded = re.findall(r"<[^>]*\b(?:src|href)=[\"']?([^\"' >]*)", ours)
    assert all(url.startswith(("data:", "#")) for url in loaded)
    assert "default-src 'none'" in ours, "the browser refuses to load anything"
    assert "prefers-color-scheme: dark" in ours
    assert 'name="viewport"' in ours


def test_a_report_does_not_wait_for_mlflow_to_be_imported() -> None:
    code = "import sys, pipeline.reporting.html.report; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_trial_is_a_row_best_first(page: str) -> None:
    body = re.search(r"<tbody>\s*(<tr data-trial=.*?)</tbody>", page, flags=re.DOTALL)
    assert body is not None
    numbers = [int(n) for n in re.findall(r'<td class="trial" data-value="(\d+)"', body.group(1))]
    assert numbers == [2, 0, 4, 1, 3]
    assert '<td class="fid" data-value="12.5">12.5</td>' in body.group(1)
    assert '<td class="stability" data-value="1.1">1.10</td>' in body.group(1)
    assert "lr_g=0.0003 width_g=24" in body.group(1), "parameters that differ are in the row"
    assert "loss=hinge" not in body.group(1), "parameters that do not differ are listed once"
    assert "<dt>loss</dt><dd>hinge</dd>" in page


def test_texts_are_escaped_everywhere(page: str) -> None:
    ours = without_plotly(page)
    assert EVIL not in ours
    assert "&lt;/script&gt;&lt;script&gt;alert(" in ours
    assert "<h1>tiny &lt;b&gt;</h1>" in ours
    assert "<title>tiny &lt;b&gt; - gansweep</title>" in ours


def test_no_template_turns_escaping_off() -> None:
    templates = list((resources.files("pipeline.reporting.html") / "templates").iterdir())
    assert len(templates) > 1
    for template in templates:
        assert not re.search(r"\|\s*safe|autoescape", template.read_text(encoding="utf-8")), template.name


def test_numbers_are_defined_on_hover_and_in_a_list(page: str) -> None:
    assert 'title="1 - |2 AUC - 1|: 1 = D at chance, 0 = one side has won; at the best fid"' in page
    assert all(f"<dt>{name}</dt>" in page for name in METRICS)


def test_without_a_card_the_top_shows_the_grid_of_the_best_tick(page: str) -> None:
    ours = without_plotly(page)
    assert ours.count("data:image/png;base64,iVBORw0KGgo") == 2, "at the top and in the dialog of its trial"
    assert "Samples of trial 2 at 15 kimg" in page
    assert "walks in latent space" not in ours
    assert "a row per tick (5, 10, 15 kimg)" in page


def test_the_sections_come_in_their_order(page: str) -> None:
    names = re.findall(r'<section id="(\w+)"', page)
    assert names == "champion trust won search failed next tools definitions".split()
    anchors = re.findall(r'<a href="#(\w+)"', page)
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert page.index('id="champion"') < page.index("<nav"), "the message comes before the contents"


def test_the_top_has_the_verdict_three_numbers_and_the_command(page: str) -> None:
    top = page[page.index('<section id="champion"') : page.index("<nav")]
    assert "Trial 2 won, but shows a problem" in top
    assert re.findall(r"<dt[^>]*>([^<]+)</dt>", top) == ["fid", "balance", "kimg"]
    assert "gansweep sample models:/tiny@champion -n 64 --out samples.png" in top


def write_card(root: Path) -> None:
    """Real and generated images of four grey levels, and walks of eight columns and three frames."""
    card = root / "champion" / "card"
    card.mkdir(parents=True)
    both = np.zeros((64, 132), np.uint8)
    both[:, :64], both[:, 68:] = 200, 50
    Image.fromarray(both).save(card / "real_and_generated.png")
    for name in ("walk_latents", "walk_classes"):
        Image.fromarray(np.full((24, 64), 90, np.uint8)).save(card / f"{name}.webp")


def test_real_images_stand_beside_as_many_generated_ones(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    write_card(root)
    text = write_report(root).read_text(encoding="utf-8")
    halves = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="36 (training images|samples)', text)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, _ in halves]
    assert [name for _, name in halves] == ["training images", "samples"]
    assert [picture.shape for picture in pictures] == [(53, 53, 4)] * 2, "6 of 8 px, and 5 gaps of 1 px"
    assert [picture[0, 0, 0] for picture in pictures] == [200, 50]
    assert [picture[8, 0, 3] for picture in pictures] == [0, 0], "gaps are transparent"
    assert re.findall(r'class="walk" id="(\w+)"', text) == ["walk_latents", "walk_classes"]
    assert text.count('<input type="range" min="0" max="2"') == 2
    assert text.count("<canvas>") == 16


def test_a_running_sweep_shows_who_leads(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    summary = json.loads((root / "summary.json").read_text())
    running = {**summary, "state": "running", "finalists": [], "registered": None}
    (root / "summary.json").write_text(json.dumps(running))
    shutil.rmtree(root / "trials" / "2" / "samples")
    text = write_report(root).read_text(encoding="utf-8")
    assert "Trial 2 leads; the search is running" in text
    assert "This folder holds no pictures of trial 2." in text
    assert "gansweep sample" not in without_plotly(text), "there is nothing yet to draw from"


def test_the_figures_hold_the_sweeps_numbers(page: str) -> None:
    drawn = figures(page)
    assert list(drawn) == "life importances space coordinates balance slices progress savings".split()
    champion = next(trace for trace in drawn["life"]["data"] if trace["name"] == "champion")
    assert champion["y"] == [80.0, 30.0, 12.5]
    assert [trace["name"] for trace in drawn["balance"]["data"]] == ["d_wins", "healthy", "champion"]
    lowest = drawn["progress"]["data"][1]["y"]
    assert list(lowest) == [40.0, 40.0, 12.5, 12.5]
    assert [trace["x"] for trace in drawn["savings"]["data"]] == [[50.0], [5.0], [10.0]]
    axes = drawn["coordinates"]["layout"]["xaxis"]["ticktext"]
    assert axes == ["log10 fid", "loss", "lr_g", "width_g"]


def test_the_details_of_a_trial(page: str) -> None:
    found = re.search(r'id="opened">(.*?)</script>', page)
    assert found is not None
    details = json.loads(found.group(1))
    assert list(details) == ["2", "0", "4", "1", "3"]
    assert details["2"]["grid"].startswith("data:image/png;base64,")
    assert details["0"]["curves"]["fid"] == [90.0, 40.0, 44.0]
    assert details["3"]["cause"] == EVIL
    why = " ".join(details["1"]["words"]["Why it lost"])
    assert re.search("D won.* 10 kimg", why)
    assert re.search("stopped.* 10 kimg", why)
    assert details["1"]["params"]["width_g"] == "16"


def test_every_number_from_the_summary_has_its_key(finished: Path, page: str) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    keyed = re.findall(r'data-key="([^"]+)" data-value="([^"]+)"', page)
    assert {
        "best.fid",
        "best.balance",
        "kimg_total",
        "trials.pruned",
        "finalists.0.measurement.fid_held",
    } <= {key for key, _ in keyed}
    for key, value in keyed:
        assert float(value) == looked_up(summary, key), key


def looked_up(summary: Any, key: str) -> Any:
    for step in key.split("."):
        summary = summary[int(step)] if step.isdigit() else summary[step]
    return summary


def test_finalists_and_facts_are_shown(page: str) -> None:
    assert re.search(r">fid_held</th><td[^>]*>13.25</td>", page)
    assert re.search(r">mine:brightness</th><td[^>]*>0.75</td>", page)
    assert "1:02:03" in page
    assert 'import gansweep\nimages, labels = gansweep.load_generator("models:/tiny@champion")' in page


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        (lambda root: (root / "spool.jsonl").unlink(), "All trials"),
        (lambda root: (root / "spool.jsonl").write_bytes(b"\x00garbage\n{"), "All trials"),
        (lambda root: (root / "sweep.toml").write_bytes(b"\x00garbage"), "All trials"),
        (lambda root: (root / "summary.json").unlink(), "Trial 2 leads"),
        (lambda root: shutil.rmtree(root / "trials"), "Trial 2 won"),
        (lambda root: (root / "trials/2/samples/000015.png").write_bytes(b"no png"), "Trial 2 won"),
    ],
)
def test_damaged_files_are_read_as_far_as_possible(
    finished: Path, tmp_path: Path, damage: Callable[[Path], object], shown: str
) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    damage(root)
    assert shown in write_report(root).read_text(encoding="utf-8")


def test_trials_beyond_the_summary_come_from_events_and_records(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    summary = json.loads((root / "summary.json").read_text())
    (root / "summary.json").write_text(json.dumps({**summary, "leaderboard": [leaderboard_row(2)]}))
    with (root / "spool.jsonl").open("a") as event_log:
        event_log.write('{"event": "end", "tri')  # cut off by a kill
    text = write_report(root).read_text(encoding="utf-8")
    assert "cause of 1" in text
    states = re.findall(r'<td class="state">(\w+)</td>', text)
    assert states == ["complete", "complete", "complete", "pruned", "failed"]


def test_an_empty_sweep_has_a_report_and_another_folder_has_none(tmp_path: Path) -> None:
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
    assert "No trial has a fid" in write_report(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(SweepError, match=r"no sweep in .*nothing .*folder that `run` made"):
        write_report(tmp_path / "nothing")
