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
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image

from pipeline import report
from pipeline.errors import SweepError
from pipeline.records import METRICS, TrialRecord
from pipeline.report import rows as report_rows

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


def write_study(path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="tiny", storage=JournalStorage(JournalFileBackend(str(path))))
    for number, fids in FIDS.items():
        trial = study.ask()
        trial.suggest_float("lr_g", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("width_g", [8, 16, 32])
        if STATES[number] == "complete":
            study.tell(trial, min(fids))
        else:
            trial.set_user_attr("cause", f"cause of {number}")
            states = {"pruned": optuna.trial.TrialState.PRUNED, "failed": optuna.trial.TrialState.FAIL}
            study.tell(trial, state=states[STATES[number]])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of five trials, as its files lie on disk."""
    root = tmp_path_factory.mktemp("sweep") / "tiny"
    for trial, fids in FIDS.items():
        folder = root / "trials" / str(trial)
        (folder / "samples").mkdir(parents=True)
        records = [record(trial, 5 * (i + 1), fid, min(fids[: i + 1])) for i, fid in enumerate(fids)]
        (folder / "records.jsonl").write_text("".join(r.to_json() + "\n" for r in records))
    grid = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grid.save(root / "trials" / "2" / "samples" / "000015.png")
    write_study(root / "study.journal")
    best = {key: leader(2)[key] for key in ("trial", "fid", "balance", "kimg", "params")}
    summary = {
        "name": "tiny <b>", "state": "finished", "wall_seconds": 3723.4, "kimg_total": 55,
        "trials": {"complete": 3, "pruned": 1, "failed": 1, "running": 0}, "best": best,
        "leaderboard": [leader(trial) for trial in (2, 0, 4, 1, 3)],
        "evaluator": {"extractor": "classifier", "hash": "0123456789abcdef", "samples": 2000},
        "registered": {"name": "tiny", "version": "1", "alias": "champion", "uri": "models:/tiny@champion"},
        "finalists": [{"best": best, "measurement": {"fid_held": 13.25, "verdicts": ["x"], "kid": None}}],
    }  # fmt: skip
    (root / "summary.json").write_text(json.dumps(summary))
    return root


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return report.build(finished).read_text(encoding="utf-8")


def without_plotly(page: str) -> str:
    """The page less the one long script of others."""
    scripts = re.findall(r"<script>.*?</script>", page, flags=re.DOTALL)
    return page.replace(max(scripts, key=len), "")


def figures(page: str) -> dict[str, Any]:
    found = re.findall(r"<h2>([^<]*)</h2><div[^>]*><div[^>]*></div></div><script [^>]*>(.*?)</script>", page)
    return {title: json.loads(content) for title, content in found}


def test_the_page_is_one_file_that_asks_for_nothing(finished: Path, page: str) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "summary.json", "study.journal", "trials", "report.html"
    }, "and no temporary file or journal lock is left"  # fmt: skip
    assert page.count("plotly.js v") == 1, "plotly.js is embedded once"
    ours = without_plotly(page)
    assert not re.search(r"https?://", ours)
    assert all(url.startswith("data:") for url in re.findall(r"<[^>]*\b(?:src|href)=[\"']?([^\"' >]*)", ours))
    assert "default-src 'none'" in ours, "and a browser would refuse to ask"
    assert "prefers-color-scheme: dark" in ours
    assert 'name="viewport"' in ours


def test_every_trial_is_a_row_best_first(page: str) -> None:
    body = re.search(r"<tbody>(<tr><td class=\"trial\".*?)</tbody>", page)
    assert body is not None
    numbers = [int(n) for n in re.findall(r'<td class="trial" data-value="(\d+)"', body.group(1))]
    assert numbers == [2, 0, 4, 1, 3]
    assert '<td class="fid" data-value="12.5">12.5</td>' in body.group(1)
    assert '<td class="stability" data-value="1.1">1.10</td>' in body.group(1)
    assert "lr_g=0.0003 width_g=24" in body.group(1), "what differs is in the row"
    assert "loss=hinge" not in body.group(1), "what does not is told once"
    assert '<dt title="">loss</dt><dd>hinge</dd>' in page


def test_texts_are_escaped_everywhere(page: str) -> None:
    ours = without_plotly(page)
    assert EVIL not in ours
    assert "&lt;/script&gt;&lt;script&gt;alert(" in ours
    assert "<h1>tiny &lt;b&gt;</h1>" in ours
    assert "<title>tiny &lt;b&gt; - gansweep</title>" in ours


def test_numbers_are_defined_on_hover_and_in_a_list(page: str) -> None:
    assert 'title="1 - |2 AUC - 1|: 1 = D at chance, 0 = one side has won; at the best fid"' in page
    assert all(f"<dt>{name}</dt>" in page for name in METRICS)


def test_the_champions_grid_is_inlined(page: str) -> None:
    assert without_plotly(page).count("data:image/png;base64,iVBORw0KGgo") == 1
    assert "Samples of its EMA generator at 15 kimg" in page


def test_the_figures_hold_the_sweeps_numbers(page: str) -> None:
    drawn = figures(page)
    assert list(drawn) == [
        "fid over kimg", "fid against balance", "The search so far", "Parallel coordinates"
    ], "three trials are too few for importances"  # fmt: skip
    champion = next(trace for trace in drawn["fid over kimg"]["data"] if trace["name"] == "champion")
    assert champion["y"][:3] == [80.0, 30.0, 12.5]
    assert [trace["name"] for trace in drawn["fid against balance"]["data"]] == ["d_wins", "healthy"]
    lowest = drawn["The search so far"]["data"][1]["y"]
    assert list(lowest) == [40.0, 40.0, 12.5, 12.5]
    axes = drawn["Parallel coordinates"]["layout"]["xaxis"]["ticktext"]
    assert axes == ["log10 fid", "lr_g", "width_g"]


def test_finalists_and_facts_are_told(page: str) -> None:
    assert ">fid_held</th><td>13.25</td>" in page
    assert "1:02:03" in page
    assert "models:/tiny@champion" in page


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        (lambda root: (root / "study.journal").unlink(), "All trials"),
        (lambda root: (root / "study.journal").write_bytes(b"\x00garbage\n{"), "All trials"),
        (lambda root: (root / "summary.json").write_text('{"name": "ti'), "Champion: trial 2"),
        (lambda root: (root / "summary.json").unlink(), "Champion: trial 2"),
        (lambda root: shutil.rmtree(root / "trials"), "Champion: trial 2"),
        (lambda root: (root / "trials/2/samples/000015.png").write_bytes(b"no png"), "Champion: trial 2"),
        (lambda root: (root / "summary.json").write_text('{"leaderboard": [null, {"trial": 7}]}'), "trial"),
    ],
)
def test_partial_files_are_read_as_far_as_they_go(
    finished: Path, tmp_path: Path, damage: Callable[[Path], object], shown: str
) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    damage(root)
    assert shown in report.build(root).read_text(encoding="utf-8")


def test_a_half_written_journal_is_read_up_to_its_last_line(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    with (root / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 6, "worker')
    before = (root / "study.journal").read_bytes()
    assert "Parallel coordinates" in report.build(root).read_text(encoding="utf-8")
    assert (root / "study.journal").read_bytes() == before


def test_trials_beyond_the_summary_are_told_by_study_and_records(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    (root / "summary.json").write_text(json.dumps({"name": "tiny", "leaderboard": [leader(2)]}))
    text = report.build(root).read_text(encoding="utf-8")
    assert "cause of 1" in text
    states = re.findall(r'<td class="state">(\w+)</td>', text)
    assert states == ["complete", "complete", "complete", "pruned", "failed"]


def test_an_empty_sweep_has_a_report_and_a_strange_folder_has_none(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"name": "new", "state": "running", "leaderboard": []}')
    assert "No trial has a fid yet." in report.build(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(SweepError, match=r"holds summary.json; got .*nothing; pass DIR/NAME"):
        report.build(tmp_path / "nothing")


def test_importances_come_with_enough_trials(tmp_path: Path) -> None:
    from pipeline.report.figures import draw_all

    study = optuna.create_study()
    for number in range(8):
        trial = study.ask({"lr_g": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)})
        study.tell(trial, 1e6 if number == 7 else 10.0 + number)  # the last never had a fid
    drawn = draw_all([], {}, {}, study)
    assert list(drawn) == ["What mattered", "Parallel coordinates"]
    assert list(drawn["What mattered"].data[0].y) == ["lr_g"]
    lines = drawn["Parallel coordinates"].data
    fids = [line.customdata[0][1] for line in lines if line.customdata is not None]
    assert len(fids) == 7, "the trial with the penalty is not in it"


def test_text_table_for_the_terminal() -> None:
    summary = {"leaderboard": [leader(trial) for trial in (3, 1, 2, 0)]}
    table = report.text_table(summary, limit=3)
    assert table[0] == ["trial", "state", "fid", "balance", "kimg", "stability", "verdict", "params"]
    assert table[1] == ["2", "complete", "12.5", "0.20", "15", "1.00", "healthy", "lr_g=0.0003 width_g=24"]
    assert [row[0] for row in table[1:]] == ["2", "0", "1"]
    assert report.text_table({}) == [table[0]]
    assert report.text_table({"leaderboard": [leader(3)]})[1][2:6] == ["-"] * 4


def test_parameters_of_some_trials_only_are_shown() -> None:
    rows = [{"params": {"loss": "hinge", "gamma": 1.0}}, {"params": {"loss": "hinge"}}]
    assert report_rows.differing_params(rows) == ["gamma"]
