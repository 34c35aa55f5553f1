"""A search for learning rates looks at validation alone, and what it finds is used where it was found."""

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


def test_trials_of_a_search_have_names_of_their_own() -> None:
    assert trial(5e-3, 1.0).trial_id == "ast-lora-aug-off-lr0.005-s0"
    assert TrainConfig(augment=False).trial_id == "ast-lora-aug-off-s0"


def test_the_lowest_validation_loss_wins_and_the_whole_table_is_kept(tmp_path: Path) -> None:
    lines = search(tmp_path)
    assert lines[0].startswith("ast: learning rate 0.0015, val_loss 3.100")
    content = json.loads((tmp_path / "rates.json").read_text())
    assert content["found"] == {"ast": 1.5e-3}
    assert [row["learning_rate"] for row in content["table"]] == [5e-4, 1.5e-3, 5e-3]
    assert not any("test" in key for row in content["table"] for key in row)
    rates, told = learning_rates.read(str(tmp_path), **NANO, weights={"ast": "random", "beats": "random"})
    assert rates == {"ast": 1.5e-3}
    assert told.startswith("searched on tiny, ")
    assert "edge" not in told


def test_a_rate_is_judged_by_its_last_epoch_and_not_by_its_best(tmp_path: Path) -> None:
    turned = trial(2e-3, 2.0)
    turned.history.append({**turned.history[0], "epoch": 2, "val_loss": 3.9})
    search(tmp_path, turned)
    assert json.loads((tmp_path / "rates.json").read_text())["found"] == {"ast": 1.5e-3}


def test_a_rate_at_the_edge_is_said_to_be(tmp_path: Path) -> None:
    assert "edge of the grid" in search(tmp_path, trial(1.5e-2, 2.9))[0]
    _, told = learning_rates.read(str(tmp_path), **NANO, weights={"ast": "random"})
    assert told.endswith("; at the edge of the rates tried: ast")


def test_a_rate_that_diverges_is_out_and_one_that_has_not_ended_leaves_the_question_open(tmp_path: Path) -> None:
    search(tmp_path, trial(1.5e-2, 9.9, "diverged"))
    assert json.loads((tmp_path / "rates.json").read_text())["found"] == {"ast": 1.5e-3}
    search(tmp_path, trial(1.5e-2, 9.9, "interrupted"))
    assert json.loads((tmp_path / "rates.json").read_text())["found"] == {}
    never_begun = TrainConfig(learning_rate=1.5e-2, augment=False, score_test=False)
    assert search(tmp_path, waiting=[never_begun])[0] == "ast: not every rate came to its end (0.015 pending)"
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
def test_rates_are_refused_where_they_say_nothing(
    tmp_path: Path, changed: dict[str, str], weights: str, words: str
) -> None:
    search(tmp_path)
    with pytest.raises(UserError, match=words):
        learning_rates.read(str(tmp_path / "rates.json"), **{**NANO, **changed}, weights={"ast": weights})


@pytest.mark.parametrize("content", [None, "[]", "{", '{"found": {"ast": "much"}}'])
def test_what_is_no_rates_file_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "rates.json").write_text(content)
    why = "No such file or directory" if content is None else "not in the form"
    with pytest.raises(UserError, match=rf"{tmp_path / 'rates.json'} cannot be read \(.*{why}"):
        learning_rates.read(str(tmp_path), **NANO, weights={})
