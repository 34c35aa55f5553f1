"""`write_report`: read one run and write everything that is said about it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from analysis.figures.all_figures import Mark, pictures
from analysis.load.predictions import read_predictions
from analysis.load.ray_log import read_ray_log
from analysis.load.trials import read_trials
from analysis.run_summary import Findings
from analysis.sections import sections
from analysis.stats.arms import arms, best_of_each
from analysis.stats.confusion import counts_of, worst_pairs
from analysis.write import exports
from analysis.write.audio_clips import listening
from analysis.write.blocks import Sounds
from analysis.write.html import to_html
from analysis.write.markdown import to_markdown
from analysis.write.table import comparison_table, to_csv
from sousaphone.config import SEARCH, TrainConfig
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.runs import learning_rates
from sousaphone.runs.baseline_results import BaselineResults
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import ADAPTER_NAME, now

_LINKS = (
    "Every column: comparison_table.csv; every epoch: epochs.csv; every clip: predictions.parquet; one JSON a trial: "
    "trials/; interactive: report.html; pictures: plots/."
)


def read_run(path: Path) -> Findings:
    """A run, finished or not, as its report sees it.

    Raises:
        UserError: no run is there, its plan is damaged, or it is a search for learning rates.
    """
    path = path.absolute()  # Ray takes no relative one
    run = RunDirectory(path)
    plan = run.read_plan()
    if plan.get("config") == SEARCH:
        raise UserError(
            f"{path} looked for learning rates, and its trials are no results to report; what it finds stands in "
            f"{path / learning_rates.FILE}"
        )
    known, remarks = read_ray_log(run.experiments)
    trials = read_trials(run, plan, known)
    predictions, damaged = read_predictions(run, trials)
    others = {name: read_predictions(run, trials, name)[0] for name in ("held_out", "also")}
    further = {n: (rows.sample_id.nunique(), rows.player.nunique()) for n, rows in others.items() if len(rows)}
    try:
        baseline_results = BaselineResults.read(path)
    except ValueError as error:
        baseline_results = None
        damaged.append(f"baselines: {error}; resuming measures them anew")
    adapters = {trial.trial_id: run.trial(trial.trial_id) / ADAPTER_NAME for trial in trials}
    sizes = {trial_id: file.stat().st_size for trial_id, file in adapters.items() if file.is_file()}
    remarks += damaged
    return Findings(path, plan, trials, run.is_live(), now(), remarks, predictions, baseline_results, sizes, further)


def write_report(run: Path, output: Path | None = None, with_sounds: bool = True) -> Path:
    """Write comparison_table.csv, epochs.csv, predictions.parquet, trials/*.json, summary_report.md, report.html and
    plots/*.png.

    Everything is made before anything is written, and each file takes its place whole. In the run's own directory,
    pictures and trials of earlier reports that this one has no more are removed.

    Args:
        run: the directory that launch.py wrote.
        output: where the files go; RUN/report by default.
        with_sounds: embed audio clips of the worst confusions in report.html.

    Returns:
        The directory that holds the report.

    Raises:
        UserError: as `read_run`, or the report cannot be written.
    """
    files = make_files(read_run(run), with_sounds)
    directory = output if output is not None else RunDirectory(run).report
    try:
        for name, content in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(directory / name) as temporary:
                temporary.write_bytes(content)
        if output is None:  # elsewhere such files may be somebody's own
            for path in (*directory.glob("plots/*.png"), *directory.glob("trials/*.json")):
                if path.relative_to(directory).as_posix() not in files:
                    path.unlink()
    except OSError as error:
        raise UserError(
            f"{directory} cannot take the report ({error.strerror}); give another one with --output"
        ) from error
    return directory


def make_files(found: Findings, with_sounds: bool = True) -> dict[str, bytes]:
    """The content of every file of the report, by its name."""
    baselines = found.baseline_results.baselines if found.baseline_results else ()
    marks = [Mark(b.title, b.scores.get("val_acc"), b.scores.get("test_acc")) for b in baselines if b.scores]
    with ThreadPoolExecutor(1) as beside:  # sounds are decoded and encoded outside Python
        heard = beside.submit(_listen, found) if with_sounds else None
        drawn = pictures(found.trials, found.predictions, marks, found.cpu_ms, found.adapter_bytes, found.banner)
        sounds, remarks = heard.result() if heard else ([], [])
    said = sections(found, drawn, sounds, remarks)
    files = {
        "comparison_table.csv": to_csv(comparison_table(found.trials, found.cpu_ms, found.adapter_bytes)).encode(),
        "epochs.csv": exports.epochs_csv(found.trials),
        "predictions.parquet": exports.predictions_parquet(found.predictions),
        "summary_report.md": f"{to_markdown(found.name, said)}\n{_LINKS}\n\nWritten {found.written}.\n".encode(),
        "report.html": to_html(found.name, said, f"{_LINKS} Written {found.written}.").encode(),
    }
    for trial in found.trials:
        size = found.adapter_bytes.get(trial.trial_id)
        files[f"trials/{trial.trial_id}.json"] = exports.trial_json(trial, trial.started, size)
    return files | {f"plots/{picture.name}.png": picture.png for picture in drawn if picture.png is not None}


def _listen(found: Findings) -> tuple[list[Sounds], list[str]]:
    """Clips of the worst confusions of the best arm, those that its figure names, and why there are none."""
    best = next(iter(best_of_each(arms(found.trials), found.scored)), None)
    root = (found.plan.get("data") or {}).get("root")
    if best is None or not root:
        return [], []
    ids = [trial.trial_id for trial in best.shown]
    mine = found.predictions[found.predictions.trial_id.isin(ids)]
    seconds = float(best.shown[0].config.get("clip_seconds", TrainConfig.clip_seconds))
    return listening(Path(root), mine, worst_pairs(counts_of(mine, ids)), seconds)
