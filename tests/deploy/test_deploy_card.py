"""Deploy cards are measured, and shown in the report and the model card."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from analysis.report import read_run
from sousaphone.cli.main import main
from sousaphone.deploy.export import export
from sousaphone.deploy.trained_trials import TrainedTrial, best_arm, finished_arms
from sousaphone.runs import schema
from sousaphone.runs.deployment import DEPLOYMENT_NAME, TITLES, DeployCard, Deployment
from sousaphone.runs.directory import RunDirectory
from tests.deploy.conftest import STATEMENT


@pytest.fixture(scope="module")
def measured(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A copy of the run after `sousaphone benchmark`. Read-only."""
    copy = RunDirectory(Path(shutil.copytree(run.path, tmp_path_factory.mktemp("runs") / "measured")))
    assert main(["benchmark", str(copy.path)]) == 0
    return copy


@pytest.mark.slow
def test_every_arm_is_measured_in_every_runtime(measured: RunDirectory) -> None:
    cards = Deployment.read(measured.path).cards
    best = [trials[0].record for trials in finished_arms(measured)]
    assert [card.trial for card in cards] == [record.trial_id for record in best]
    for card, record in zip(cards, best, strict=True):
        assert [cost.runtime for cost in card.costs] == list(TITLES)
        torch, onnx, int8 = card.costs
        assert torch.accuracy == record.test["test_acc"]
        assert onnx.accuracy == pytest.approx(torch.accuracy)
        assert int8.accuracy is not None
        assert {cost.clips for cost in card.costs} == {record.data["clips"]["test"]}
        assert int8.disk_bytes < onnx.disk_bytes
        assert onnx.memory_bytes < torch.memory_bytes  # without torch
        for cost in card.costs:
            assert cost.latencies[0].threads == 1
            assert all(0 < each.median <= each.p95 and each.repeats >= 10 for each in cost.latencies)
    report = (measured.report / "summary_report.md").read_text()
    assert all(report.count(f" {title} |") >= len(cards) for title in TITLES.values())


@pytest.mark.slow
def test_model_card_shows_the_costs_and_a_busy_machine(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 83.0)
    export(best_arm(run)[:1], tmp_path / "model", STATEMENT, measured=True)
    (cost,) = json.loads((tmp_path / "model" / "results.json").read_text())["deployment"]["costs"]
    assert cost["runtime"] == "torch"
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{cost['latencies'][0]['median']:,.1f} (" in card
    assert "83 %" in card


CARD = {
    "trial": "x",
    "clip_seconds": 2.5,
    "cpu": "x",
    "costs": [
        {
            **{"runtime": "torch", "accuracy": 0.5, "clips": 9, "load_seconds": 1.0},
            **{"latencies": [{"threads": 1, "median": 1.0, "p95": 1.0, "repeats": 10}]},
            **{"disk_bytes": 1, "memory_bytes": 1},
        }
    ],
}


@pytest.mark.parametrize(
    ("version", "changes", "damaged"),
    [
        (1, {}, False),
        (1, {"costs": []}, True),
        (1, {"costs": CARD["costs"] * 2}, True),
        (1, {"costs": [CARD["costs"][0] | {"runtime": "int8"}]}, True),  # no card has int8 weights alone
        (1, {"clip_seconds": 0.0}, True),
        ("\x1b[2J\n", {}, True),
    ],
)
def test_damaged_cards_are_left_out_of_the_report(
    run: RunDirectory, tmp_path: Path, version: object, changes: dict[str, object], damaged: bool
) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "run"))
    trial = best_arm(run)[0].record.trial_id
    content = {"schema": version, "cards": [{**CARD, "trial": trial, **changes}]}
    (copy / DEPLOYMENT_NAME).write_text(json.dumps(content))
    found = read_run(copy)
    assert len(found.deployment.cards) == (not damaged)
    assert any("benchmark" in note for note in found.notes) == damaged
    assert found.verdict.deployed.keys() == (set() if damaged else {trial})
    assert all(note.isprintable() for note in found.notes)


def test_one_model_at_a_time_is_on_the_disk_and_a_run_that_cannot_be_written_loses_nothing(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(trial: TrainedTrial, directory: Path) -> DeployCard:
        assert [*(tmp_path / "temporary").iterdir()] == [directory.parent]
        directory.mkdir()
        card: DeployCard = schema.parse(json.dumps({**CARD, "trial": trial.record.trial_id}), DeployCard, "card")
        return card

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), DEPLOYMENT_NAME)

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("sousaphone.deploy.export.measure_trial", measure)
    monkeypatch.setattr(Deployment, "write", refuse)
    assert main(["benchmark", str(run.path)]) == 2
    printed = capsys.readouterr()
    assert all(trials[0].record.trial_id in printed.out for trials in finished_arms(run))
    assert DEPLOYMENT_NAME in printed.err


@pytest.mark.parametrize("arguments", [["benchmark", "nowhere"], ["export", "{run}", "--onnx", "--to", "{run}"]])
def test_wrong_input_exits_with_2(run: RunDirectory, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([argument.format(run=run.path) for argument in arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
