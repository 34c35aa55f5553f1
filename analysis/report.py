"""`write_report`: read a run and write its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.figures.all_figures import pictures
from analysis.load.predictions import read_baseline, read_predictions
from analysis.load.ray_log import read_ray_log
from analysis.load.trials import Trial, read_trials
from analysis.run_summary import Findings
from analysis.search_section import importance_table, search_table
from analysis.sections import sections
from analysis.stats.classes import classes_of
from analysis.stats.confusion import counts_of, worst_pairs
from analysis.stats.search_results import SearchResults
from analysis.write import exports
from analysis.write.audio_clips import listening
from analysis.write.blocks import Sounds
from analysis.write.html import to_html
from analysis.write.markdown import to_markdown
from analysis.write.table import comparison_table, to_csv
from sousaphone.config import RATES, TrainConfig
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.runs import learning_rates
from sousaphone.runs.baseline_results import BaselineResults
from sousaphone.runs.deployment import Deployment
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.predictions import DAMAGED
from sousaphone.runs.trial_record import adapter_file, now, predictions_name
from sousaphone.search.design import Search
from sousaphone.text import one_line

_LINKS = (
    "Every column: comparison_table.csv; every epoch: epochs.csv; every clip: predictions.parquet; one JSON file per "
    "trial: trials/; interactive charts: report.html; figures: plots/."
)


def read_run(path: Path) -> Findings:
    """Read a run, finished or not; raise a UserError if it is not an intact run, or a learning-rate search."""
    path = path.absolute()  # Ray does not accept relative paths
    run = RunDirectory(path)
    plan = run.read_foreign_plan()
    if plan.get("config") == RATES:
        raise UserError(
            f"{path} is a learning-rate search, which has no report; its result is in {path / learning_rates.FILE}"
        )
    known, remarks = read_ray_log(run.experiments)
    trials = read_trials(run, plan, known)
    predictions, damaged = read_predictions(run, trials)
    search = _read_search(run, plan, trials, damaged)
    others = {name: read_predictions(run, trials, name)[0] for name in ("held_out", "also")}
    further = {n: (rows.sample_id.nunique(), rows.player.nunique()) for n, rows in others.items() if len(rows)}
    try:
        baseline_results = BaselineResults.read(path)
    except ValueError as error:
        baseline_results = None
        damaged.append(f"baselines: {error}; resuming measures them again")
    try:
        deployment = Deployment.read(path)
    except ValueError as error:
        deployment = Deployment(())
        damaged.append(f"deploy cards: {error}; `sousaphone benchmark` measures them again")
    best, baseline_rows = baseline_results.best if baseline_results else None, None
    if best is not None:
        try:
            baseline_rows = read_baseline(run, best.name)
        except DAMAGED as error:
            damaged.append(f"predictions of the baseline {best.name} are damaged ({one_line(error, 200)})")
    # The clips of all trials are the same; older runs have only those of the test.
    validated = [t for t in trials if (run.trial(t.trial_id) / predictions_name("val")).is_file()]
    adapters = {trial.trial_id: adapter_file(run.trial(trial.trial_id)) for trial in trials}
    sizes = {trial_id: file.stat().st_size for trial_id, file in adapters.items() if file}
    remarks += damaged
    return Findings(
        path,
        plan,
        trials,
        run.is_live(),
        now(),
        remarks,
        predictions,
        baseline_results,
        sizes,
        further,
        baseline_rows,
        deployment,
        search,
        classes_of(read_predictions(run, validated[:1], "val")[0] if validated else predictions),
    )


def _read_search(
    run: RunDirectory, plan: Mapping[str, Any], trials: Sequence[Trial], remarks: list[str]
) -> SearchResults | None:
    """Read the search of a run and the validation predictions that it needs; None for other sweeps."""
    if not plan.get("search"):
        return None
    with run.checking():
        results = SearchResults.of(Search.from_json(plan["search"]), trials)
    validation, damaged = read_predictions(run, results.to_read, "val")
    remarks += damaged
    return replace(results, validation=validation)


def write_report(run: Path, output: Path | None = None, with_sounds: bool = True, data_dir: Path | None = None) -> Path:
    """Write the report of a run to `output` (RUN/report by default) and return that directory.

    The files are comparison_table.csv, epochs.csv, predictions.parquet, trials/*.json, summary_report.md, report.html,
    plots/*.png and, of a search, search.csv and importance.csv. All contents are made before the first file is written,
    and each file is replaced atomically. In RUN/report, figures and trials of earlier reports that are not in this one
    are removed. `with_sounds` embeds audio of the most frequent confusions in report.html, from `data_dir` or, if this
    installation wrote run.json, from the data set of the run. Raise a UserError as `read_run`, or if the report cannot
    be written.
    """
    files = make_files(read_run(run), with_sounds, data_dir)
    directory = output if output is not None else RunDirectory(run).report
    # Other directories may hold the user's own files.
    write_files(directory, files, replaced=("plots/*.png", "trials/*.json") if output is None else ())
    return directory


def write_files(directory: Path, files: Mapping[str, bytes], replaced: Sequence[str] = ()) -> None:
    """Write each file atomically and remove other files that match `replaced`; raise a UserError if that fails."""
    try:
        for name, content in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(directory / name) as temporary:
                temporary.write_bytes(content)
        for path in (path for pattern in replaced for path in directory.glob(pattern)):
            if path.relative_to(directory).as_posix() not in files:
                path.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {directory} ({error.strerror}); use another --output") from error


def make_files(found: Findings, with_sounds: bool = True, data_dir: Path | None = None) -> dict[str, bytes]:
    """Return the content of every file of the report, by name."""
    with ThreadPoolExecutor(1) as executor:  # audio is decoded and encoded outside Python
        audio = executor.submit(_listen, found, data_dir) if with_sounds else None
        figures = pictures(found)
        sounds, remarks = audio.result() if audio else ([], [])
    content = sections(found, figures, sounds, remarks)
    table = comparison_table(found.trials, found.cpu_ms, found.adapter_bytes, found.tested)
    files = {
        "comparison_table.csv": to_csv(table).encode(),
        "epochs.csv": exports.epochs_csv(found.trials),
        "predictions.parquet": exports.predictions_parquet(found.predictions),
        "summary_report.md": f"{to_markdown(found.name, content)}\n{_LINKS}\n\nWritten {found.written}.\n".encode(),
        "report.html": to_html(found.name, content, f"{_LINKS} Written {found.written}.").encode(),
    }
    if found.search is not None:
        tables = {"search.csv": search_table(found.search), "importance.csv": importance_table(found.search)}
        files |= {name: table.to_csv(index=False, lineterminator="\n").encode() for name, table in tables.items()}
    sizes = found.adapter_bytes
    files |= {f"trials/{t.trial_id}.json": exports.trial_json(t, sizes.get(t.trial_id)) for t in found.trials}
    return files | {f"plots/{figure.name}.png": figure.png for figure in figures if figure.png is not None}


def _listen(found: Findings, data_dir: Path | None) -> tuple[list[Sounds], list[str]]:
    """Return audio clips of the most frequent confusions of the best arm, and remarks about missing audio."""
    root = data_dir or found.data.get("root")
    if not found.best or not root:
        return [], []
    if data_dir is None and not RunDirectory(found.path).is_own:
        return [], ["Audio is left out, because run.json is not sealed on this machine; --data-dir DIR embeds it."]
    best = found.best[0]
    rows = found.rows(best)
    seconds = float(best.shown[0].config.get("clip_seconds", TrainConfig.clip_seconds))
    return listening(Path(root), rows, worst_pairs(counts_of(rows, found.scored(best))), seconds)
