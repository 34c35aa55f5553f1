"""Each figure says what the numbers say."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from analysis.figures import accuracy, augmentation, curves, pareto, slices
from analysis.figures.augmentation import effects
from analysis.figures.curves import curve_of, mean_curve
from analysis.figures.f1 import f1_of
from analysis.figures.pareto import front
from analysis.figures.style import log_axis, paled, short_count
from analysis.load.predictions import correct_by_clip
from analysis.load.trials import Trial
from analysis.stats.arms import arms, best_of_each, by_validation, checkpoints, looks, pretrained
from analysis.stats.statistics import contrast, mean_interval
from analysis.write.blocks import Picture
from sousaphone.runs.statuses import Status
from tests.analysis.figure_builders import MODELS, built, chart, drawn, one, rows, scene
from tests.analysis.run_builders import arm


def test_the_best_by_validation_stands_on_top_and_what_has_not_ended_below_with_its_status(tmp_path: Path) -> None:
    plan = [arm("ast"), arm("htsat"), arm("beats"), arm("efficientat")]
    trials, predictions = built(tmp_path, plan, ["out_of_memory", "completed", "completed", "pending"])
    for trial, score in zip(trials[:3], (0.9, 0.3, 0.6), strict=True):
        for row in trial.history:
            row["val_macro_f1"] = row["val_acc"] = score
    found = drawn(trials, predictions)
    wanted = ["BEATs", "HTS-AT (CLAP)", "AST (out of memory)", "EfficientAT (pending)"]
    assert rows(chart(found["accuracy_comparison"])) == wanted
    assert rows(chart(found["training_time"])) == wanted
    assert "Pale" in found["accuracy_comparison"].caption
    shades = {trace.marker.line.color for trace in chart(found["accuracy_comparison"]).data if trace.name is None}
    assert {"#CC79A7", "#D55E00", paled("#0072B2")} <= shades
    assert "#0072B2" not in shades


def test_test_accuracy_is_the_mean_over_players_with_its_t_interval_the_seeds_averaged_first(
    eight: tuple[list[Trial], pd.DataFrame], found: dict[str, Picture]
) -> None:
    trials, predictions = eight
    best = by_validation(arms(trials))[0]
    own = predictions[predictions.trial_id.isin([trial.trial_id for trial in best.trials])]
    by_clip = own.groupby("sample_id").agg(player=("player", "first"), right=("correct", "mean"))
    mean, low, high = (100 * value for value in mean_interval(by_clip.groupby("player", observed=True).right.mean()))
    assert high > 100  # so that it ends at what is possible
    high = 100.0
    figure = chart(found["accuracy_comparison"])
    (trace,) = (t for t in figure.data if t.error_x.array is not None and 0.17 in t.y)
    place = list(trace.y).index(0.17)
    assert trace.x[place] == pytest.approx(mean, abs=0.006)
    assert trace.x[place] + trace.error_x.array[place] == pytest.approx(high, abs=0.011)
    assert trace.x[place] - trace.error_x.arrayminus[place] == pytest.approx(low, abs=0.011)
    assert f"[{low:.1f}, {high:.1f}], 4 players" in trace.customdata[place]


def test_intervals_of_kinds_of_clips_end_at_what_is_possible(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    bars = [trace for trace in chart(one(slices, *eight)).data if trace.error_x.array is not None]
    ends = [end for bar in bars for end in np.asarray(bar.x, float) + np.asarray(bar.error_x.array, float)]
    starts = [end for bar in bars for end in np.asarray(bar.x, float) - np.asarray(bar.error_x.arrayminus, float)]
    assert np.nanmax(ends) == pytest.approx(100, abs=0.02)
    assert np.nanmin(starts) > -0.02


@pytest.mark.parametrize(("players", "known"), [(1, False), (4, True)])
def test_intervals_are_spoken_of_only_where_there_are_some(tmp_path: Path, players: int, known: bool) -> None:
    picture = one(accuracy, *built(tmp_path, [arm("ast"), arm("beats")], clips=40, players=players))
    legend = [trace.name for trace in chart(picture).data if trace.name]
    assert any("interval" in name for name in legend) is known
    assert ("interval" in picture.caption) is known


def test_a_marker_at_0_percent_is_whole_and_bold_headings_keep_off_the_edge(tmp_path: Path) -> None:
    trials, predictions = built(tmp_path, [arm("ast"), arm("beats")], clips=40)
    predictions[["skill_tier", "preset", "soundfont"]] = ""  # then a heading is the longest label
    for module in (accuracy, slices):
        picture = one(module, trials, predictions)
        assert chart(picture).layout.xaxis.range[0] < 0
        assert picture.png is not None
        edge = imread(io.BytesIO(picture.png))[:, :20]  # at 150 dots an inch
        assert (edge == 1).all()


def test_baselines_have_rows_of_their_own_below_the_arms(found: dict[str, Picture]) -> None:
    figure = chart(found["accuracy_comparison"])
    assert rows(figure)[-2:] == ["majority class", "stroke times"]
    drawn_at = [t for t in figure.data if t.marker.symbol == "diamond-tall" and t.text]
    assert [list(trace.x) for trace in drawn_at] == [[2.5, None], [2.5, 19.0]]


def test_a_front_holds_what_none_beats_at_both() -> None:
    assert front([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.4]) == [0, 1, 3]
    assert front([5], [0.1]) == [0]
    assert front([2, 1, 1], [0.5, 0.5, 0.6]) == [2]  # the cheaper and better one alone
    rng = np.random.default_rng(0)
    costs, values = rng.integers(1, 9, 60).tolist(), rng.integers(1, 9, 60).tolist()
    found = front(costs, values)
    for place in range(60):
        beaten = any(
            costs[o] <= costs[place]
            and values[o] >= values[place]
            and (costs[o], values[o]) != (costs[place], values[place])
            for o in range(60)
        )
        assert (place in found) <= (not beaten)
        assert beaten or any((costs[o], values[o]) == (costs[place], values[place]) for o in found)


def test_costs_that_are_known_have_a_panel_each(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    trials, predictions = eight

    def titles(**more: Any) -> list[str]:
        figure = chart(one(pareto, trials, predictions, **more))
        return [axis.title.text for axis in figure.select_xaxes() if axis.title.text]

    assert titles() == ["trainable parameters", "all parameters", "training time, s"]
    known = {trial.trial_id: 20.0 + i for i, trial in enumerate(trials)}
    more = titles(cpu_ms=known, adapter_bytes=dict.fromkeys(known, 1000))
    assert more[3:] == ["CPU time a clip, ms", "size of what was learnt, kB"]


def test_partial_results_are_on_no_front(tmp_path: Path) -> None:
    plan = [arm("ast", seed=0), arm("ast", seed=1), arm("htsat"), arm("beats")]
    trials, predictions = built(tmp_path, plan, ["completed", "time_limit", "time_limit", "completed"])
    picture = one(pareto, trials, predictions)
    shown = {text for trace in chart(picture).data for text in trace.hovertext or ()}
    assert shown == {"AST", "BEATs"}
    assert "Not shown: 2 of 4 trials, with partial results or none." in picture.caption


def test_what_is_partial_is_named_and_never_averaged_with_the_rest(tmp_path: Path) -> None:
    plan = [arm("ast", seed=0), arm("ast", seed=1), arm("htsat"), arm("beats")]
    trials, predictions = built(tmp_path, plan, ["completed", "time_limit", "time_limit", "completed"])
    ast, htsat, beats = arms(trials)
    assert [arm.state for arm in (ast, htsat, beats)] == ["1 of 2 seeds", "time limit", ""]
    assert ast.values("best", "val_acc") == [trials[0].best["val_acc"]]
    assert htsat.values("best", "val_acc") == [trials[2].best["val_acc"]]
    assert sorted(rows(chart(one(accuracy, trials, predictions)))) == [
        "AST (1 of 2 seeds)",
        "BEATs",
        "HTS-AT (CLAP) (time limit)",
    ]


def test_the_effect_of_augmentation_is_the_paired_contrast(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    trials, predictions = eight
    found = {effect.label: effect.contrast for effect in effects(scene(trials, predictions))}
    assert sorted(found) == ["AST", "BEATs", "EfficientAT", "HTS-AT (CLAP)"]
    on, players = correct_by_clip(predictions, ["beats-lora-aug-on-s0", "beats-lora-aug-on-s1"])
    off, _ = correct_by_clip(predictions, ["beats-lora-aug-off-s0", "beats-lora-aug-off-s1"])
    wanted = contrast(on, off, players)
    assert (found["BEATs"].difference, found["BEATs"].low) == (wanted.difference, wanted.low)
    figure = chart(one(augmentation, trials, predictions))
    assert rows(figure) == sorted(found, key=lambda label: -found[label].difference)


def test_one_player_or_one_way_of_training_has_no_effect_of_augmentation(tmp_path: Path) -> None:
    both = [arm("ast", augment=True), arm("ast", augment=False)]
    assert effects(scene(*built(tmp_path / "a", both, players=1))) == []
    assert effects(scene(*built(tmp_path / "b", both[:1]))) == []
    assert effects(scene(*built(tmp_path / "c", both, ["completed", "time_limit"]))) == []


def test_confusion_and_f1_are_of_each_backbones_best_arm(
    eight: tuple[list[Trial], pd.DataFrame], found: dict[str, Picture]
) -> None:
    trials, predictions = eight
    own = scene(trials, predictions)
    best = own.best
    assert [arm.model for arm in best] == [a.model for a in best_of_each(by_validation(arms(trials)), own._by_trial)]
    assert sorted(arm.model for arm in best) == sorted(MODELS)
    figure = chart(found["confusion"])
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == [arm.name for arm in best]
    assert [trace.visible for trace in figure.data] == [True, False, False, False]
    assert int(figure.data[0].customdata.sum()) == 2 * 240  # both seeds
    assert f"{best[0].name}, the best arm by validation, 2 seeds summed" in found["confusion"].caption
    trace = chart(found["f1_by_rudiment"]).data[0]
    assert trace.name == best[0].name
    assert sorted(trace.x) == pytest.approx(sorted(f1_of(own, best[0])), abs=0.001)


def test_a_best_arm_without_predictions_gives_way_to_the_next(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    trials, predictions = eight
    first = scene(trials, predictions).best[0]
    rest = predictions[~predictions.trial_id.isin([trial.trial_id for trial in first.trials])]
    others = scene(trials, rest).best
    assert first.label not in [arm.label for arm in others]
    assert first.model in [arm.model for arm in others]


def test_the_mean_of_seeds_goes_as_far_as_all_of_them_went() -> None:
    def trial(*accuracies: float) -> Trial:
        history = [
            {"epoch": i, "val_acc": value, "epoch_seconds": 2.0 * i, "best_epoch": 1}
            for i, value in enumerate(accuracies, start=1)
        ]
        return Trial("t", {}, Status.COMPLETED, history=history)

    short, long = trial(0.1, 0.3), trial(0.2, 0.5, 0.9)
    mean = mean_curve([short, long])
    assert list(mean.epochs) == [1, 2]
    assert list(mean.seconds) == [2.0, 6.0]
    assert mean.values["val_acc"] == pytest.approx([15.0, 40.0])
    assert mean.best == 1
    assert math.isnan(mean.values["val_loss"][0])
    for row, f1 in zip(long.history, (0.5, 0.2, 0.9), strict=True):
        row["val_macro_f1"] = f1  # by which single trials choose their best epoch
    long.history.pop()
    assert (mean_curve([long, long]).best, mean_curve([short, short]).best) == (0, 1)
    thinned = curve_of(trial(*[0.1] * 10), step=4)
    assert list(thinned.epochs) == [1, 5, 9, 10]


def test_a_loss_that_explodes_does_not_flatten_the_others(tmp_path: Path) -> None:
    trials, predictions = built(tmp_path, [arm("ast"), arm("beats")], ["completed", "diverged"])
    trials[1].history[-1]["val_loss"] = 1e300
    figure = chart(one(curves, trials, predictions))
    assert figure.layout.yaxis2.range[1] < 10
    assert figure.layout.yaxis2.title.text == "validation loss"


def test_every_backbone_has_a_colour_and_a_shape_of_its_own(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    found = [looks(eight[0])[model] for model in MODELS]
    for part in ("colour", "marker", "symbol"):
        assert len({getattr(look, part) for look in found}) == len(MODELS)


def test_weights_are_named_and_random_ones_are_said_to_be_random(tmp_path: Path) -> None:
    hub = "/c/hub/models--MIT--ast-finetuned-audioset-10-10-0.4593/snapshots/1234"
    at = {
        "random": "random weights",
        hub: "MIT/ast-finetuned-audioset-10-10-0.4593: AudioSet labels, mAP .459 (supervised)",
        "/weights/mine.pt": "weights mine.pt",
    }
    for path, words in at.items():
        assert pretrained(Trial("t", {"model": "ast"}, weights=path)) == words
    beats = Trial("t", {"model": "beats"}, weights="/w/BEATs_iter3_plus_AS2M.pt")
    assert pretrained(beats) == "Bencr/beats-checkpoints: AudioSet without its labels (self-supervised)"
    said = checkpoints([beats, Trial("u", {"model": "htsat"})])
    assert said.startswith("Weights: BEATs: Bencr")
    assert said.endswith("HTS-AT (CLAP): random weights.")
    trials, predictions = built(tmp_path, [arm("ast")])
    assert one(accuracy, trials, predictions).caption.endswith("Random weights.")


@pytest.mark.parametrize("values", [[100.0], [5e6, 90e6], [1.0, 2.0], [3e-3, 4e5], [1e4, 1e4]])
def test_a_log_axis_holds_all_values_and_has_a_few_ticks(values: list[float]) -> None:
    low, high, ticks = log_axis(values)
    assert low < min(values) <= max(values) < high
    assert 2 <= len(ticks) <= 12
    assert all(low <= tick <= high for tick in ticks)


def test_counts_are_short() -> None:
    assert [short_count(v) for v in (20, 999, 12_000, 1_300_000, 90e6)] == ["20", "999", "12k", "1.3M", "90M"]
