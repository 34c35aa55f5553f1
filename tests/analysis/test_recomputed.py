"""Every number of a real run's tables, recomputed from its Parquet and JSON files by code of its own."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from analysis.report import make_files, read_run
from sousaphone.baselines.measure import measure_baselines
from sousaphone.config import TrainConfig
from sousaphone.data.prepare import read_subset
from sousaphone.runs.directory import DriverWatch, Limits
from sousaphone.training.resumable_trial import run_trial
from tests.analysis.run_builders import write_run

# Columns that are not numbers, or a hash.
TEXTS = {"trial_id", "model", "strategy", "lora_targets", "augment", "dataset", "scale", "weights", "status", "partial"}
TEXTS |= {"precision"}
TEXTS |= {"signature", "data_hash", "weights_hash", "weights_sha256", "pretraining", "version", "git_commit", "reason"}
TEXTS |= {"error"}
PLAYERS = [f"player{i:03d}" for i in range(9)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_sousa: Callable[..., Path]) -> Path:
    """Three trials of real training and the baselines, with an additional test set; some clips have several windows."""
    root = tmp_path_factory.mktemp("run")
    splits = {"train_profile_ids": PLAYERS[:4], "val_profile_ids": PLAYERS[4:6], "test_profile_ids": PLAYERS[6:]}
    data = make_sousa(root / "data", players=PLAYERS, takes=2, splits=splits, long_clips=3)
    also = make_sousa(root / "also", players=3, long_clips=1)
    plan = [
        TrainConfig(
            **{"data_dir": str(data), "cache_dir": str(root / "cache"), "test_also": str(also), "weights": "random"},
            **{"epochs": 3, "micro_batch": 4, "clip_seconds": 0.5, "learning_rate": 3e-3, "model": "efficientat"},
            **{"augment": augment, "seed": seed},
        )
        for augment, seed in ((True, 0), (False, 0), (False, 1))
    ]
    directory = write_run(root / "results", [trial.__dict__ for trial in plan])
    with directory.held(Limits()):
        for trial in plan:
            run_trial(trial, directory.trial(trial.trial_id), DriverWatch.begin(directory.path), lambda metrics: None)
    measure_baselines(directory.path, plan, read_subset(data, "tiny"), lambda line: None)
    return directory.path


@pytest.fixture(scope="module")
def files(run: Path) -> dict[str, bytes]:
    return make_files(read_run(run), with_sounds=False)


def clips_of(path: Path, prefix: str) -> list[tuple[str, str, dict[str, float]]]:
    """The player, the true rudiment, and the logit of each rudiment, for each clip."""
    table = pd.read_parquet(path)
    names = [name for name in table if name.startswith(prefix)]
    return [
        (row["player"], row["rudiment"], {name.removeprefix(prefix): row[name] for name in names})
        for row in table.to_dict("records")
    ]


def probabilities(logits: dict[str, float], temperature: float = 1.0) -> dict[str, float]:
    highest = max(logits.values())
    weights = {name: math.exp((value - highest) / temperature) for name, value in logits.items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def loss(clips: list[Any], temperature: float = 1.0) -> float:
    return -sum(math.log(probabilities(logits, temperature)[true]) for _, true, logits in clips) / len(clips)


def f1(pairs: list[tuple[str, str]]) -> float:
    """Macro F1 of (true, predicted) over the true classes."""
    scores = []
    for name in {true for true, _ in pairs}:
        hits = sum(true == predicted == name for true, predicted in pairs)
        scores.append(2 * hits / (sum(t == name for t, _ in pairs) + sum(p == name for _, p in pairs)))
    return sum(scores) / len(scores)


def scores(clips: list[Any]) -> dict[str, float]:
    pairs = [(true, max(logits, key=logits.__getitem__)) for _, true, logits in clips]
    top = [sum(value > logits[true] for value in logits.values()) < 5 for _, true, logits in clips]
    return {
        "acc": sum(true == predicted for true, predicted in pairs) / len(pairs),
        "macro_f1": f1(pairs),
        "loss": loss(clips),
        "top5": sum(top) / len(top),
    }


def best_temperature(clips: list[Any]) -> float:
    """By a search over a grid that becomes finer; log T has a normal prior with a standard deviation of log 2."""

    def cost(log: float) -> float:
        return len(clips) * loss(clips, math.exp(log)) + (log / math.log(2)) ** 2 / 2

    low, high = math.log(0.05), math.log(20.0)
    for _ in range(6):
        grid = [low + (high - low) * i / 20 for i in range(21)]
        found = min(grid, key=cost)
        low, high = max(low, found - (high - low) / 20), min(high, found + (high - low) / 20)
    return math.exp(found)


def recomputed(run: Path, trial_id: str) -> dict[str, float | None]:
    """All numbers of a trial's row."""
    directory = run / "trials" / trial_id
    record = json.loads((directory / "trial.json").read_text())
    history, config, parameters = record["history"], record["config"], record["parameters"]
    f1s = [row["val_macro_f1"] for row in history]
    best = history[f1s.index(max(f1s))]
    found: dict[str, float | None] = {}
    for split in ("val", "test", "held_out", "also"):
        path = directory / ("predictions.parquet" if split == "test" else f"predictions_{split}.parquet")
        for infix in ("", "averaged_"):
            own = scores(clips_of(path, f"{infix}logit_")) if path.is_file() else {}
            for name in ("acc", "macro_f1"):
                found[f"{split}_{infix}{name}"] = own.get(name)
            if split == "val":
                found[f"{infix}temperature"] = best_temperature(clips_of(path, f"{infix}logit_"))
            if split == "test":
                found[f"test_{infix}top5"] = own["top5"]
            if (split, infix) == ("val", ""):
                found["val_loss"] = own["loss"]
    processor = [row["processor_seconds"] for row in history]
    trained = [row["samples_per_second"] * row["epoch_seconds"] for row in history]
    (times,) = json.loads((run / "baselines.json").read_text())["inference"]
    (adapter,) = directory.glob("adapter.*")
    return {
        **found,
        **over_players(directory / "predictions.parquet"),
        **{name: config[name] for name in ("seed", "clip_seconds")},
        **{name: best[name] for name in ("train_loss", "train_ce")},
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "total_params": parameters["total"],
        "trainable_params": parameters["trainable"],
        "adapter_params": parameters["adapter"],
        "trainable_percent": 100 * parameters["trainable"] / parameters["total"],
        "train_seconds": sum(processor),
        "wall_seconds": record["seconds"],
        "train_wall_seconds": sum(row["epoch_seconds"] for row in history),
        "seconds_per_epoch": sum(processor) / len(processor),
        "samples_per_second": sum(clips / own for clips, own in zip(trained, processor, strict=True)) / len(trained),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in history),
        "cpu_ms_per_clip": times["ms"],
        "adapter_kb": adapter.stat().st_size / 1000,
        "oom_retries": record["oom_retries"],
        "train_clips": record["data"]["clips"]["train"],
        "val_clips": len(pd.read_parquet(directory / "predictions_val.parquet")),
        "test_clips": len(pd.read_parquet(directory / "predictions.parquet")),
    }


