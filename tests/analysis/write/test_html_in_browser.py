"""report.html in a browser: every chart is drawn, nothing is asked of the network, and no text runs as a script."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.report import write_report
from tests.analysis.run_builders import arm, record, write_predictions, write_run

ALARM = "<script>alert(1)</script>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What the browser itself asks for goes nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--window-size=1200,4000",
    "--virtual-time-budget=20000",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed"),
]


@dataclass(frozen=True)
class Visit:
    """What came of opening a page: its document as the scripts left it, what the console said, what it asked for."""

    dom: str
    console: list[str]
    requests: list[str]


def visit(page: Path, scratch: Path) -> Visit:
    scratch.mkdir()
    log = scratch / "net.json"
    own = [f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [BROWSER or "", *FLAGS, *own, "--dump-dom", page.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    content = json.loads(log.read_text())
    begun = content["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event.get("params", {}) for event in content["events"] if event["type"] == begun]
    # The browser's own requests have no origin; a page's have one, if only the nameless one of a file.
    asked = [job["url"] for job in jobs if "url" in job and job.get("initiator") != "not an origin"]
    console = re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr)
    return Visit(done.stdout, console, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))])


def test_the_probe_sees_what_a_page_must_not_do(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="https://example.com/x.png"><script>document.title = "ran"; nothing.at.all()</script>')
    seen = visit(page, tmp_path / "scratch")
    assert seen.requests == ["https://example.com/x.png"]
    assert any("nothing is not defined" in line for line in seen.console)
    assert "<title>ran</title>" in seen.dom


def test_the_report_draws_every_chart_asks_for_nothing_and_runs_no_text(tmp_path: Path) -> None:
    plan = [arm(model, augment=augment) for model in ("ast", "htsat", "beats") for augment in (True, False)]
    states = ["completed", "early_stopped", "completed", "time_limit", "failed", "pending"]
    records = [
        record(config, state, error=f"RuntimeError: {ALARM}" if state == "failed" else None)
        for config, state in zip(plan, states, strict=True)
        if state != "pending"
    ]
    run = write_run(tmp_path / "study", plan, records)
    write_predictions(run, records)
    content = run.read_plan()
    content.update(name=ALARM, notes=[ALARM], command=ALARM)
    run.write_plan(content)

    page = write_report(run.path) / "report.html"
    seen = visit(page, tmp_path / "scratch")
    assert seen.console == []
    assert seen.requests == []
    charts = page.read_text().count("Plotly.newPlot(")
    plots = re.split(r'class="[^"]*js-plotly-plot', seen.dom)[1:]
    assert len(plots) == charts >= 4
    assert all('class="main-svg"' in plot for plot in plots)
    assert f"RuntimeError: {html.escape(ALARM)}" in seen.dom
    assert ALARM not in seen.dom.partition("<body")[2]
