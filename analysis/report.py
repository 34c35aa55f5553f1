"""`write_report`: read one run and write everything that is said about it."""

from __future__ import annotations

from pathlib import Path

from analysis import plots
from analysis.findings import Findings
from analysis.page import page
from analysis.ray_log import read_ray_log
from analysis.summary import summary
from analysis.table import comparison_table, to_csv
from analysis.trials import read_trials
from sousaphone.errors import UserError
from sousaphone.record import atomic_write, now
from sousaphone.run import RunDirectory


def read_run(path: Path) -> Findings:
    """A run, finished or not, as its report sees it.

    Raises:
        UserError: no run is there, or its plan is damaged.
    """
    run = RunDirectory(path)
    plan = run.read_plan()
    if not isinstance(plan, dict):
        raise UserError(f"{path / 'run.json'} is damaged (no object); restore it from a copy")
    known, remarks = read_ray_log(run.experiments)
    trials = read_trials(run, plan, known)
    return Findings(path, plan, trials, run.is_live(), now(), remarks)


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write comparison_table.csv, summary_report.md, report.html and plots/*.png.

    Everything is made before anything is written, and each file takes its place whole, so a report that stands is
    never half a one.

    Args:
        run: the directory that launch.py wrote.
        output: where the files go; RUN/report by default.

    Returns:
        The directory that holds the report.

    Raises:
        UserError: no run is there, its plan is damaged, or the report cannot be written.
    """
    found = read_run(run)
    files = {
        "comparison_table.csv": to_csv(comparison_table(found.trials)).encode(),
        "summary_report.md": summary(found).encode(),
        "report.html": page(found).encode(),
    }
    for plot in (plots.accuracy_comparison, plots.efficiency_scatter, plots.training_time):
        files[f"plots/{plot.__name__}.png"] = plot(found.trials, found.banner)
    directory = output if output is not None else RunDirectory(run).report
    try:
        (directory / "plots").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic_write(directory / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"{directory} cannot take the report ({error.strerror}); give another one with --output"
        ) from error
    return directory