def over_players(path: Path) -> dict[str, float | None]:
    """The mean over players of the test accuracy, and its interval: the wider of t over players and Wilson's."""
    table = pd.read_parquet(path)
    slugs = [name.removeprefix("logit_") for name in table if str(name).startswith("logit_")]
    right: dict[str, list[bool]] = {}
    for _, row in table.iterrows():
        right.setdefault(row.player, []).append(max(slugs, key=lambda slug: row[f"logit_{slug}"]) == row.rudiment)
    means = [sum(own) / len(own) for own in right.values()]
    found: dict[str, float | None] = {"test_acc_by_player": fmean(means), "test_players": len(means)}
    if len(means) < 3:
        return found | {"test_acc_low": None, "test_acc_high": None}
    half = stats.t.ppf(0.975, len(means) - 1) * stdev(means) / len(means) ** 0.5
    wilson = proportion_confint(fmean(means) * len(table), len(table), method="wilson")
    low, high = min(fmean(means) - half, wilson[0]), max(fmean(means) + half, wilson[1])
    return found | {"test_acc_low": max(low, 0.0), "test_acc_high": min(high, 1.0)}


def test_every_number_of_the_comparison_table_can_be_recomputed(run: Path, files: dict[str, bytes]) -> None:
    rows = list(csv.DictReader(io.StringIO(files["comparison_table.csv"].decode())))
    assert len(rows) == 3
    for row in rows:
        shown = {name: float(value) if value else None for name, value in row.items() if name not in TEXTS}
        expected = recomputed(run, row["trial_id"])
        assert shown.keys() == expected.keys()
        rough = {name: 1e-3 if "temperature" in name else 1e-5 if "loss" in name else 1e-9 for name in expected}
        for name, value in expected.items():
            assert shown[name] == (None if value is None else pytest.approx(value, rel=rough[name])), name


