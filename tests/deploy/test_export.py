"""An exported folder holds the trial's model: for this package, for PEFT, and without any other file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from analysis.report import read_run
from sousaphone import base_model, load
from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.deploy import model_folder
from sousaphone.deploy.export import export
from sousaphone.deploy.loading import load_members, load_trial
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.trained_trials import best_arm, trained_trial
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import PREDICTIONS_NAME, predictions_name
from sousaphone.strategies import STRATEGIES
from tests.deploy.conftest import STATEMENT

# Of the backbones, these have linear layers, or 1 x 1 convolutions.
FAST = {("ast", strategy) for strategy in STRATEGIES} | {("efficientat", s) for s in ("lora", "dora", "ia3", "full")}
BACKBONES = [
    ("efficientat", {"lora_targets": "sweep"}),  # only new layers are trained
    ("efficientat", {"efficientat_hop": 320}),
    ("strokes", {"strategy": "full"}),
    *(
        pytest.param(name, {"strategy": strategy}, marks=[] if (name, strategy) in FAST else pytest.mark.slow)
        for strategy in STRATEGIES
        for name in DEFAULT_SWEEP
    ),
]


def waves(seconds: float, rate: int) -> torch.Tensor:
    return torch.rand(2, round(seconds * rate), generator=torch.Generator().manual_seed(0)) - 0.5


def logits(network: torch.nn.Module, wave: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(wave)


@pytest.mark.parametrize(
    ("name", "changes"),
    BACKBONES,
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_folder_computes_the_logits_of_the_trial(
    every_backbone: Callable[..., RunDirectory], tmp_path: Path, name: str, changes: dict
) -> None:
    (trial,) = best_arm(every_backbone(name, **changes))
    adapters = STRATEGIES[trial.config.strategy].peft_type is not None and changes.get("lora_targets") != "sweep"
    for merged in [False, True] if adapters else [False]:
        folder = tmp_path / str(merged)
        config = export([trial], folder, STATEMENT, merged=merged)
        assert config.kind == ("adapter" if adapters and not merged else "merged")
        _, (loaded,) = load_members(folder)
        wave = waves(config.clip_seconds, config.sample_rate)
        expected = logits(load_trial(trial).network, wave)
        assert torch.allclose(logits(loaded.network, wave), expected, atol=1e-5)
        if config.kind == "adapter":
            peft = PeftModel.from_pretrained(base_model(folder), str(folder))
            assert torch.allclose(logits(peft, wave), expected, atol=1e-5)
            # The names are those that PEFT itself stores.
            stored = load_file(folder / model_folder.ADAPTER)
            assert stored.keys() == get_peft_model_state_dict(peft, save_embedding_layers=False).keys()
            # The base alone is another model.
            assert not torch.allclose(logits(base_model(folder), wave), expected, atol=1e-3)


def test_best_trial_is_that_of_the_report(run: RunDirectory) -> None:
    arm = read_run(run.path).best[0]
    mine = best_arm(run)
    assert {trial.record.trial_id for trial in mine} == {trial.trial_id for trial in arm.shown}
    scores = [trial.record.best["val_macro_f1"] for trial in mine]
    assert scores == sorted(scores, reverse=True)


def test_merged_folder_needs_no_base_weights(merged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(merged, copy)
    config = json.loads((copy / "config.json").read_text())
    config["base_weights"] |= {"source": "/nowhere/weights.pt", "fingerprint": "0" * 64}
    (copy / "config.json").write_text(json.dumps(config))
    assert np.allclose(load(copy)(waves(1.0, 16_000), 16_000), load(merged)(waves(1.0, 16_000), 16_000))
    with pytest.raises(UserError, match="--merged"):
        base_model(copy)


def test_ensemble_averages_the_probabilities_of_its_seeds(run: RunDirectory, tmp_path: Path) -> None:
    arm = best_arm(run)
    config = export(arm, tmp_path / "both", STATEMENT)
    assert config.members == tuple(f"seed-{trial.config.seed}" for trial in arm)
    wave = waves(2.3, 22_050)
    each = [load(tmp_path / "both" / name)(wave, 22_050) for name in config.members]
    assert not np.allclose(*each, atol=1e-4)
    assert np.allclose(load(tmp_path / "both")(wave, 22_050), np.mean(each, axis=0), atol=1e-7)


def test_card_has_a_header_and_shows_the_banner(model: Path) -> None:
    card = (model / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "audio-classification"
    assert header["library_name"] == "peft"
    assert STATEMENT.banner in card
    assert STATEMENT.headline not in card  # a run with a banner has no verdict
    results = json.loads((model / "results.json").read_text())
    assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(
        (results.get("test_averaged") or results["test_centre_window"])["accuracy"], abs=1e-4
    )


def test_card_of_a_run_with_a_verdict_shows_it(run: RunDirectory, tmp_path: Path) -> None:
    export(best_arm(run)[:1], tmp_path / "model", dataclasses.replace(STATEMENT, banner=None))
    card = (tmp_path / "model" / "README.md").read_text()
    assert STATEMENT.headline in card
    assert STATEMENT.details[0] in card


@pytest.mark.parametrize("above", [True, False])
def test_card_states_that_a_model_is_below_the_best_baseline(run: RunDirectory, tmp_path: Path, above: bool) -> None:
    best = best_arm(run)[:1]
    baseline = best[0].record.test["test_acc"] + (0.125 if above else -0.125)
    export(best, tmp_path / "model", dataclasses.replace(STATEMENT, baseline=("nearest neighbour", baseline)))
    card = (tmp_path / "model" / "README.md").read_text()
    assert ("Below the baseline nearest neighbour" in card) is above
    assert (f"{baseline:.1%}" in card) is above


def test_results_are_those_of_the_record(run: RunDirectory, model: Path) -> None:
    record = best_arm(run)[0].record
    results = json.loads((model / "results.json").read_text())
    assert results["trials"][0]["test"] == record.test
    assert results["test_centre_window"]["accuracy"] == record.test["test_acc"]
    assert results["test_centre_window"]["macro_f1"] == pytest.approx(record.test["test_macro_f1"])


def test_config_describes_the_model(run: RunDirectory, model: Path) -> None:
    trial = best_arm(run)[0]
    config = ModelConfig.read(model)
    assert config.sample_rate == 16_000
    assert config.clip_seconds == trial.config.clip_seconds
    assert config.base_weights["fingerprint"] == trial.record.weights["fingerprint"]
    assert config.trained["trial"] == trial.record.trial_id
    assert config.software["torch"] == trial.record.provenance["versions"]["torch"]
    measured = trial.record.history[-1].get("averaged_temperature")
    assert config.calibration.averaged_temperature == measured
    assert (config.calibration.thresholds is None) == (trial.validation is None)


def test_existing_directory_is_kept_unless_it_is_a_model(run: RunDirectory, model: Path, tmp_path: Path) -> None:
    trials = best_arm(run)[:1]
    other, copy = tmp_path / "other", tmp_path / "copy"
    other.mkdir()
    (other / "diary.txt").write_text("kept")
    shutil.copytree(model, copy)
    (copy / "note.txt").write_text("the user's")
    places = [(other, False), (other, True), (copy, False), (copy, True), (other / "diary.txt", True)]
    for folder, overwrite in (*places, (run.path / "model", False)):
        with pytest.raises(UserError):
            export(trials, folder, STATEMENT, overwrite=overwrite)
    assert (other / "diary.txt").read_text() == "kept"
    assert not (run.path / "model").exists()
    (copy / "note.txt").unlink()
    (copy / "model.safetensors").touch()  # of a model of another kind
    (tmp_path / "link").symlink_to(copy)
    export(trials, tmp_path / "link", STATEMENT, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert not (copy / "model.safetensors").exists()
    assert load(copy).classes
    assert {path.name for path in tmp_path.iterdir()} == {"other", "copy", "link"}


def test_failed_export_leaves_nothing(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    before = (tmp_path / "model" / "config.json").read_bytes()

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sousaphone.deploy.export.tensor_files.write", full)
    for name in ("model", "new"):
        with pytest.raises(UserError, match="No space left"):
            export(best_arm(run)[:1], tmp_path / name, STATEMENT, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "config.json").read_bytes() == before


def test_unknown_and_untrained_trials_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trial 'other'"):
        trained_trial(run, "other")
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    for path in copy.path.glob("trials/*/adapter.*"):
        path.unlink()
    with pytest.raises(UserError, match="resume"):
        best_arm(copy)
    with pytest.raises(UserError, match="resume"):
        trained_trial(copy, best_arm(run)[0].record.trial_id)


def test_files_of_a_folder_are_readable_by_others(model: Path) -> None:
    assert all(path.stat().st_mode & 0o044 for path in model.iterdir())
    assert {path.name for path in model.iterdir()} == {
        *(
            model_folder.CONFIG,
            model_folder.ADAPTER_CONFIG,
            model_folder.ADAPTER,
            model_folder.CARD,
            model_folder.RESULTS,
        )
    }


def test_damaged_trained_tensors_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    trial = best_arm(copy)[0]
    for path in trial.directory.glob("adapter.*"):
        path.write_bytes(b"no tensors")
        with pytest.raises(UserError, match=path.name):
            load(copy.path)
    assert copy.read_plan()


def test_temperatures_and_thresholds_of_the_run_are_exported(run: RunDirectory, tmp_path: Path) -> None:
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    trial = best_arm(copy)[0]
    record, stored = trial.record, pd.read_parquet(trial.directory / PREDICTIONS_NAME)
    record.history[-1] |= {"temperature": 0.5, "averaged_temperature": 0.7}
    record.write(trial.directory)
    averaged = {f"averaged_logit_{slug}": stored[f"logit_{slug}"] for slug in SLUGS}
    stored.assign(**averaged).to_parquet(trial.directory / predictions_name("val"))
    export(best_arm(copy)[:1], tmp_path / "model", STATEMENT)
    found = ModelConfig.read(tmp_path / "model").calibration
    assert (found.temperature, found.averaged_temperature) == (0.5, 0.7)
    assert found.thresholds is not None
    assert {each.clips for each in found.thresholds} == {len(stored)}
    assert found.undecided_below in {each.confidence for each in found.thresholds}
    wave = waves(1.0, 16_000)
    cold, warm = load(tmp_path / "model")(wave, 16_000), load(run.path)(wave, 16_000)
    before = best_arm(run)[0].record.history[-1].get("averaged_temperature") or 1.0
    assert np.allclose(np.diff(np.log(cold)) * 0.7, np.diff(np.log(warm)) * before, atol=1e-4)
    table = (tmp_path / "model" / "README.md").read_text()
    assert f"{found.thresholds[0].coverage:.1%}" in table
