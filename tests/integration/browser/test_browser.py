"""The report in a real browser: loads nothing, sorts, filters, opens trials, is accessible; plots have data.

One Chromium for the whole module, driven by playwright. Screenshots go to GANSWEEP_SHOTS if that is set.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from PIL import Image

from pipeline.records import TrialRecord
from pipeline.reporting.html.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
TRIALS = 24
VERDICTS = ("healthy", "healthy", "d_wins", "g_wins", "collapsed")
SPACE = """
[data]
source = "folder:photos"
train = 4500
size = 8
[space.fixed]
kimg = 40
[space.search]
lr_g = { float = [1e-4, 1e-2], log = true }
lr_d = { float = [1e-4, 1e-2], log = true }
width_g = { int = [8, 64], log = true }
loss = { choice = ["hinge", "nonsaturating", "relativistic"] }
"""


def write_sweep(root: Path, rng: np.random.Generator) -> None:
    """Write the files of a finished sweep of two dozen trials."""
    rows = [write_trial(root, number, rng) for number in range(TRIALS)]
    rows.sort(key=lambda row: (row["fid"] is None, row["fid"]))
    best = {key: rows[0][key] for key in ("trial", "fid", "balance", "kimg", "params")}
    measurement = {"n": 5000, "fid": best["fid"] + 0.25, "fid_low": 1.5, "fid_high": 2.5, "verdicts": []}
    run = {
        "seed": 0,
        "verdicts": [],
        "kimg": 40,
        "search_fid": best["fid"],
        "fresh_fid": 2.125,
        "fid": measurement["fid"],
    }
    states = [row["state"] for row in rows]
    summary = {
        "name": "photos", "state": "finished", "wall_seconds": 600.5, "kimg_total": 480, "best": best,
        "trials": {state: states.count(state) for state in ("complete", "pruned", "failed", "running")},
        "leaderboard": rows, "evaluator": {"extractor": "classifier", "hash": "0" * 16, "samples": 2000},
        "finalists": [{"best": {**best, "search_fid": 1.5}, "runs": [run], "measurement": measurement}],
        "registered": {"name": "photos", "version": "1", "alias": "champion", "uri": "models:/photos/1"},
    }  # fmt: skip
    (root / "summary.json").write_text(json.dumps(summary))
    (root / "sweep.toml").write_text(SPACE)
    card = root / "champion" / "card"
    card.mkdir(parents=True)
    for name in ("real_and_generated", "neighbours"):
        Image.fromarray(rng.integers(0, 256, (64, 160), np.uint8)).save(card / f"{name}.png")
    grey = np.arange(36, dtype=np.uint8).repeat(8)[:, None].repeat(64, axis=1)  # a frame has one grey level
    Image.fromarray(7 * grey).save(card / "walk_latents.webp", lossless=True)


def write_trial(root: Path, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Write the records and grids of a trial; return its row of the leaderboard."""
    samples = root / "trials" / str(number) / "samples"
    samples.mkdir(parents=True)
    params = {
        "lr_g": float(10 ** rng.uniform(-4, -2)), "lr_d": float(10 ** rng.uniform(-4, -2)),
        "width_g": int(rng.integers(8, 65)), "loss": ["hinge", "nonsaturating", "relativistic"][number % 3],
    }  # fmt: skip
    verdict, ticks = VERDICTS[number % len(VERDICTS)], 4 if number % 2 else 2
    fids = [float(100 / (i + 1) * (1 + abs(math.log10(params["lr_g"]) + 3))) for i in range(ticks)]
    records: list[TrialRecord] = [
        factories.record(10 * (i + 1), fid, trial=number, balance=float(rng.random()), verdict=verdict)
        for i, fid in enumerate(fids)
    ]
    text = "".join(record.to_json() + "\n" for record in records)
    (root / "trials" / str(number) / "records.jsonl").write_text(text)
    for record in records:
        Image.fromarray(rng.integers(0, 256, (40, 80), np.uint8)).save(samples / f"{record.kimg:06d}.png")
    failed = number == 5
    return {
        "trial": number, "state": "failed" if failed else "complete" if ticks == 4 else "pruned",
        "fid": None if failed else fids[-1], "balance": records[-1].balance, "auc": 0.5, "kimg": 10 * ticks,
        "last_kimg": 10 * ticks, "stability": 1.0, "verdict": verdict, "params": params,
        "cause": "out of memory" if failed else "pruned by asha" if ticks == 2 else "",
    }  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser") / "photos"
    write_sweep(root, np.random.default_rng(7))
    write_report(root)
    return root


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class OpenedReport:
    """The report in a page of the browser, with the URLs that it requested and its errors and warnings."""

    def __init__(self, browser: Any, sweep: Path, **context: Any) -> None:
        self.page = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context}).new_page()
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self._on_console(message.type, message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto((sweep / "report.html").as_uri())
        self.page.wait_for_selector(".plot .main-svg")

    def _on_console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(text)

    def numbers(self) -> list[int]:
        """The numbers of the trials whose rows are shown, from top to bottom."""
        shown = "rows => rows.filter(row => !row.hidden).map(row => +row.dataset.trial)"
        return self.page.eval_on_selector_all("#trials tbody tr", shown)  # type: ignore[no-any-return]

    def shot(self, name: str) -> None:
        folder = os.environ.get("GANSWEEP_SHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"report-{name}.png", full_page=True)


@pytest.fixture(scope="module")
def report(chromium: Any, sweep: Path) -> OpenedReport:
    return OpenedReport(chromium, sweep)


def test_it_loads_nothing_and_has_no_errors(report: OpenedReport, sweep: Path) -> None:
    itself = (sweep / "report.html").as_uri()
    assert [url for url in report.requests if url != itself and not url.startswith(("data:", "blob:"))] == []
    assert report.problems == []
    report.shot("light")


def test_every_plot_has_data(report: OpenedReport) -> None:
    drawn = report.page.eval_on_selector_all(
        ".plot", "all => all.filter(one => one.data).map(one => [one.id, one.data.length])"
    )
    names = "life importances space coordinates balance slices progress savings".split()
    assert [name for name, _ in drawn] == [f"plot-{name}" for name in names]
    assert all(count > 0 for _, count in drawn)
    marks = report.page.eval_on_selector_all("#plot-balance .point", "points => points.length")
    assert marks >= TRIALS - 1


def test_every_number_equals_the_one_in_the_summary(report: OpenedReport, sweep: Path) -> None:
    summary = json.loads((sweep / "summary.json").read_text())
    keyed = report.page.eval_on_selector_all(
        "[data-key]", "all => all.map(one => [one.dataset.key, one.dataset.value, one.textContent])"
    )
    assert len(keyed) > 15
    for key, value, text in keyed:
        assert float(value) == looked_up(summary, key), key
        if key not in ("wall_seconds", "finalists.0.measurement.fid_low"):  # a duration, an interval
            assert float(text) == pytest.approx(float(value), rel=1e-2), key
    for row in summary["leaderboard"]:
        cells = report.page.eval_on_selector_all(
            f"#trials tr[data-trial='{row['trial']}'] td[data-value]",
            "cells => cells.map(cell => [cell.className, +cell.dataset.value])",
        )
        keys = {"last-kimg": "last_kimg"}
        assert dict(cells) == {name: row[keys.get(name, name)] for name, _ in cells}
        assert {"trial", "kimg", "balance"} <= dict(cells).keys()


def looked_up(summary: Any, key: str) -> Any:
    for step in key.split("."):
        summary = summary[int(step)] if step.isdigit() else summary[step]
    return summary


def test_the_table_sorts_by_number_with_empty_cells_last(report: OpenedReport, sweep: Path) -> None:
    rows = json.loads((sweep / "summary.json").read_text())["leaderboard"]
    assert report.numbers() == [row["trial"] for row in rows], "best first"
    head = report.page.locator("#trials th button", has_text="balance")
    head.click()
    assert report.numbers() == [row["trial"] for row in sorted(rows, key=lambda row: row["balance"])]
    report.page.locator("#trials th button", has_text="fid").first.click()
    assert report.numbers() == [row["trial"] for row in rows]
    report.page.keyboard.press("Enter")
    assert report.numbers() == [*reversed([row["trial"] for row in rows[:-1]]), 5], (
        "empty cells are last in both orders"
    )
    assert report.page.locator("th[aria-sort=descending]").inner_text().startswith("fid")


def test_the_table_filters(report: OpenedReport) -> None:
    page = report.page
    page.fill("#filter", "hinge")
    assert sorted(report.numbers()) == list(range(0, TRIALS, 3))
    page.fill("#filter", "out of memory")
    assert report.numbers() == [5]
    assert page.locator("#count").inner_text() == f"1 of {TRIALS} trials"
    page.fill("#filter", "")
    page.select_option("#only-state", "pruned")
    page.select_option("#only-verdict", "d_wins")
    assert sorted(report.numbers()) == [2, 12, 22]
    page.select_option("#only-state", "")
    page.select_option("#only-verdict", "")
    assert len(report.numbers()) == TRIALS


def test_a_trial_opens_with_the_keyboard_and_closes(report: OpenedReport) -> None:
    page = report.page
    page.locator("#trials tr[data-trial='2'] button").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog#one")
    assert dialog.is_visible()
    text = dialog.inner_text()
    assert "trial 2" in text
    assert re.search("D won.* 10 kimg", text)
    assert "pruned by asha" in text
    assert "relativistic" in text
    assert page.eval_on_selector("#one-curves", "plot => plot.data.map(line => line.y.length)") == [2, 2]
    assert page.eval_on_selector("#one-grid", "image => image.naturalWidth") == 80
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def levels(page: Any) -> list[int]:
    """The grey level of the frame that each walk shows."""
    read = "all => all.map(one => one.getContext('2d').getImageData(4, 4, 1, 1).data[0])"
    return page.eval_on_selector_all("#walks canvas", read)  # type: ignore[no-any-return]


def wait_for_frame(page: Any, frame: int) -> None:
    """Wait until the walk is past a frame; the page's policy forbids playwright's own waiting."""
    slider = page.locator("#walks input")
    for _ in range(300):
        if int(slider.input_value()) > frame:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"the walk does not come to frame {frame}")


def test_a_walk_moves_stops_and_follows_the_slider(report: OpenedReport) -> None:
    page = report.page
    slider, button = page.locator("#walks input"), page.locator("#walks button")
    slider.scroll_into_view_if_needed()
    assert button.inner_text() == "stop"
    wait_for_frame(page, 3)
    button.click()
    assert button.inner_text() == "play"
    assert levels(page) == [7 * int(slider.input_value())] * 8
    slider.fill("20")
    assert levels(page) == [140] * 8
    slider.press("ArrowRight")
    assert levels(page) == [147] * 8
    page.wait_for_timeout(250)
    assert levels(page) == [147] * 8, "it stays where it was put"


def test_a_walk_stands_still_where_less_motion_is_preferred(chromium: Any, sweep: Path) -> None:
    page = OpenedReport(chromium, sweep, reduced_motion="reduce").page
    page.locator("#walks input").scroll_into_view_if_needed()
    assert page.locator("#walks button").inner_text() == "play"
    page.wait_for_timeout(250)
    assert levels(page) == [0] * 8
    page.locator("#walks button").click()
    wait_for_frame(page, 1)


def test_axe_finds_nothing_serious(report: OpenedReport) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    found = axe.Axe().run(report.page).response["violations"]
    serious = [
        (violation["id"], [node["html"][:120] for node in violation["nodes"][:3]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_telephone_does_not_scroll_sideways(chromium: Any, sweep: Path) -> None:
    phone = OpenedReport(
        chromium,
        sweep,
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
        is_mobile=True,
        has_touch=True,
    )
    width = "() => document.documentElement.scrollWidth"
    assert phone.page.evaluate(width) == 390
    phone.page.locator("#trials tr[data-trial='3'] button").tap()
    box = phone.page.locator("dialog#one").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert phone.page.eval_on_selector("dialog#one", "one => one.scrollWidth <= one.clientWidth")
    phone.page.keyboard.press("Escape")
    phone.shot("phone")
    assert phone.problems == []


def test_dark_mode_includes_the_plots(chromium: Any, sweep: Path) -> None:
    dark = OpenedReport(chromium, sweep, color_scheme="dark")
    paper = dark.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(13, 17, 23)"
    inks = dark.page.eval_on_selector_all(
        ".xtick text", "texts => [...new Set(texts.map(text => getComputedStyle(text).fill))]"
    )
    assert inks == ["rgb(230, 237, 243)"]
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    found = axe.Axe().run(dark.page).response["violations"]
    assert [violation["id"] for violation in found if violation["impact"] in ("serious", "critical")] == []
    dark.shot("dark")
