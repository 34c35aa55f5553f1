"""A learning-rate search uses validation only, and its rates are used only under the same conditions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.runs import learning_rates
from sousaphone.runs.trial_record import TrialRecord

LOSSES = {5e-4: 3.5, 1.5e-3: 3.1, 5e-3: 3.3}
NANO = {"scale": "nano", "strategy": "lora", "lora_targets": "all-linear"}


def trial(rate: float, loss: float, status: str = "completed", model: str = "ast") -> TrialRecord:
    config = TrainConfig(model=model, learning_rate=rate, augment=False, score_test=False)
    row = {"epoch": 1, "best_epoch": 1, "val_loss": loss, "val_acc": 0.1, "val_macro_f1": 0.1}
    return TrialRecord(config.trial_id, dataclasses.asdict(config), status, history=[row])


def search(directory: Path, *more: TrialRecord, waiting: Sequence[TrainConfig] = ()) -> list[str]:
    records = {record.trial_id: record for record in (*(trial(*found) for found in LOSSES.items()), *more)}
    planned = [*(TrainConfig(**record.config) for record in records.values()), *waiting]
    return list(learning_rates.write(directory, planned, records))


def test_trials_of_a_search_have_their_own_names() -> None:
    assert trial(5e-3, 1.0).trial_id == "ast-lora-aug-off-lr0.005-s0"
    assert TrainConfig(augment=False).trial_id == "ast-lora-aug-off-s0"


def test_lowest_validation_loss_wins_and_the_table_is_kept(tmp_path: Path) -> None:
    lines = search(tmp_path)
    assert lines[0].startswith("ast: ")
    assert "0.0015" in lines[0]
    assert "3.100" in lines[0]
    content = json.loads((tmp_path / "rates.json").read_text())
    assert content["found"] == {"ast": 1.5e-3}
    assert [row["learning_rate"] for row in content["table"]] == [5e-4, 1.5e-3, 5e-3]
    assert not any("test" in key for row in content["table"] for key in row)
    found = learning_rates.read("--rates", str(tmp_path), ["ast", "beats"])
    found.check("--rates", **NANO, weights={"ast": "random", "beats": "random"})
    assert found.settings == {"ast": {"learning_rate": 1.5e-3}}
    assert "tiny" in found.description
    assert "edge" not in found.description


def test_last_epoch_counts_rather_than_the_best(tmp_path: Path) -> None:
    turned = trial(2e-3, 2.0)
    turned.history.append({**turned.history[0], "epoch": 2, "val_loss": 3.9})
    search(tmp_path, turned)
    assert json.loads((tmp_path / "rates.json").read_text())["found"] == {"ast": 1.5e-3}


def test_rate_at_the_edge_of_the_grid_is_reported(tmp_path: Path) -> None:
    assert "edge" in search(tmp_path, trial(1.5e-2, 2.9))[0]
    assert learning_rates.read("--rates", str(tmp_path), ["ast"]).description.endswith("edge of the rates tried: ast")


def test_diverged_rate_is_excluded_and_an_unfinished_trial_prevents_a_result(tmp_path: Path) -> None:
    search(tmp_path, trial(1.5e-2, 9.9, "diverged"))
    assert json.loads((tmp_path / "rates.json").read_text())["found"] == {"ast": 1.5e-3}
    search(tmp_path, trial(1.5e-2, 9.9, "interrupted"))
    assert json.loads((tmp_path / "rates.json").read_text())["found"] == {}
    never_begun = TrainConfig(learning_rate=1.5e-2, augment=False, score_test=False)
    assert "0.015 pending" in search(tmp_path, waiting=[never_begun])[0]
    assert json.loads((tmp_path / "rates.json").read_text())["found"] == {}


@pytest.mark.parametrize(
    ("changed", "weights", "words"),
    [
        ({"scale": "base"}, "random", "scale nano, not base"),
        ({"strategy": "full"}, "random", "strategy lora, not full"),
        ({"lora_targets": "sweep"}, "random", "lora targets all-linear, not sweep"),
        ({}, "/weights/ast", "ast with random weights"),
    ],
)
def test_rates_of_other_conditions_are_refused(
    tmp_path: Path, changed: dict[str, str], weights: str, words: str
) -> None:
    search(tmp_path)
    found = learning_rates.read("--rates", str(tmp_path / "rates.json"), ["ast"])
    with pytest.raises(UserError, match=words):
        found.check("--rates", **{**NANO, **changed}, weights={"ast": weights})


@pytest.mark.parametrize("content", [None, "[]", "{", '{"found": {"ast": "much"}}'])
def test_missing_or_damaged_rates_file_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "rates.json").write_text(content)
    reason = "No such file or directory" if content is None else "not a rates file"
    with pytest.raises(UserError, match=rf"{tmp_path / 'rates.json'}.*{reason}"):
        learning_rates.read("--rates", str(tmp_path), [])
