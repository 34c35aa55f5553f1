"""The plan of a search: budgets in configurations or time, and what `--from` takes over from it."""

from __future__ import annotations

import dataclasses
import random
from functools import partial
from pathlib import Path

import pytest

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import read_subset
from sousaphone.errors import UserError
from sousaphone.planning.forecast import Forecast, predict
from sousaphone.planning.job import Job
from sousaphone.planning.plan import describe_trials, plan_json
from sousaphone.planning.resources import Resources
from sousaphone.planning.search_plan import describe_search, upcoming, with_rungs, within_time
from sousaphone.planning.throughput import Speed, workload
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.dimensions import space_around
from sousaphone.search.progress import Progress
from tests.planning.conftest import job_of
from tests.search import simulation

SEARCH = ["--config", "search", "--models", "ast", "beats", "--scale", "nano", "--weights", "random", "--epochs", "10"]
CLIPS = {"train": 800, "validation": 100, "test": 100}


@pytest.fixture
def planned(small_sousa: Path, tmp_path: Path) -> Job:
    return job_of(tmp_path, *SEARCH, "--budget", "8", "--data-dir", str(small_sousa), "--name", "run")


def forecast_of(job: Job, speeds: dict[str, float]) -> partial[Forecast]:
    arms = {workload(trial): Speed(speeds[trial.model], 1e6) for trial in job.trials if trial.model in speeds}
    return partial(predict, clips=CLIPS, speeds=arms, trainable={}, at_once=1)


def test_each_backbone_starts_with_its_untuned_default(planned: Job) -> None:
    assert [trial.model for trial in planned.trials] == ["ast", "beats"]
    assert [trial.learning_rate for trial in planned.trials] == [5e-3, 5e-3]
    assert not any(trial.augment or trial.score_test for trial in planned.trials)
    assert planned.sweep.search.proposals == {trial.trial_id: trial.model for trial in planned.trials}
    assert (planned.is_searching, planned.is_done, planned.most_at_once) == (True, False, 16)


def test_expected_trials_have_the_steps_of_the_budget_and_the_finalists(planned: Job) -> None:
    job = with_rungs(planned, CLIPS["train"])
    search = job.sweep.search
    assert search.rungs == (75, 250)
    expected = upcoming(job)
    for model in ("ast", "beats"):
        own = [trial for trial in expected if trial.model == model]
        assert (
            sum(trial.epochs for trial in own if not trial.score_test) * 25 == search.ladder.steps == 8 * 75 + 3 * 175
        )
        assert [trial.epochs for trial in own if trial.score_test] == [10, 10, 10]


def test_time_is_planned_from_the_speed_of_the_backbones(planned: Job) -> None:
    job = with_rungs(planned, CLIPS["train"])
    expect = forecast_of(job, {"ast": 800.0, "beats": 400.0})  # about one and two seconds an epoch
    for configurations in (2, 5, 16):
        exact = job.with_search(dataclasses.replace(job.sweep.search, configurations=configurations))
        seconds = expect(upcoming(exact)).seconds
        timed = job.with_search(dataclasses.replace(job.sweep.search, seconds=seconds + 1e-6))
        found = within_time(timed, expect)
        assert found.sweep.search.configurations == configurations
        assert found.sweep.num_samples == 2 * configurations
    short = job.with_search(dataclasses.replace(job.sweep.search, seconds=30.0))
    with pytest.raises(UserError, match="--budget of 30 s"):
        within_time(short, expect)
    with pytest.raises(UserError, match="--timing"):
        within_time(timed, forecast_of(job, {"ast": 800.0}))


def test_plan_shows_the_estimate_of_each_backbone(planned: Job) -> None:
    job = with_rungs(planned, CLIPS["train"])
    forecast = forecast_of(job, {"ast": 800.0, "beats": 400.0})(upcoming(job))
    text = "\n".join(describe_search(job, forecast))
    assert all(part in text for part in ("8 configurations", "75", "250", "AST", "BEATs", "1,125", "learning_rate"))
    assert text.count("about") == 2


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--seeds", "0", "0"], "--seeds 0 0"),  # the finalists' trials would have the same name
        (["--seeds", "18446744073709551615"], "seed=18446744073709551615"),
        (["--seeds", *map(str, range(2000))], "10000 trials"),  # of finalists
        (["--budget", "198", "--models", "htsat", "efficientat", "strokes"], "1000 arms"),
    ],
)
def test_search_whose_finalists_cannot_be_planned_is_refused(
    small_sousa: Path, tmp_path: Path, options: list[str], part: str
) -> None:
    with pytest.raises(UserError, match=part):
        job_of(tmp_path, *SEARCH, "--budget", "8", "--data-dir", str(small_sousa), *options)


def test_untuned_learning_rate_may_be_zero_only_if_it_is_given(small_sousa: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, *SEARCH, "--data-dir", str(small_sousa), "--set", "learning_rate=0")
    assert "learning_rate" not in job.sweep.search.space["ast"]
    with pytest.raises(UserError, match="learning_rate=0"):
        space_around(dataclasses.replace(job.trials[0], learning_rate=0.0))


def test_setting_that_is_given_is_not_searched(small_sousa: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, *SEARCH, "--data-dir", str(small_sousa), "--set", "learning_rate=0.002", "lora_alpha=8")
    assert set(job.sweep.search.space["ast"]) == {"weight_decay", "head_dropout"}
    assert {trial.learning_rate for trial in job.trials} == {0.002}


