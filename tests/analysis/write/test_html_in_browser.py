"""report.html in a browser: charts are drawn, nothing is requested, no text runs as a script, and the page fits."""

from __future__ import annotations

import html
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from analysis.report import write_report
from tests.analysis.run_builders import arm, record, write_predictions, write_run
from tests.browser import BROWSER, OFFLINE, needs_browser

ALARM = "<script>alert(1)</script>"
FLAGS = [
    *OFFLINE,
    "--headless",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--window-size=1200,4000",
    "--virtual-time-budget=20000",
]

pytestmark = [pytest.mark.slow, needs_browser]


@dataclass(frozen=True)
class Visit:
    """An opened page: its document after the scripts ran, the console's lines, and the requested addresses."""

    dom: str
    console: list[str]
    requests: list[str]


def visit(page: Path, scratch: Path, *flags: str) -> Visit:
    scratch.mkdir()
    log = scratch / "net.json"
    own = [f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [BROWSER or "", *FLAGS, *own, *flags, "--dump-dom", page.resolve().as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    content = json.loads(log.read_text())
    begun = content["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event.get("params", {}) for event in content["events"] if event["type"] == begun]
    # The browser's own requests have no origin; those of a page have one, even if it is a file.
    urls = [job["url"] for job in jobs if "url" in job and job.get("initiator") != "not an origin"]
    console = re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr)
    return Visit(done.stdout, console, [url for url in urls if not url.startswith(("file:", "data:", "blob:"))])


# A page in a frame, because a browser's window is at least 500 pixels wide. The title becomes the measured sizes.
FRAME = """<!doctype html><body><iframe src="{page}" style="width:{width}px;height:900px;border:0"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  {before}
  const sizes = [page.documentElement, ...page.querySelectorAll(".scroll:has(table)")];
  document.title = JSON.stringify(sizes.map(each => [each.scrollWidth, each.clientWidth]));
}}</script></body>"""
LONG_NAME = "a_run_with_a_rather_long_name_" * 4


def report_of(path: Path, **plan_fields: Any) -> Path:
    """The page of a run with trials in several states, long names and large models."""
    plan = [arm(model, augment=augment) for model in ("efficientat", "htsat", "beats") for augment in (True, False)]
    plan += [arm("efficientat", augment=False, seed=10, lora_targets="sweep")]
    states = ["completed", "early_stopped", "completed", "time_limit", "failed", "pending", "completed"]
    records = [
        record(config, state, error=f"RuntimeError: {ALARM}" if state == "failed" else None)
        for config, state in zip(plan, states, strict=True)
        if state != "pending"
    ]
    for each in records:
        each.parameters.update(total=90_123_456, trainable=12_123_456)
    run = write_run(path, plan, records)
    write_predictions(run, records)
    run.write_plan({**run.read_plan(), **plan_fields})
    return write_report(run.path, with_sounds=False) / "report.html"


def widths(page: Path, scratch: Path, width: int, before: str = "") -> list[tuple[int, int]]:
    """(content, visible) widths, pixels, of the page and of each table in a window of this width."""
    frame = scratch.with_suffix(".html")
    frame.write_text(FRAME.format(page=page.resolve().as_uri(), width=width, before=before))
    seen = visit(frame, scratch, "--allow-file-access-from-files")
    title = re.search(r"<title>(.*?)</title>", seen.dom)
    assert title, seen.console
    return [(content, visible) for content, visible in json.loads(html.unescape(title[1]))]


def test_visit_detects_requests_and_errors(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="https://example.com/x.png"><script>document.title = "ran"; nothing.at.all()</script>')
    seen = visit(page, tmp_path / "scratch")
    assert seen.requests == ["https://example.com/x.png"]
    assert any("nothing is not defined" in line for line in seen.console)
    assert "<title>ran</title>" in seen.dom


def test_page_draws_every_chart_requests_nothing_and_runs_no_text(tmp_path: Path) -> None:
    page = report_of(tmp_path / "study", name=ALARM, notes=[ALARM], command=ALARM)
    seen = visit(page, tmp_path / "scratch")
    assert seen.console == []
    assert seen.requests == []
    charts = page.read_text().count("Plotly.newPlot(")
    plots = re.split(r'class="[^"]*js-plotly-plot', seen.dom)[1:]
    assert len(plots) == charts >= 4
    assert all('class="main-svg"' in plot for plot in plots)
    assert f"RuntimeError: {html.escape(ALARM)}" in seen.dom
    assert ALARM not in seen.dom.partition("<body")[2]


def test_page_and_results_fit_a_window_of_1200_pixels(tmp_path: Path) -> None:
    page = report_of(tmp_path / "study", name=LONG_NAME)
    sizes = widths(page, tmp_path / "closed", 1200)
    assert len(sizes) >= 4
    for content, visible in sizes[:3]:  # page, results, partial results
        assert 1000 < visible <= 1200
        assert content <= visible
    opened = "page.querySelectorAll('details').forEach(each => each.open = true)"
    (content, visible), (all_columns, _), *_ = widths(page, tmp_path / "open", 1200, opened)
    assert content <= visible
    assert all_columns >= sizes[1][0]


def test_page_fits_a_phone_and_wide_tables_scroll_in_their_container(tmp_path: Path) -> None:
    page = report_of(tmp_path / "study", name=LONG_NAME)
    (content, visible), *tables = widths(page, tmp_path / "phone", 390)
    assert 300 < visible <= 390
    assert content <= visible
    assert any(content > visible for content, visible in tables)
