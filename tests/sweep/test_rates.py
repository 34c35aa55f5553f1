"""`--config rates` from the command line to rates.json, and back in with `--from`."""

from __future__ import annotations

import json

import pytest

from tests.sweep.conftest import Launcher

pytestmark = pytest.mark.slow


def test_search_scores_no_test_clip_and_its_rates_can_be_used(launcher: Launcher) -> None:
    options = [option for option in launcher.options if option != "learning_rate=0.001"]
    options[options.index("--epochs") + 1] = "1"
    launcher.skipped.remove("baselines")
    driver = launcher.start("--config", "rates", *options)
    assert driver.wait() == 0, launcher.log
    run = launcher.storage / "run"
    trials = sorted((run / "trials").iterdir())
    assert [path.name for path in trials] == [
        f"ast-lora-aug-off-lr{rate}-s0" for rate in (0.0005, 0.0015, 0.005, 0.015)
    ]
    for path in trials:
        record = json.loads((path / "trial.json").read_text())
        assert record["status"] == "completed"
        assert not any(key.startswith("test") for row in record["history"] for key in row)
        assert not (path / "predictions.parquet").exists()
    assert not (run / "baselines.json").exists()  # baselines would be scored on test clips
    found = json.loads((run / "rates.json").read_text())["found"]["ast"]

    assert not (run / "report").exists()
    plan = launcher.start(*options, "--from", str(run), "--augment", "off", "--plan", name="tuned")
    assert plan.wait() == 0, launcher.log
    assert f"ast-lora-aug-off-s0          learning rate {found:g}, weights random" in launcher.log
