"""The report as a whole: what is written where, in which states of a run, and what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from analysis import report
from analysis.__main__ import main
from analysis.report import write_report
from sousaphone.errors import UserError
from sousaphone.record import TrialRecord
from tests.analysis.run_builders import arm, record, trial_id, write_run

FILES = {
    "comparison_table.csv",
    "summary_report.md",
    "report.html",
    "plots/accuracy_comparison.png",
    "plots/efficiency_scatter.png",
    "plots/training_time.png",
}
ALARM = "<script>alert(1)</script>"
REAL = {"scale": "base", "weights": "/weights/ast.pt"}


def written(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def told(states: list[str], **values: Any) -> tuple[list[dict[str, Any]], list[TrialRecord]]:
    """A plan with a trial for each state, and the records of those that began."""
    plan = [arm(seed=seed, **values) for seed in range(len(states))]
    pairs = zip(plan, states, strict=True)
    return plan, [
        record(c, s, error=f"RuntimeError: {ALARM}" if s == "failed" else None) for c, s in pairs if s != "pending"
    ]


@pytest.mark.parametrize(
    "states",
    [
        ["completed"],
        ["pending", "pending"],
        ["failed", "failed", "failed"],
        ["completed", "early_stopped", "time_limit", "failed", "out_of_memory", "diverged", "running", "pending"],
        ["completed"] * 80,
    ],
    ids=["one", "none begun", "all failed", "every state", "eighty"],
)
def test_a_run_in_any_state_gives_a_whole_report(tmp_path: Path, states: list[str]) -> None:
    directory = write_report(write_run(tmp_path / "study", *told(states)).path)
    assert directory == tmp_path / "study" / "report"
    assert written(directory) == FILES
    assert len((directory / "comparison_table.csv").read_text().splitlines()) == 1 + len(states)
    for name in sorted(FILES):
        if name.endswith(".png"):
            height, width, _ = imread(directory / name).shape
            assert width >= 1000
            assert 300 <= height <= 6000
    assert (directory / "report.html").stat().st_size < 6_000_000
    texts = [(directory / name).read_text() for name in ("summary_report.md", "report.html")]
    for seed in range(len(states)):
        assert all(trial_id(arm(seed=seed)) in text for text in texts)


def test_text_from_outside_is_shown_and_never_run(tmp_path: Path) -> None:
    plan, records = told(["failed", "completed"])
    name = f'<img src=x onerror="alert(1)">{ALARM[:8]}'.replace("/", "")
    for config in plan:
        config["model"] = config["lora_targets"] = ALARM
    for each, config in zip(records, plan, strict=True):
        each.trial_id, each.config = f"trial{config['seed']}", config
    run = write_run(tmp_path / "study", plan, records)
    content = run.read_plan()
    content.update(name=name, trial_ids=["trial0", "trial1"], notes=[ALARM], command=ALARM)
    run.write_plan(content)
    directory = write_report(run.path)
    page = (directory / "report.html").read_text()
    for harm in ("<script>alert", "<img"):
        own = page[page.index("<body>") :]
        assert harm not in own
    assert "RuntimeError: &lt;script&gt;alert(1)&lt;/script&gt;" in page
    summary = (directory / "summary_report.md").read_text()
    assert not re.search(r"(?<!\\)<", summary)


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    page = (write_report(write_run(tmp_path, *told(["completed"])).path) / "report.html").read_text()
    assert "default-src 'none'" in page
    own = page[page.index("<body>") :]
    assert not re.search(r"""(?:src|href|action)\s*=|url\(|@import|https?:""", own)
    assert page.count("plotly.js v") == 1
    assert own.count("Plotly.newPlot") == 4


def test_nano_or_random_weights_carry_the_banner_and_no_verdict(tmp_path: Path) -> None:
    directory = write_report(write_run(tmp_path, *told(["completed", "completed"])).path)
    for name in ("summary_report.md", "report.html"):
        text = (directory / name).read_text()
        assert "it says nothing about the published models" in text
        assert "Best by validation" not in text
    lines = (directory / "summary_report.md").read_text().splitlines()
    assert lines[2].startswith("> **Nano-sized backbones and random weights")


def test_pretrained_models_are_ranked_by_validation_and_cautiously(tmp_path: Path) -> None:
    plan, records = told(["completed", "completed", "failed"], **REAL)
    for each, score in zip(records, (0.2, 0.7, 0.9), strict=True):
        for row in each.history:
            row["val_macro_f1"] = score
    text = (write_report(write_run(tmp_path, plan, records).path) / "summary_report.md").read_text()
    assert "says nothing" not in text
    assert f"Best by validation: {trial_id(plan[1])} (macro F1 0.700)" in text
    assert "not of the backbones in general" in text
    order = [text.index(f"| {trial_id(config)} |") for config in plan]
    assert order[1] < order[0] < text.index("## Not finished, or failed") < order[2]


def test_an_unfinished_run_names_the_line_that_resumes_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "my results" / "study", *told(["completed", "running"]))
    line = f"python launch.py --resume --name study --storage '{run.path.parent}'"
    text = (write_report(run.path) / "summary_report.md").read_text()
    assert line in text
    assert "interrupted" in text
    with run.held():  # nobody should resume what is running
        text = (write_report(run.path) / "summary_report.md").read_text()
    assert line not in text
    assert "still going on" in text


def test_the_summary_says_what_it_does_not_show(tmp_path: Path) -> None:
    text = (write_report(write_run(tmp_path, *told(["completed"])).path) / "summary_report.md").read_text()
    for said in ("One seed", "100 test clips of 1 player", "synthetic", "carved from the training players"):
        assert said in text


def test_output_is_written_straight_into_the_directory_given(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *told(["completed"]))
    assert main([str(run.path), "--output", str(tmp_path / "a" / "b")]) == 0
    assert written(tmp_path / "a" / "b") == FILES
    assert not run.report.exists()


def test_a_report_that_cannot_be_made_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "study", *told(["completed", "pending"]))
    write_report(run.path)
    before = {name: (run.report / name).read_bytes() for name in FILES}
    record(arm(seed=1), "completed").write(_made(run.trial(trial_id(arm(seed=1)))))

    def broken(*_: object) -> bytes:
        raise RuntimeError("no picture")

    broken.__name__ = "training_time"
    monkeypatch.setattr(report.plots, "training_time", broken)
    with pytest.raises(RuntimeError, match="no picture"):
        write_report(run.path)
    assert {name: (run.report / name).read_bytes() for name in written(run.report)} == before


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_wrong_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "holds no run.json" in refused(str(tmp_path / "nowhere"))
    (tmp_path / "run.json").write_text("[]")
    assert "damaged" in refused(str(tmp_path))
    run = write_run(tmp_path / "study", *told(["completed"]))
    (tmp_path / "file").write_text("")
    assert "--output" in refused(str(run.path), "--output", str(tmp_path / "file"))
    with pytest.raises(UserError):
        write_report(tmp_path / "nowhere")


def test_help_teaches_and_answers_at_once() -> None:
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'ray', 'pandas', 'matplotlib', 'plotly', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "comparison_table.csv" in done.stdout
    assert "exit codes" in done.stdout


def test_the_report_needs_no_torch() -> None:
    code = "import sys, analysis.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