def table(text: str, first: str) -> list[dict[str, str]]:
    """The rows of the Markdown table whose first column has this heading."""
    lines = text.partition(f"\n| {first} | ")[2].splitlines()
    head = [first, *(cell.strip() for cell in lines[0].strip(" |").split("|"))]
    rows = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(head, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return rows


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def test_numbers_of_the_summary_can_be_recomputed(run: Path, files: dict[str, bytes]) -> None:
    text = files["summary_report.md"].decode()
    trials = table(text, "trial")
    assert len(trials) == 3
    for row in trials:
        expected = recomputed(run, row["trial"])
        for name in ("val_acc", "test_acc", "test_averaged_acc"):
            assert row[name] == percent(expected[name] or 0.0)
        assert float(row["val_macro_f1"]) == pytest.approx(expected["val_macro_f1"], abs=5e-4)
        assert row["train s"] == f"{expected['train_seconds']:,.0f}"
    baselines = table(text, "baseline")
    names = [each["name"] for each in json.loads((run / "baselines.json").read_text())["baselines"]]
    assert len(baselines) == len(names) >= 5
    for name, row in zip(names, baselines, strict=True):
        own = pd.read_parquet(run / "baselines" / f"{name}.parquet")
        assert row["test_acc"] == percent((own.rudiment == own.predicted).mean())
        assert row["test_averaged_acc"] == percent((own.rudiment == own.averaged_predicted).mean())


def test_calibration_of_the_summary_can_be_recomputed(run: Path, files: dict[str, bytes]) -> None:
    rows = table(files["summary_report.md"].decode().partition("## Calibration")[2], "trial")
    assert [row["input"] for row in rows] == ["centre window", "whole clip"] * 2
    for row in rows:
        directory = run / "trials" / row["trial"]
        prefix = "" if row["input"] == "centre window" else "averaged_"
        last = json.loads((directory / "trial.json").read_text())["history"][-1]
        assert row["temperature"] == f"{last[f'{prefix}temperature']:.2f}"
        clips = clips_of(directory / "predictions.parquet", f"{prefix}logit_")
        for when, temperature in (("before", 1.0), ("after", last[f"{prefix}temperature"])):
            pairs, brier = [], 0.0
            for _, true, logits in clips:
                chances = probabilities(logits, temperature)
                best = max(chances, key=chances.__getitem__)
                pairs.append((chances[best], best == true))
                brier += sum((p - (name == true)) ** 2 for name, p in chances.items()) / len(clips)
            assert float(row[f"Brier {when}"]) == pytest.approx(brier, abs=6e-4)
            pairs.sort(key=lambda pair: pair[0])
            gaps = (abs(sum(p for p, _ in own) - sum(right for _, right in own)) for own in ten_bins(pairs))
            ece = sum(gaps) / len(pairs)
            assert float(row[f"ECE {when}"].partition("%")[0]) == pytest.approx(100 * ece, abs=0.06)


def ten_bins(pairs: list[tuple[float, bool]]) -> list[list[tuple[float, bool]]]:
    """Ten bins of the sorted clips, the first ones larger by one where the clips do not divide evenly."""
    size, extra = divmod(len(pairs), 10)
    ends = [0]
    for number in range(10):
        ends.append(ends[-1] + size + (number < extra))
    return [pairs[begin:end] for begin, end in itertools.pairwise(ends)]
