"""Resume, extend and promote: the trials left, and refusals before any file is changed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import launch
from sousaphone.cli.command import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_OK
from sousaphone.data.prepare import read_subset
from sousaphone.errors import UserError
from sousaphone.planning.plan import plan_json, refuse_other_content
from sousaphone.planning.resources import Resources
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.sweep.experiment import MovedRunError, run_job
from sousaphone.sweep.ray_process import Runtime
from tests.backbones.beats_nets import official, perturbed, written
from tests.planning.conftest import CUT, WAITING, end, job_of


def ids_left(storage: Path, *options: str) -> list[str]:
    return [trial.trial_id for trial in job_of(storage, "--resume", "--name", "run", *options).left()]


def test_trials_left_follow_from_the_statuses(storage: Path) -> None:
    run = RunDirectory(storage / "run")
    for status in Status:
        end(run, status)
        left = not status.has_ended or status is Status.TIME_LIMIT  # below its limit
        assert ids_left(storage) == ([CUT, WAITING] if left else [WAITING]), status
        left = left or status.is_retried
        assert ids_left(storage, "--retry-failed") == ([CUT, WAITING] if left else [WAITING]), status


def test_trial_at_its_limit_is_left_only_under_a_longer_limit(storage: Path) -> None:
    end(RunDirectory(storage / "run"), "time_limit", seconds=3600.0)
    assert ids_left(storage) == [WAITING]  # the limit of an hour is the run's
    assert ids_left(storage, "--trial-time-limit", "30m") == [WAITING]
    assert ids_left(storage, "--trial-time-limit", "61m") == [CUT, WAITING]
    assert ids_left(storage, "--trial-time-limit", "none") == [CUT, WAITING]


def test_damaged_record_is_ignored(storage: Path) -> None:
    end(RunDirectory(storage / "run"), "completed")
    (storage / "run" / "trials" / CUT / "trial.json").write_text('{"torn')
    assert ids_left(storage) == [CUT, WAITING]


def test_extension_keeps_the_settings_of_existing_backbones(storage: Path) -> None:
    job = job_of(storage, "--extend", "--name", "run", "--models", "beats", "ast", "--seeds", "1", "2")
    assert job.added == ("beats-lora-aug-off-s2", "ast-lora-aug-off-s1", "ast-lora-aug-off-s2")
    assert [trial.trial_id for trial in job.trials] == [CUT, WAITING, *job.added]
    first, _, beats, ast, _ = job.trials
    assert beats.weights == first.weights
    assert ast.weights == "random"
    assert {trial.clip_seconds for trial in job.trials} == {1.0}


def test_learning_rate_search_has_the_schedule_of_the_sweep_without_augmentation_and_test(begun: Path) -> None:
    search = ["--config", "rates", "--models", "ast", "beats", "--weights", "random", "--scale", "nano"]
    trials = job_of(begun, *search).trials
    assert len(trials) == 2 * 4
    (usual,) = {trial.epochs for trial in job_of(begun, *search[2:]).trials}
    assert {(trial.epochs, trial.limit_train_batches) for trial in trials} == {(usual, None)}
    assert not any(trial.augment or trial.score_test for trial in trials)
    assert {trial.epochs for trial in job_of(begun, *search, "--epochs", "5").trials} == {5}


RANKS = """
import dataclasses
from ray import tune
from tune_configs import backbones

def sweep(request):
    usual = backbones.sweep(request)
    space = {**usual.param_space, "lora_r": tune.grid_search([2, 4]), "label_smoothing": tune.grid_search([0.0, 0.2])}
    return dataclasses.replace(usual, param_space=space)
