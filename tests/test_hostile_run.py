"""A run directory that somebody sent: reading it executes nothing and touches nothing outside it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from analysis.figures.style import jitter
from analysis.report import read_run, write_report
from launch import main as launch
from sousaphone.cli.command import EXIT_INPUT, EXIT_OK
from sousaphone.cli.report import main as report
from sousaphone.cli.runs import main as runs
from sousaphone.cli.sweep import make_sweep, parse
from sousaphone.errors import UserError
from sousaphone.planning.make_job import make_job
from sousaphone.runs.baseline_results import SCORES, Baseline, BaselineResults, InferenceTime
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.seal import pickles, seal
from tests.analysis.run_builders import arm, record, trial_id, write_predictions, write_run
from tests.fuzz_runs.mutations import mutated
from tests.fuzz_runs.plants import Payload
from tests.fuzz_runs.runs import Readers, add_small_files, fault, json_files

CONFIGS = [arm("efficientat", seed=seed) for seed in (0, 1)]
CUT, DONE = map(trial_id, CONFIGS)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that can be reported, resumed and promoted: one trial was interrupted, the other is complete."""
    records = [record(CONFIGS[0], "interrupted"), record(CONFIGS[1], "completed")]
    run = write_run(tmp_path / "runs" / "run", CONFIGS, records)
    write_predictions(run, records, clips=40)
    words = ["--name", "new", "--storage", str(tmp_path), "--models", "efficientat", "--seeds", "0", "1"]
    job = make_job(parse([*words, "--augment", "on", "--weights", "random"], "launch.py"), make_sweep)
    run.write_plan({**run.read_plan(), "request": dataclasses.asdict(job.request)})
    return run


