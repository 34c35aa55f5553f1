"""Options that have no effect in a combination are refused in one line; combinations in which they have one are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import launch
from sousaphone.cli.command import EXIT_INPUT, EXIT_OK
from tests.planning.test_job import RANKS

AST, STROKES = ["--models", "ast"], ["--models", "strokes"]
RANDOM = ["--weights", "random"]
SEARCH, RATES = ["--config", "search"], ["--config", "rates"]
DEAF = ["--config", "deaf.py"]  # a sweep that ignores the request
PROPOSED = ["--config", "proposed.py", *AST, "--augment", "off"]  # a sweep with a searcher
FILES = {
    "deaf.py": """
def sweep(request):
    usual = backbones.sweep(request)
    own = {"model": "ast", "augment": False, "seed": 7, "epochs": 2, "lora_r": 2}
    return dataclasses.replace(usual, param_space={**usual.param_space, **own})
""",
    "proposed.py": """from ray.tune.search.optuna import OptunaSearch

def sweep(request):
    usual = backbones.sweep(request)
    space = {**usual.param_space, "lora_r": tune.choice([2, 4]), "strategy": tune.choice(["head", "lora"])}
    return dataclasses.replace(usual, param_space=space, num_samples=3, searcher=OptunaSearch())
""",
    "ranks.py": RANKS,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with files of sweeps and of learning rates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOUSA_DATASET_PATH", raising=False)
    for name, content in FILES.items():
        (tmp_path / name).write_text(
            f"import dataclasses\nfrom ray import tune\nfrom tune_configs import backbones\n{content}"
        )
    row = {"model": "beats", "learning_rate": 1e-3, "pretrained": False}
    found = {"found": {"beats": 1e-3}, "table": [row], "dataset": "tiny", "epochs": 1}
    settings = {"scale": "nano", "strategy": "lora", "lora_targets": "all-linear"}
    (tmp_path / "rates.json").write_text(json.dumps({**settings, **found}))
    return tmp_path


def code_of(words: Sequence[str], data: Path) -> int:
    always = ["--scale", "nano", "--plan", "--no-timing", "--data-dir", str(data), "--storage", "runs"]
    return launch.main([*words, *always])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--strategy", "head", "--set", "lora_r=4"], "--set lora_r=4"),
        (["--strategy", "full", "--lora-targets", "attention"], "--lora-targets attention"),
        (["--strategy", "ia3", "--set", "lora_dropout=0"], "--set lora_dropout=0"),
        ([*STROKES, "--set", "lora_r=4"], "--set lora_r=4"),
        ([*STROKES, "--strategy", "lora"], "--strategy lora"),
        (["--augment", "off", "--set", "gain_db=3"], "--set gain_db=3"),
        ([*SEARCH, "--set", "mixup_alpha=0.1"], "--set mixup_alpha=0.1"),
        ([*AST, "--set", "efficientat_hop=160"], "--set efficientat_hop=160"),
        ([*RANDOM, "--set", "frontend_mismatch=beats"], "--set frontend_mismatch=beats"),
        ([*AST, "--set", "frontend_mismatch=beats"], "--set frontend_mismatch=beats"),
        ([*RATES, "--test-also", "."], "--test-also ."),
        ([*RATES, "--baselines"], "--baselines"),
        ([*RATES, "--set", "learning_rate=0.1"], "--set learning_rate"),
        ([*RATES, "--models", "beats", *RANDOM, "--rates", "."], "--rates"),
        ([*AST, *RANDOM, "--rates", "."], "--rates"),
        ([*AST, *RANDOM, "--from", "rates.json"], "--from"),
        (["--models", "beats", *RANDOM, "--rates", ".", "--set", "learning_rate=0.1"], "--rates"),
        ([*DEAF, "--models", "ast", "beats"], "model=beats"),
        ([*DEAF, "--augment", "both"], "--augment both"),
        ([*DEAF, "--seeds", "7", "8"], "seed=8"),
        ([*DEAF, "--epochs", "3"], "--epochs 3"),
        ([*DEAF, "--set", "lora_r=4"], "--set lora_r=4"),
        (["--weights", "ast=a", "ast=b"], "--weights ast=a ast=b"),
        (["--weights", "random", "--weights", "auto"], "--weights random auto"),
        (["--gpus-per-trial", "0.5", "--device", "cpu"], "leave it out"),
        (["--retry-failed", "--extend"], "leave --retry-failed out"),
    ],
)
def test_option_without_effect_is_refused(
    words: list[str],
    part: str,
    here: Path,
    small_sousa: Path,
    capsys: pytest.CaptureFixture[str],
    ray_starts: list[str],
) -> None:
    assert code_of(words, small_sousa) == EXIT_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--models", "strokes", "ast", "--strategy", "lora", "--lora-targets", "qv", "--set", "lora_r=4", "gain_db=3"],
        [*AST, "--augment", "both", "--set", "gain_db=3", "precision=auto"],
        ["--models", "ast", "efficientat", "--set", "efficientat_hop=160"],
        ["--models", "ast", "efficientat", "--set", "frontend_mismatch=htsat,efficientat"],  # its weights are shipped
        [*SEARCH, *AST, "--augment", "on", "--set", "mixup_alpha=0.1", "--seeds", "0", "1", "--test-also", "."],
        [*SEARCH, *AST, "--baselines", "--set", "lora_r=4"],
        [*RATES, *AST, "--no-baselines", "--seeds", "0"],
        ["--models", "ast", "beats", *RANDOM, "--rates", "."],
        [*DEAF, *AST, "--augment", "off", "--seeds", "7", "--epochs", "2", "--set", "lora_r=2"],
        ["--config", "ranks.py", *AST, "--set", "lora_r=4"],
        [*PROPOSED, "--set", "lora_alpha=4", "lora_r=9", "--lora-targets", "qv", "--seeds", "3"],
        ["--models", "ast", "--models", "beats", "--seeds", "0", "--seeds", "1"],
    ],
)
def test_option_with_an_effect_on_some_trials_is_accepted(
    words: list[str], here: Path, small_sousa: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_run", lambda *_: EXIT_OK)  # the plan
    if "--test-also" in words:
        words = [str(small_sousa) if word == "." else word for word in words]
    assert code_of(words, small_sousa) == EXIT_OK


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--resume", "--set", "gain_db=6"], "--set gain_db=6"),  # the run is without augmentation
        (["--extend", "--seeds", "2", "--weights", "random"], "--weights random"),
        (["--extend", "--seeds", "2", "--weights", "auto"], ""),
        (["--extend", "--models", "ast", "--seeds", "0", "--weights", "random"], ""),
        (["--resume", "--set", "clip_seconds=1", "--epochs", "9", "--seeds", "0", "1"], ""),
    ],
)
def test_options_of_an_existing_run(
    words: list[str], part: str, storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_run", lambda *_: EXIT_OK)
    code = launch.main([*words, "--name", "run", "--storage", str(storage), "--plan"])
    assert (code, part in capsys.readouterr().err) == (EXIT_INPUT if part else EXIT_OK, True)


def test_timing_that_is_asked_for_is_not_limited_to_what_is_cheap(
    here: Path, small_sousa: Path, monkeypatch: pytest.MonkeyPatch, ray_starts: list[str]
) -> None:
    fractions = []

    def time_arms(trials: object, clips: object, cache: Path, budget: object, *others: object) -> None:
        fractions.append(budget.fraction)
        raise KeyboardInterrupt

    monkeypatch.setattr("sousaphone.planning.plan.time_arms", time_arms)
    for timing in ([], ["--timing"]):
        launch.main([*AST, *timing, "--data-dir", str(small_sousa), "--storage", "runs"])
    assert fractions[0] is not None
    assert fractions[1:] == [None]
