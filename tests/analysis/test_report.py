"""The report as a whole: files, states of a run, invalid input, and failures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from analysis import report
from analysis.__main__ import main
from analysis.report import make_files, read_run, write_report
from sousaphone.errors import UserError
from tests.analysis.run_builders import ALARM, arm, made, record, trial_id, trials_in, write_predictions, write_run

TABLES = {"comparison_table.csv", "epochs.csv", "predictions.parquet", "summary_report.md", "report.html"}
PLOTS = {"plots/accuracy_comparison.png", "plots/efficiency_scatter.png", "plots/training_time.png"}


def written(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "states",
    [
        ["completed"],
        ["pending", "pending"],
        ["failed", "failed", "failed"],
        ["completed", "early_stopped", "time_limit", "failed", "out_of_memory", "diverged", "running", "pending"],
        pytest.param(["completed"] * 80, marks=pytest.mark.slow),
    ],
    ids=["one", "none started", "all failed", "every state", "eighty"],
)
def test_run_in_any_state_has_a_complete_report(tmp_path: Path, states: list[str]) -> None:
    directory = write_report(write_run(tmp_path / "study", *trials_in(states)).path)
    assert directory == tmp_path / "study" / "report"
    names = written(directory)
    assert names >= TABLES | {f"trials/{trial_id(arm(seed=seed))}.json" for seed in range(len(states))}
    if "completed" in states:
        assert names >= PLOTS
    assert len((directory / "comparison_table.csv").read_text().splitlines()) == 1 + len(states)
    for name in sorted(names):
        if name.endswith(".png"):
            height, width, _ = imread(directory / name).shape
            assert width >= 1000
            assert 300 <= height <= 6000
    assert (directory / "report.html").stat().st_size < 6_000_000
    texts = [(directory / name).read_text() for name in ("summary_report.md", "report.html")]
    for seed in range(len(states)):
        assert all(trial_id(arm(seed=seed)) in text for text in texts)


def test_size_of_the_trained_weights_is_that_of_either_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed", "time_limit", "failed"]))
    sizes = {}
    for seed, files in enumerate([{"adapter.safetensors": 1500, "adapter.pt": 7}, {"adapter.pt": 2500}, {}]):
        for name, size in files.items():
            (run.trial(trial_id(arm(seed=seed))) / name).write_bytes(bytes(size))
            sizes.setdefault(trial_id(arm(seed=seed)), size)
    assert read_run(run.path).adapter_bytes == sizes


def test_html_in_names_and_errors_is_escaped(tmp_path: Path) -> None:
    plan, records = trials_in(["failed", "completed"])
    name = f'<img src=x onerror="alert(1)">{ALARM[:8]}'.replace("/", "")
    for config in plan:
        config["model"] = config["lora_targets"] = ALARM
    for each, config in zip(records, plan, strict=True):
        each.trial_id, each.config = f"trial{config['seed']}", config
    run = write_run(tmp_path / "study", plan, records)
    content = json.loads((run.path / "run.json").read_text())
    content.update(name=name, trial_ids=["trial0", "trial1"], notes=[ALARM], command=ALARM)
    run.write_plan(content)
    directory = write_report(run.path)
    shown = (directory / "report.html").read_text()
    for harm in ("<script>alert", "<img"):
        own = shown[shown.index("<body>") :]
        assert harm not in own
    assert "RuntimeError: &lt;script&gt;alert(1)&lt;/script&gt;" in shown
    text = (directory / "summary_report.md").read_text()
    assert not re.search(r"(?<!\\)<", text)


def test_page_loads_nothing_from_the_network(tmp_path: Path) -> None:
    shown = (write_report(write_run(tmp_path, *trials_in(["completed"])).path) / "report.html").read_text()
    assert "default-src 'none'" in shown
    own = shown[shown.index("<body>") :]
    assert not re.search(r"""(?:src|href|action)\s*=|url\(|@import|https?:""", own)
    assert shown.count("plotly.js v") == 1
    assert own.count("Plotly.newPlot") >= 4


def test_output_option_sets_the_directory(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed"]))
    assert main([str(run.path), "--output", str(tmp_path / "a" / "b")]) == 0
    assert written(tmp_path / "a" / "b") >= TABLES | PLOTS
    assert not run.report.exists()


def test_failed_report_leaves_the_old_one_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed", "pending"]))
    write_report(run.path)
    before = {name: (run.report / name).read_bytes() for name in written(run.report)}
    record(arm(seed=1), "completed").write(made(run.trial(trial_id(arm(seed=1)))))

    def broken(*_: object) -> bytes:
        raise RuntimeError("no picture")

    monkeypatch.setattr(report, "pictures", broken)
    with pytest.raises(RuntimeError, match="no picture"):
        write_report(run.path)
    assert {name: (run.report / name).read_bytes() for name in written(run.report)} == before


def test_invalid_input_prints_one_line_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "run.json" in refused(str(tmp_path / "nowhere"))
    (tmp_path / "run.json").write_text("[]")
    assert str(tmp_path / "run.json") in refused(str(tmp_path))
    run = write_run(tmp_path / "study", *trials_in(["completed"]))
    (tmp_path / "file").write_text("")
    assert "--output" in refused(str(run.path), "--output", str(tmp_path / "file"))
    with pytest.raises(UserError):
        write_report(tmp_path / "nowhere")
    for arguments in ([], [str(run.path), str(run.path), "--output", str(tmp_path)]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_learning_rate_search_has_no_report_but_other_runs_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search, study = (write_run(tmp_path / name, *trials_in(["completed"])) for name in ("search", "study"))
    search.write_plan({**search.read_plan(), "config": "rates"})
    assert main([str(search.path), str(study.path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(search.path / "rates.json") in line
    assert (search.report.exists(), study.report.exists()) == (False, True)


def test_outdated_files_are_removed_only_from_the_default_directory(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed"]))
    for directory in (run.report, tmp_path / "mine"):
        for name in ("plots/old.png", "trials/old.json", "comparison.md"):
            made((directory / name).parent)
            (directory / name).write_text("")
    write_report(run.path)
    assert written(run.report) == {*make_files(read_run(run.path)), "comparison.md"}
    write_report(run.path, tmp_path / "mine")
    assert {"plots/old.png", "trials/old.json"} <= written(tmp_path / "mine")


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'ray', 'pandas', 'matplotlib', 'plotly', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "comparison_table.csv" in done.stdout
    assert "exit codes" in done.stdout


def test_report_does_not_import_torch() -> None:
    code = "import sys, analysis.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_planned_trial_is_in_every_table_and_damage_is_reported(tmp_path: Path) -> None:
    plan = [arm("ast"), arm("beats"), arm("htsat")]
    records = [record(config, "completed") for config in plan[:2]]
    run = write_run(tmp_path / "study", plan, records)
    write_predictions(run, records, players=8, clips=80)
    (run.trial(trial_id(plan[0])) / "predictions.parquet").write_bytes(b"PAR1 torn")
    (run.trial(trial_id(plan[1])) / "trial.json").write_text("{")
    files = make_files(read_run(run.path))
    for name in ("comparison_table.csv", "summary_report.md", "report.html"):
        assert all(trial_id(config) in files[name].decode() for config in plan)
    text = files["summary_report.md"].decode()
    assert f"{trial_id(plan[0])}: predictions.parquet" in text
    assert "trial.json" in text
    assert {f"trials/{trial_id(config)}.json" for config in plan} <= files.keys()


def test_relative_path_gives_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed"]))
    (run.tune / "001").mkdir(parents=True)
    (run.tune / "001" / "experiment_state-2026-01-01_00-00-00.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert read_run(Path("study")).remarks == read_run(run.path).remarks