def complete(job: Job, small_sousa: Path) -> Progress:
    """Write run.json and the records of a search with random scores; of each backbone, the last finalist is best."""
    job = with_rungs(job, 8)
    job.directory.write_plan(plan_json(job, Resources(1, 0, None), 1, read_subset(small_sousa, "tiny")))
    rng = random.Random(3)
    progress = Progress.read(job.directory)

    def score(trial: TrainConfig, epoch: int) -> float:
        return rng.random()

    epoch = progress.search.rungs[-1] // 10
    simulated = simulation.run(progress, score, steps=epoch)
    added = {name: trial for name, trial in simulated.trials.items() if name not in progress.trials}
    job.directory.append_trials(added.values(), search=dataclasses.asdict(simulated.search))
    finals = simulated.final_trials((0, 1))
    job.directory.append_trials(finals)
    records = dict(simulated.records)
    for number, trial in enumerate(finals):
        rows = [{"epoch": 1, "best_epoch": 1, "steps": epoch, "val_macro_f1": 0.1 * number}]
        records[trial.trial_id] = TrialRecord(trial.trial_id, dataclasses.asdict(trial), history=rows)
        records[trial.trial_id].end(Cause.ALL_EPOCHS, "")
    for name, record in records.items():
        job.directory.trial(name).mkdir(parents=True)
        record.config = dataclasses.asdict(simulated.trials.get(name, job.trials[0]))
        record.write(job.directory.trial(name))
    return Progress.read(job.directory)


def test_sweep_from_a_search_has_all_settings_of_the_best_finalists(
    planned: Job, small_sousa: Path, tmp_path: Path
) -> None:
    progress = complete(planned, small_sousa)
    storage = planned.directory.path.parent
    usual = ["--models", "ast", "beats", "htsat", "--scale", "nano", "--weights", "random", "--data-dir"]
    for run in ("run", str(storage / "run")):
        job = job_of(storage, *usual, str(small_sousa), "--from", run, "--augment", "off")
        for model in ("ast", "beats"):
            final = [trial for trial in progress.trials.values() if trial.score_test and trial.model == model]
            (trial,) = (trial for trial in job.trials if trial.model == model)
            fields = ("learning_rate", "lora_r", "lora_alpha", "weight_decay", "head_dropout")
            assert [getattr(trial, f) for f in fields] == [getattr(final[-1], f) for f in fields]
        (untuned,) = (trial for trial in job.trials if trial.model == "htsat")
        assert (untuned.lora_r, untuned.lora_alpha) == (8, 16.0)
        assert any("--from" in remark and "htsat" in remark for remark in job.remarks)
        assert "lora_r" in job.sweep.tuning
        lines = list(describe_trials(job, job.trials, Resources(1, 0, None), 1, {}))
        for trial in job.trials:
            (line,) = (line for line in lines if trial.trial_id in line)
            assert (f"weight_decay={trial.weight_decay}" in line) == (trial.model != "htsat")
    with pytest.raises(UserError, match="strategy"):
        job_of(storage, *usual, str(small_sousa), "--from", "run", "--strategy", "head")
    with pytest.raises(UserError, match="--from"):
        job_of(storage, "--promote", "run", "--name", "other")
    with pytest.raises(UserError, match="--extend"):
        job_of(storage, "--extend", "--name", "run", "--seeds", "0", "1", "2")


def test_search_that_is_complete_runs_only_its_finalists(planned: Job, small_sousa: Path) -> None:
    progress = complete(planned, small_sousa)
    storage = planned.directory.path.parent
    job = job_of(storage, "--resume", "--name", "run")
    assert job.is_done
    final = next(name for name, trial in progress.trials.items() if trial.score_test)
    (job.directory.trial(final) / "trial.json").unlink()
    job = job_of(storage, "--resume", "--name", "run", "--retry-failed")
    assert [trial.trial_id for trial in job.left()] == [final]
    assert not job.is_searching
    assert not job.is_done
    assert job.proposals_left == 0
    assert job.planned == len(job.trials)


@pytest.mark.parametrize(
    "changes",
    [
        {"rungs": []},
        {"rungs": [1, 10**14]},
        {"rungs": [0, 0]},
        {"space": {"ast": {"nothing": {"type": "uniform", "low": 0.0, "high": 1.0}}, "beats": {}}},
        {"configurations": 10**9},
        {"proposals": {"elsewhere": "ast"}},
        {"sampler": "grid"},
    ],
)
def test_damaged_search_is_refused_in_one_line(planned: Job, small_sousa: Path, changes: dict[str, object]) -> None:
    job = with_rungs(planned, 8)
    job.directory.write_plan(plan_json(job, Resources(1, 0, None), 1, read_subset(small_sousa, "tiny")))
    plan = job.directory.read_plan()
    assert job_of(planned.directory.path.parent, "--resume", "--name", "run").is_searching
    job.directory.write_plan({**plan, "search": {**plan["search"], **changes}})
    with pytest.raises(UserError, match=r"run\.json"):
        job_of(planned.directory.path.parent, "--resume", "--name", "run")


def test_search_without_finished_finalists_has_found_nothing(planned: Job, small_sousa: Path) -> None:
    job = with_rungs(planned, 8)
    job.directory.write_plan(plan_json(job, Resources(1, 0, None), 1, read_subset(small_sousa, "tiny")))
    with pytest.raises(UserError, match="finalists"):
        job_of(planned.directory.path.parent, "--data-dir", str(small_sousa), "--from", "run")