"""


def scheduled(scheduler: str) -> str:
    """RANKS with a scheduler and no ranks."""
    return "from ray.tune.schedulers import *\n" + RANKS.replace("param_space=space", f"scheduler={scheduler}")


POPULATION = scheduled("PopulationBasedTraining(hyperparam_mutations={'lora_r': [2]})")


@pytest.fixture
def ranks(storage: Path) -> Path:
    """The file of a sweep over ranks, of which `run` is made a run."""
    file = storage / "ranks.py"
    file.write_text(RANKS)
    plan = RunDirectory(storage / "run").read_plan()
    words = ["--config", str(file), "--name", "new", "--models", "beats", "--augment", "off", "--scale", "nano"]
    words += ["--weights", f"beats={storage / 'beats.pt'}", "--set", "clip_seconds=1.0"]
    job = job_of(storage, *words, "--data-dir", str(storage / "sousa"), "--epochs", "9")
    shutil.rmtree(storage / "run")
    dataset = read_subset(storage / "sousa", "tiny")
    RunDirectory(storage / "run").write_plan(
        {**plan_json(job, Resources(1, 0, None), 1, dataset), "name": plan["name"]}
    )
    return file


def test_extension_of_a_space_adds_its_points_and_renames_none(storage: Path, ranks: Path) -> None:
    before = RunDirectory(storage / "run").read_plan()
    job = job_of(storage, "--extend", "--name", "run", "--models", "beats", "ast", "--seeds", "0", "1")
    assert [dataclasses.asdict(trial) for trial in job.trials[:4]] == before["trials"]
    assert job.trial_ids[:4] == before["trial_ids"]
    added = {(t.model, t.seed, t.lora_r, t.label_smoothing) for t in job.trials[4:]}
    rest = {(m, s) for m in ("beats", "ast") for s in (0, 1)} - {("beats", 0)}
    assert added == {(m, s, r, smooth) for m, s in rest for r in (2, 4) for smooth in (0.0, 0.2)}
    assert len(set(job.trial_ids)) == 16
    assert {t.clip_seconds for t in job.trials} == {1.0}


def test_file_that_the_plan_of_another_names_is_not_executed(storage: Path, ranks: Path) -> None:
    run = RunDirectory(storage / "run")
    trace = storage / "executed"
    evil = storage / "evil" / "ranks.py"
    evil.parent.mkdir()
    evil.write_text(RANKS + f"open({str(trace)!r}, 'w').close()\n")
    content = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**content, "config_file": str(evil)}))  # without its seal
    for action in ("--resume", "--extend"):
        with pytest.raises(UserError, match=rf"--config {evil}"):
            job_of(storage, action, "--name", "run")
    assert not trace.exists()
    job = job_of(storage, "--resume", "--name", "run", "--config", str(ranks))
    assert len(job.left()) == 4
    # From now on the plan names the given file.
    saved = plan_json(job, Resources(1, 0, None), 1, read_subset(storage / "sousa", "tiny"))
    assert saved["config_file"] == str(ranks)


def returning(**fields: object) -> str:
    """A file whose sweep has these fields."""
    return (
        "import dataclasses\nfrom tune_configs import backbones\n"
        f"def sweep(request):\n    return dataclasses.replace(backbones.sweep(request), **{fields!r})\n"
    )


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("absent.py", None, ["no such file"]),
        ("rates.py", RANKS, ["'rates'", "rename"]),
        ("two words.py", RANKS, ["letters"]),
        ("syntax.py", "def sweep(request:", ["SyntaxError"]),
        ("raises.py", "def sweep(request):\n    return 1 / 0", ["line 2", "ZeroDivisionError"]),
        ("none.py", "", ["sweep"]),
        ("number.py", "def sweep(request):\n    return 3", ["int", "Sweep"]),
        ("population.py", POPULATION, ["population based", "scheduler"]),
        ("own_metric.py", scheduled("ASHAScheduler(metric='val_acc', mode='max')"), ["metric", "scheduler"]),
        ("scheduler.py", returning(scheduler="asha"), ["scheduler", "'asha'"]),
        ("searcher.py", returning(searcher="optuna", param_space={"model": "ast"}), ["searcher", "'optuna'"]),
        ("tuned.py", returning(search="x"), ["search", "'x'"]),
        ("resources.py", returning(cpus_per_trial="2"), ["cpus_per_trial", "'2'"]),
        ("mode.py", returning(mode="best"), ["mode", "'best'"]),
        ("metric.py", returning(metric="f1"), ["metric", "'f1'"]),
        ("samples.py", returning(num_samples=10**9), ["num_samples", "1000000000"]),
        ("rank.py", RANKS.replace('"lora_r"', '"rank"'), ["rank.py", "'rank'"]),
    ],
)
def test_wrong_file_of_a_sweep_is_one_line(tmp_path: Path, name: str, content: str | None, parts: list[str]) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as refused:
        job_of(tmp_path, "--config", str(tmp_path / name), "--weights", "random", "--scale", "nano")
    assert "\n" not in str(refused.value)
    assert all(part in str(refused.value) for part in parts), refused.value


def test_weights_of_a_run_change_only_if_named(storage: Path) -> None:
    saved = job_of(storage, "--resume", "--name", "run").trials[0].weights
    extend = ["--extend", "--name", "run", "--models", "efficientat", "--seeds", "0", "--weights"]
    job = job_of(storage, *extend, "random")
    assert [trial.weights for trial in job.trials] == [saved, saved, "random"]
    moved = str(storage / "beats.pt")
    job = job_of(storage, *extend, "random", f"beats={moved}")
    assert [trial.weights for trial in job.trials] == [moved, moved, "random"]
    job = job_of(storage, "--resume", "--name", "run", "--weights", "random", f"beats={moved}")
    assert [trial.weights for trial in job.trials] == [moved, moved]
    assert job_of(storage, "--resume", "--name", "run", "--weights", "auto").trials[0].weights == saved


@pytest.mark.parametrize("missing", ["weights", "model"])
def test_setting_that_a_plan_lacks_has_its_default(storage: Path, missing: str) -> None:
    run = RunDirectory(storage / "run")
    plan = run.read_plan()
    for trial in plan["trials"]:
        del trial[missing]
    plan["request"]["weights"]["ast"] = "random"  # the default backbone
    run.write_plan(plan)
    job = job_of(storage, "--resume", "--name", "run")
    refuse_other_content(job, job.left(), read_subset(storage / "sousa", "tiny"))


def _other_data(storage: Path) -> list[str]:
    labels = storage / "sousa" / "labels" / "samples.parquet"
    pd.read_parquet(labels).iloc[1:].to_parquet(labels)
    return ["--resume", "--name", "run", "--data-dir", str(storage / "sousa")]


def _other_weights(storage: Path) -> list[str]:
    other = written(storage / "beats.pt", official(perturbed(encoder_layers=2)))
    return ["--resume", "--name", "run", "--weights", f"beats={other}"]


def _other_device(storage: Path) -> list[str]:
    run = RunDirectory(storage / "run")
    plan = run.read_plan()
    device = "mps" if torch.cuda.is_available() else "cuda"
    run.write_plan({**plan, "request": {**plan["request"], "device": device}})
    return ["--resume", "--name", "run"]


def _words(*words: str) -> Callable[[Path], list[str]]:
    return lambda storage: list(words)


@pytest.mark.parametrize(
    ("prepare", "parts"),
    [
        (_other_data, ["the data in", "fingerprint"]),
        (_other_weights, ["the weights of beats", "fingerprint"]),
        (_other_device, ["mps" if torch.cuda.is_available() else "cuda"]),
        (_words("--resume", "--name", "run", "--weights", "random"), ["--weights random (was pretrained)"]),
        (_words("--resume", "--name", "run", "--set", "threads=2"), ["--set threads 2 (was 1)"]),
        (_words("--resume", "--name", "run", "--epochs", "10"), ["--epochs 10 (was 9)"]),
        (_words("--resume", "--name", "run", "--seeds", "0"), ["--seeds 0 (was 0 1)"]),
        (_words("--resume", "--name", "run", "--augment", "on"), ["--augment on (was off)"]),
        (_words("--resume", "--name", "run", "--hold-out", "soundfont=A"), ["--hold-out soundfont=A (was none)"]),
        (_words("--extend", "--name", "run", "--epochs", "10"), ["--extend", "--epochs 10 (was 9)"]),
        (_words("--extend", "--name", "run", "--seeds", "0", "1"), ["--extend adds nothing"]),
        (_words("--promote", "run", "--name", "best"), ["--promote", "--resume --name run"]),
        (_words("--promote", "nothing"), ["--promote nothing", "is not a run directory"]),
    ],
)
def test_refusal_is_one_line_and_changes_no_file(
    prepare: Callable[[Path], list[str]],
    parts: list[str],
    storage: Path,
    capsys: pytest.CaptureFixture[str],
    ray_starts: list[str],
) -> None:
    words = prepare(storage)
    before = contents(storage)
    assert launch.main([*words, "--storage", str(storage), "--no-timing"]) == EXIT_INPUT
    assert contents(storage) == before
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("launch.py: error: ")
    assert all(part in line for part in parts)


def test_tracker_of_the_run_is_kept_unless_given(storage: Path) -> None:
    run = RunDirectory(storage / "run")
    run.write_plan(run.read_plan() | {"tracker": "wandb"})
    assert job_of(storage, "--resume", "--name", "run").tracker == "wandb"
    assert job_of(storage, "--resume", "--name", "run", "--tracker", "none").tracker == "none"


def contents(storage: Path) -> dict[Path, tuple[int, bytes]]:
    files = (path for path in storage.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_plan_of_a_finished_run_changes_no_file(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(storage / "run")
    run.write_plan({**run.read_plan(), "baselines": False})
    end(run, "completed")
    run.trial(WAITING).mkdir()
    TrialRecord(WAITING, {}, "completed").write(run.trial(WAITING))
    before = contents(storage)
    words = ["--resume", "--name", "run", "--storage", str(storage), "--plan", "--baselines"]
    assert launch.main(words) == EXIT_OK
    assert contents(storage) == before
    nothing_left, baselines = capsys.readouterr().out.splitlines()
    assert "nothing is left" in nothing_left
    assert "baselines are not measured" in baselines


def test_second_of_two_concurrent_extensions_is_refused(storage: Path) -> None:
    job = job_of(storage, "--extend", "--name", "run", "--seeds", "2")
    plan = {**job.directory.read_plan(), "extensions": [{"added": ["of-another-launch"]}]}
    job.directory.write_plan(plan)
    with pytest.raises(UserError, match="another launch"):
        run_job(None, job, None, Resources(1, 0, None), 1, print)
    assert job.directory.read_plan() == plan


def ends_with_its_trials(runtime: Runtime, function: object, run: RunDirectory, *rest: object, check: object) -> bool:
    """Rename the run, and return as Ray does when the trials notice it before the driver."""
    run.path.rename(run.path.with_name("moved"))
    (run.tune / "001").mkdir(parents=True)  # as Ray does at its next snapshot
    return True


@pytest.mark.parametrize("moment", ["before the trials", "while the trials run"])
def test_run_that_is_renamed_at_any_moment_is_named_and_not_created_again(
    moment: str, storage: Path, small_sousa: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(storage, "--resume", "--name", "run", "--no-baselines")
    monkeypatch.setattr(Runtime, "call", ends_with_its_trials)

    def rename(line: str) -> None:
        if moment == "before the trials":
            job.directory.path.rename(storage / "moved")

    with pytest.raises(MovedRunError, match="was renamed or removed"):
        run_job(Runtime(False, "cpu"), job, read_subset(small_sousa, "tiny"), Resources(1, 0, None), 1, announce=rename)
    assert not job.directory.path.exists()
    assert RunDirectory(storage / "moved").read_plan()["trial_ids"] == [CUT, WAITING]


def test_stop_while_a_resumed_run_is_planned_names_the_resume_command(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ray_starts: list[str]
) -> None:
    monkeypatch.setattr("sousaphone.planning.plan.prepare", lambda *others: signal.raise_signal(signal.SIGTERM))
    assert launch.main(["--resume", "--name", "run", "--storage", str(storage)]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err.strip().endswith(f"to resume: {RunDirectory(storage / 'run').resume_command}")


def test_extend_without_additions_is_refused(begun: Path) -> None:
    with pytest.raises(UserError, match=r"--extend.*--models, --augment or --seeds"):
        job_of(begun, "--extend", "--name", "run")


def test_baselines_setting_of_the_run_is_kept_unless_given(begun: Path) -> None:
    assert job_of(begun, "--resume", "--name", "run").baselines
    run = RunDirectory(begun / "run")
    plan = run.read_plan()
    run.write_plan({**plan, "baselines": False})
    try:
        assert not job_of(begun, "--resume", "--name", "run").baselines
        assert job_of(begun, "--resume", "--name", "run", "--baselines").baselines
    finally:
        run.write_plan(plan)


def test_models_without_a_rate_in_the_file_are_named(small_sousa: Path, tmp_path: Path) -> None:
    settings = {"scale": "nano", "strategy": "lora", "lora_targets": "all-linear"}
    row = {"model": "beats", "learning_rate": 1e-3, "pretrained": False}
    content = {**settings, "dataset": "tiny", "epochs": 1, "found": {"beats": 1e-3}, "table": [row]}
    (tmp_path / "rates.json").write_text(json.dumps(content))
    options = ["--models", "beats", "ast", "--scale", "nano", "--weights", "random", "--data-dir", str(small_sousa)]
    job = job_of(tmp_path, *options, "--rates", str(tmp_path))
    (remark,) = (remark for remark in job.remarks if "--rates" in remark)
    assert "ast" in remark
    assert "untuned" in remark
