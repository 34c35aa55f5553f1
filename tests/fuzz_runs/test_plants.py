"""Code, links, pipes, devices and huge files in the place of each file of a real run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sousaphone.runs.seal import pickles, seal
from tests.fuzz_runs.attack import Attack
from tests.fuzz_runs.plants import PLANTS
from tests.fuzz_runs.runs import json_files

pytestmark = pytest.mark.slow


def test_plants_are_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one test, because worker processes would each make the run."""
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    attack = Attack(tmp_path)
    attack.read("nothing is changed", figures=True)
    assert attack.faults == []
    check_every_place(attack)
    check_code_in_all_pickles(attack)
    check_plants_can_be_found(attack)


def check_every_place(attack: Attack) -> None:
    """Code in each JSON file and in all other files at once, and of the other kinds one in each place;
    `python -m tests.fuzz_runs --plants` tries all in each place."""
    assert len(attack.places()) > 35
    for path in json_files(attack.intact):
        assert attack.plant("code", path.relative_to(attack.intact.path))
    attack.plant_all_code()
    attack.read("code in every place", figures=True)
    kinds = itertools.cycle(kind for kind in PLANTS if kind != "code")
    for kind, place in zip(kinds, attack.places(added=False), strict=False):
        assert attack.plant(kind, place) or kind == "device"
    assert attack.faults == []


def check_code_in_all_pickles(attack: Attack) -> None:
    """A resume does not execute it."""
    attack.plant_all_code()
    attack.launch("code in every place")
    assert attack.faults == []
    records = [attack.run.record(trial_id) for trial_id in attack.run.read_plan()["trial_ids"]]
    assert [record.status for record in records if record] == ["completed", "completed"]


def check_plants_can_be_found(attack: Attack) -> None:
    """Under a seal, code is executed, and that is seen."""
    attack.plant("code", Path("tune/001/tuner.pkl"))
    experiment = attack.run.tune / "001"
    for path in experiment.glob("experiment_state-*"):
        path.unlink()
    attack.write_code(Path("tune/001/experiment_state-2026-01-01_00-00-00.json"))
    seal(experiment, pickles(experiment))
    attack.read("under a seal")
    assert "code was executed" in attack.faults