def outside(run: RunDirectory) -> dict[Path, bytes]:
    """Return all files next to the run."""
    storage = run.path.parents[1]
    files = (path for path in storage.rglob("*") if path.is_file() and not path.is_relative_to(run.path))
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "name",
    [
        *("report", "report/plots", "report/trials", "tune", "trials", f"trials/{DONE}", f"trials/{DONE}/trial.json"),
        *(f"trials/{CUT}/checkpoints", f"trials/{DONE}/predictions.parquet", "STATUS.md", ".lock", "driver.json"),
    ],
)
def test_link_out_of_the_run_is_refused(
    run: RunDirectory, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, link = tmp_path / "mine" / "target", run.path / name
    target.mkdir(parents=True)
    for file in ("holiday.png", "accounts.json"):
        (target / file).write_text("{}")
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists():
        link.rename(tmp_path / "before")
    link.symlink_to(target)
    before, storage = outside(run), str(run.path.parent)
    for command, *words in (
        (report, str(run.path)),
        (launch, "--resume", "--name", "run", "--storage", storage),
        (launch, "--promote", str(run.path), "--storage", storage, "--plan"),
        (runs, "prune", "run", "--yes", "--storage", storage),
    ):
        assert command(words) == EXIT_INPUT
        error = capsys.readouterr().err
        assert f"{link} is a link" in error
        assert error.count("\n") == 1
    assert runs(["list", "--storage", storage]) == EXIT_OK
    assert outside(run) == before


def test_pickles_of_an_unsealed_experiment_are_not_read(run: RunDirectory, tmp_path: Path) -> None:
    content = pickle.dumps(Payload(tmp_path / "executed"))
    experiment = run.tune / "001"
    experiment.mkdir(parents=True)
    state = {"trial_data": [], "x": {"_type": "CLOUDPICKLE_FALLBACK", "value": content.hex()}}
    (experiment / "experiment_state-2026-01-01_00-00-00.json").write_text(json.dumps(state))
    (experiment / "tuner.pkl").write_bytes(content)
    other = write_run(tmp_path / "other", CONFIGS, [record(CONFIGS[0], "completed")])
    page = write_report(run.path) / "summary_report.md"
    assert report([str(other.path), "--compare", str(run.path)]) == EXIT_OK
    assert not (tmp_path / "executed").exists()
    assert "001 was not sealed" in page.read_text()
    seal(experiment, pickles(experiment))  # the test can fail: under a seal, Ray reads them
    read_run(run.path)
    assert (tmp_path / "executed").exists()


def test_link_within_the_run_is_allowed(run: RunDirectory) -> None:
    (run.path / "best").symlink_to(f"trials/{DONE}")
    assert len(read_run(run.path).trials) == 2


@pytest.mark.parametrize("name", ["../../../mine", "/mine", "a/b", "..", ".", "", ".hidden", "a\n", "ä", "x" * 201])
def test_trial_id_that_is_no_plain_name_is_refused(run: RunDirectory, name: str) -> None:
    before = outside(run)
    run.write_plan(run.read_plan() | {"trial_ids": [name, DONE]})
    with pytest.raises(UserError, match=r"run\.json.*trial_ids\.0"):
        write_report(run.path)
    assert outside(run) == before


@pytest.mark.parametrize("value", [10**30, -1, 65, 1.5, True, "1", None, [], {}])
@pytest.mark.parametrize("name", ["oom_retries", "halvings"])
def test_wrong_number_is_the_error_of_its_trial(run: RunDirectory, name: str, value: Any) -> None:
    path = run.trial(DONE) / "trial.json"
    content = json.loads(path.read_text())
    del content["oom_retries"]
    path.write_text(json.dumps({**content, name: value}))
    cut, damaged = read_run(run.path).trials
    assert (cut.status, cut.error) == ("interrupted", None)
    assert damaged.status == "failed"
    assert f"({name}: " in str(damaged.error)


@pytest.mark.parametrize("name", ["epoch", "best_epoch"])
def test_number_of_an_epoch_that_is_no_integer_is_the_error_of_its_trial(run: RunDirectory, name: str) -> None:
    path = run.trial(DONE) / "trial.json"
    content = json.loads(path.read_text())
    content["history"][0][name] = 1.0
    path.write_text(json.dumps(content))
    damaged = next(trial for trial in read_run(run.path).trials if trial.trial_id == DONE)
    assert "history" in str(damaged.error)


def test_older_names_are_read(run: RunDirectory) -> None:
    path = run.trial(DONE) / "trial.json"
    content = json.loads(path.read_text())
    content["halvings"] = content.pop("oom_retries") + 1
    path.write_text(json.dumps({**content, "unknown": {"a": [10**30]}}))
    plan = run.read_plan()
    del plan["request"]["tuned"], plan["request"]["tuned_message"]
    plan["request"] |= {"rates": {"ast": 0.1}, "rates_told": "searched"}
    run.write_plan({**plan, "unknown": 1})
    assert read_run(run.path).trials[1].oom_retries == 1
    options = parse(["--resume", "--name", "run", "--storage", str(run.path.parent)], "launch.py")
    request = make_job(options, make_sweep).request
    assert (request.tuned, request.tuned_message) == ({"ast": {"learning_rate": 0.1}}, "searched")


def test_mutated_files_give_results_or_one_line(run: RunDirectory, tmp_path: Path) -> None:
    """`python -m tests.fuzz_runs` makes more of them, of a real run."""
    rng = random.Random(0)
    add_small_files(run, CUT)
    baselines = tuple(
        Baseline(name, name, dict.fromkeys(SCORES, 0.3), 1.0, "k=3") for name in ("onsets", "strokes", "logmel")
    )
    times = (InferenceTime("efficientat", "lora", "all-linear", 3.0),)
    BaselineResults(baselines, times, "a CPU", 2.5, "0").write(run.path)
    (run.path / "driver.json").write_text(json.dumps({"token": "1", "host": "here", "pid": 1, "started": 1.0}))
    other = write_run(tmp_path / "other", CONFIGS, [record(CONFIGS[1], "completed")])
    readers, files = Readers(run, read_run(other.path)), json_files(run)
    assert len(files) == 8
    before = outside(run)
    for number in range(200):
        file = files[number % len(files)]
        text = file.read_text()
        changed = json.dumps(mutated(json.loads(text), rng))
        file.write_text(changed)
        some = list(readers.named())[number % 2 :: 2]
        found = {name: problem for name, read in some if (problem := fault(read)) is not None}
        assert found == {}, changed
        file.write_text(text)
    assert outside(run) == before


def test_thousands_of_equal_points_stay_where_they_are() -> None:
    assert jitter([(0.0, 0.0)] * 10) != [0] * 10
    assert jitter([(0.0, 0.0)] * 5000) == [0] * 5000  # moving them would take hours


@pytest.mark.parametrize(("models", "arms"), [(33, 1), (30, 34)])
def test_plan_with_more_arms_than_there_are_is_refused(run: RunDirectory, models: int, arms: int) -> None:
    names = [(f"m{model}", f"s{number}") for model in range(models) for number in range(arms)]
    plan = run.read_plan()
    plan["trials"] = [{**arm(), "model": model, "strategy": strategy} for model, strategy in names]
    plan["trial_ids"] = ["-".join(name) for name in names]
    run.write_plan(plan)
    with pytest.raises(UserError, match=r"run\.json.*arms"):
        read_run(run.path)


@pytest.mark.parametrize("change", ["none", "run.json", "trial.json"])
def test_mutation_test_can_fail(run: RunDirectory, tmp_path: Path, change: str) -> None:
    """Of the intact run, every reader gives a result; of a damaged one, some a UserError."""
    other = write_run(tmp_path / "other", CONFIGS, [record(CONFIGS[1], "completed")])
    add_small_files(run, CUT)
    if change == "run.json":
        (run.path / "run.json").write_text("{}")
    elif change == "trial.json":
        (run.trial(DONE) / "trial.json").write_text("{}")
    refused = set()
    for name, read in Readers(run, read_run(other.path)).named():
        try:
            read()
        except UserError:
            refused.add(name)
    expected = {"none": set(), "run.json": {"report", "resume", "extend", "promote", "small files", "compare with"}}
    assert refused - {"compare with files"} == expected.get(change, {"promote"})
