"""Each figure shows the numbers of the run."""

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
from analysis.figures.curves import mean_curve
from analysis.figures.f1 import f1_of
from analysis.figures.pareto import front
from analysis.figures.style import jitter, log_axis, row_jitter, short_count
from analysis.load.predictions import correct_by_clip
from analysis.load.trials import Trial
from analysis.stats.arms import arms, best_of_each, by_validation, checkpoints, looks, paled, pretrained
from analysis.stats.contrast import contrast
from analysis.write.blocks import Picture
from sousaphone.runs.statuses import Status
from sousaphone.scores import mean_interval
from sousaphone.strategies import STRATEGIES
from tests.analysis.figure_builders import MODELS, built, chart, drawn, findings, one, rows
from tests.analysis.run_builders import arm


def test_rows_are_sorted_by_validation_and_partial_arms_are_last_and_pale(tmp_path: Path) -> None:
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
    shades = {trace.marker.line.color for trace in chart(found["accuracy_comparison"]).data if trace.customdata}
    assert {"#CC79A7", "#D55E00", paled("#0072B2")} <= shades
    assert "#0072B2" not in shades


def test_test_accuracy_is_averaged_over_seeds_then_players_with_t_interval(
    eight: tuple[list[Trial], pd.DataFrame], found: dict[str, Picture]
) -> None:
    trials, predictions = eight
    best = by_validation(arms(trials))[0]
    own = predictions[predictions.trial_id.isin([trial.trial_id for trial in best.trials])]
    by_clip = own.groupby("sample_id").agg(player=("player", "first"), right=("correct", "mean"))
    mean, low, high = (100 * value for value in mean_interval(by_clip.groupby("player", observed=True).right.mean()))
    assert high > 100  # clipped in the figure
    high = 100.0
    figure = chart(found["accuracy_comparison"])
    ((trace, place),) = (
        (trace, place)
        for trace in figure.data
        for place, text in enumerate(trace.customdata or ())
        if "test" in text and round(trace.y[place]) == 0
    )
    assert trace.x[place] == pytest.approx(mean, abs=0.006)
    assert trace.x[place] + trace.error_x.array[place] == pytest.approx(high, abs=0.011)
    assert trace.x[place] - trace.error_x.arrayminus[place] == pytest.approx(low, abs=0.011)
    assert f"[{low:.1f}, {high:.1f}], 4 players" in trace.customdata[place]


def test_intervals_of_slices_are_clipped_to_possible_accuracies(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    bars = [trace for trace in chart(one(slices, *eight)).data if trace.error_x.array is not None]
    ends = [end for bar in bars for end in np.asarray(bar.x, float) + np.asarray(bar.error_x.array, float)]
    starts = [end for bar in bars for end in np.asarray(bar.x, float) - np.asarray(bar.error_x.arrayminus, float)]
    assert np.nanmax(ends) == pytest.approx(100, abs=0.02)
    assert np.nanmin(starts) > -0.02


@pytest.mark.parametrize(("players", "known"), [(1, False), (4, True)])
def test_caption_and_legend_mention_intervals_only_if_drawn(tmp_path: Path, players: int, known: bool) -> None:
    picture = one(accuracy, *built(tmp_path, [arm("ast"), arm("beats")], clips=40, players=players))
    legend = [trace.name for trace in chart(picture).data if trace.name]
    assert any("interval" in name for name in legend) is known
    assert ("interval" in picture.caption) is known


def test_marker_at_0_percent_is_whole_and_bold_headings_fit(tmp_path: Path) -> None:
    trials, predictions = built(tmp_path, [arm("ast"), arm("beats")], clips=40)
    predictions[["skill_tier", "preset", "soundfont"]] = ""  # then a heading is the longest label
    for module in (accuracy, slices):
        picture = one(module, trials, predictions)
        assert chart(picture).layout.xaxis.range[0] < 0
        assert picture.png is not None
        edge = imread(io.BytesIO(picture.png))[:, :20]  # at 150 dots an inch
        assert (edge == 1).all()


def test_baselines_are_rows_below_the_arms(found: dict[str, Picture]) -> None:
    figure = chart(found["accuracy_comparison"])
    assert rows(figure)[-2:] == ["majority class", "stroke times"]
    (trace,) = (t for t in figure.data if t.marker.symbol == "diamond-tall" and t.customdata)
    assert list(trace.x) == [2.5, 2.5, 20.0, 19.0]  # validation and test of each


def test_front_contains_the_undominated_points() -> None:
    assert front([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.4]) == [0, 1, 3]
    assert front([5], [0.1]) == [0]
    assert front([1, 1, 1], [0.5, 0.4, 0.5]) == [0, 2]
    assert front([2, 1, 1], [0.5, 0.5, 0.6]) == [2]  # only the cheaper and better one
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


def test_each_known_cost_has_a_panel(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    trials, predictions = eight

    def titles(**more: Any) -> list[str]:
        figure = chart(one(pareto, trials, predictions, **more))
        return [axis.title.text for axis in figure.select_xaxes() if axis.title.text]

    assert titles() == ["trainable parameters", "all parameters", "training time, processor s"]
    more = titles(timed=True, adapter_bytes={trial.trial_id: 1000 for trial in trials})
    assert ["CPU" in more[3], "kB" in more[4], len(more)] == [True, True, 5]


def test_every_strategy_is_in_the_legend_of_costs(tmp_path: Path) -> None:
    trials, predictions = built(tmp_path, [arm("ast", strategy=strategy) for strategy in STRATEGIES])
    names = {trace.name for trace in chart(one(pareto, trials, predictions)).data if trace.showlegend is not False}
    assert {strategy.title for strategy in STRATEGIES.values()} <= names


def test_partial_results_are_not_on_the_front(tmp_path: Path) -> None:
    plan = [arm("ast", seed=0), arm("ast", seed=1), arm("htsat"), arm("beats")]
    trials, predictions = built(tmp_path, plan, ["completed", "time_limit", "time_limit", "completed"])
    picture = one(pareto, trials, predictions)
    shown = {text for trace in chart(picture).data for text in trace.hovertext or ()}
    assert shown == {"AST", "BEATs"}
    assert "2 of 4 trials" in picture.caption


def test_partial_results_are_labelled_and_not_averaged_with_full_ones(tmp_path: Path) -> None:
    plan = [arm("ast", seed=0), arm("ast", seed=1), arm("htsat"), arm("beats")]
    trials, predictions = built(tmp_path, plan, ["completed", "time_limit", "time_limit", "completed"])
    ast, htsat, beats = arms(trials)
    assert [arm.state for arm in (ast, htsat, beats)] == ["1 of 2 seeds", "time limit", ""]
    assert ast.values("val_acc") == [trials[0].best["val_acc"]]
    assert htsat.values("val_acc") == [trials[2].best["val_acc"]]
    assert sorted(rows(chart(one(accuracy, trials, predictions)))) == [
        "AST (1 of 2 seeds)",
        "BEATs",
        "HTS-AT (CLAP) (time limit)",
    ]


def test_augmentation_effect_is_the_paired_contrast(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    trials, predictions = eight
    found = {effect.label: effect.contrast for effect in effects(findings(trials, predictions))}
    assert sorted(found) == ["AST", "BEATs", "EfficientAT", "HTS-AT (CLAP)"]
    on, players = correct_by_clip(predictions, ["beats-lora-aug-on-s0", "beats-lora-aug-on-s1"])
    off, _ = correct_by_clip(predictions, ["beats-lora-aug-off-s0", "beats-lora-aug-off-s1"])
    wanted = contrast(on, off, players)
    assert (found["BEATs"].difference, found["BEATs"].low) == (wanted.difference, wanted.low)
    figure = chart(one(augmentation, trials, predictions))
    assert rows(figure) == sorted(found, key=lambda label: -found[label].difference)


def test_augmentation_effect_needs_two_players_and_both_arms(tmp_path: Path) -> None:
    both = [arm("ast", augment=True), arm("ast", augment=False)]
    assert effects(findings(*built(tmp_path / "a", both, players=1))) == []
    assert effects(findings(*built(tmp_path / "b", both[:1]))) == []
    assert effects(findings(*built(tmp_path / "c", both, ["completed", "time_limit"]))) == []


def test_confusion_and_f1_show_the_best_arm_of_each_backbone(
    eight: tuple[list[Trial], pd.DataFrame], found: dict[str, Picture]
) -> None:
    trials, predictions = eight
    own = findings(trials, predictions)
    best = own.best
    expected = best_of_each(by_validation(arms(trials)), set(predictions.trial_id))
    assert [arm.label for arm in best] == [arm.label for arm in expected]
    assert sorted(arm.model for arm in best) == sorted(MODELS)
    figure = chart(found["confusion"])
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == [arm.name for arm in best]
    assert [trace.visible for trace in figure.data] == [True, False, False, False]
    assert int(figure.data[0].customdata.sum()) == 2 * 240  # both seeds
    assert found["confusion"].caption.startswith(best[0].name)
    assert "2 seeds" in found["confusion"].caption
    trace = chart(found["f1_by_rudiment"]).data[0]
    assert trace.name == best[0].name
    assert sorted(trace.x) == pytest.approx(sorted(f1_of(own, best[0])), abs=0.001)


def test_best_arm_without_predictions_is_replaced_by_the_next(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    trials, predictions = eight
    first = findings(trials, predictions).best[0]
    rest = predictions[~predictions.trial_id.isin([trial.trial_id for trial in first.trials])]
    others = findings(trials, rest).best
    assert first.label not in [arm.label for arm in others]
    assert first.model in [arm.model for arm in others]


def test_mean_curve_ends_at_the_last_common_epoch() -> None:
    def trial(*accuracies: float) -> Trial:
        history = [
            {"epoch": i, "val_acc": value, "val_macro_f1": value, "epoch_seconds": 2.0 * i, "best_epoch": 1}
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
        row["val_macro_f1"] = f1
    long.history.pop()
    assert mean_curve([long, long]).best == 0
    thinned = mean_curve([trial(*[0.1] * 10)]).thinned(4)
    assert list(thinned.epochs) == [1, 5, 9, 10]


def test_exploding_loss_does_not_flatten_the_others(tmp_path: Path) -> None:
    trials, predictions = built(tmp_path, [arm("ast"), arm("beats")], ["completed", "diverged"])
    trials[1].history[-1]["val_loss"] = 1e300
    figure = chart(one(curves, trials, predictions))
    assert figure.layout.yaxis2.range[1] < 10
    assert figure.layout.yaxis2.title.text == "validation loss"


def test_each_backbone_has_its_own_colour_and_shape(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    found = [looks(eight[0])[model] for model in MODELS]
    for part in ("colour", "marker", "symbol"):
        assert len({getattr(look, part) for look in found}) == len(MODELS)


def test_weights_are_named_and_random_ones_marked(tmp_path: Path) -> None:
    hub = "/c/hub/models--MIT--ast-finetuned-audioset-10-10-0.4593/snapshots/1234"
    at = {
        "random": "random weights",
        hub: "MIT/ast-finetuned-audioset-10-10-0.4593; pretraining: AudioSet labels, mAP .459 (supervised)",
        "/weights/mine.pt": "weights mine.pt",
    }
    for path, words in at.items():
        assert pretrained(Trial("t", {"model": "ast"}, weights=path)) == words
    beats = Trial("t", {"model": "beats"}, weights="/w/BEATs_iter3_plus_AS2M.pt")
    assert pretrained(beats) == "Bencr/beats-checkpoints; pretraining: AudioSet without its labels (self-supervised)"
    said = checkpoints([beats, Trial("u", {"model": "htsat"})])
    assert said.startswith("Weights: BEATs: Bencr")
    assert said.endswith("HTS-AT (CLAP): random weights.")
    trials, predictions = built(tmp_path, [arm("ast")])
    assert one(accuracy, trials, predictions).caption.endswith("Random weights.")


@pytest.mark.parametrize("values", [[100.0], [5e6, 90e6], [1.0, 2.0], [3e-3, 4e5], [1e4, 1e4]])
def test_log_axis_contains_all_values_and_has_few_ticks(values: list[float]) -> None:
    low, high, ticks = log_axis(values)
    assert low < min(values) <= max(values) < high
    assert 2 <= len(ticks) <= 12
    assert all(low <= tick <= high for tick in ticks)


def test_counts_are_short() -> None:
    assert [short_count(v) for v in (20, 999, 12_000, 1_300_000, 90e6)] == ["20", "999", "12k", "1.3M", "90M"]


def test_jitter_separates_overlapping_points_and_leaves_others() -> None:
    points = [(0.0, 1.0), (0.0, 1.0), (0.5, 1.3), (0.0, 9.0), (0.0, 1.0), (0.0, math.nan)]
    moves = jitter(points)
    assert moves == jitter(points)
    assert (moves[0], moves[3], moves[5]) == (0, 0, 0)
    placed = [(place + move, value) for (place, value), move in zip(points, moves, strict=True)]
    for i, (place, value) in enumerate(placed):
        assert all(abs(place - p) >= 1 or abs(value - v) >= 1 for p, v in placed[:i] if v == v and value == value)


@pytest.mark.parametrize("number", [1, 2, 3, 10])
def test_row_jitter_of_equal_values_is_distinct_and_limited(number: int) -> None:
    shifts = row_jitter([50.0] * number, (0.0, 100.0), step=0.1, most=0.15)
    assert len(set(shifts)) == number
    assert max(map(abs, shifts)) <= 0.15 + 1e-9


def test_equal_results_are_all_visible_in_every_chart(tmp_path: Path) -> None:
    plan = [arm(m, augment=a, seed=s, epochs=1) for m in MODELS for a in (True, False) for s in (0, 1, 2)]
    trials, predictions = built(tmp_path, plan, clips=80)
    first = predictions[predictions.trial_id == trials[0].trial_id]
    predictions = pd.concat([first.assign(trial_id=trial.trial_id) for trial in trials], ignore_index=True)
    for trial in trials:
        trial.history[-1].update({**trials[0].history[-1], "epoch_seconds": 5.0})
        trial.parameters.update(trials[0].parameters)
    found = drawn(trials, predictions.astype({"trial_id": "category"}))
    for name in ("accuracy_comparison", "augmentation_effect", "efficiency_scatter", "f1_by_rudiment"):
        places = [
            (trace.xaxis, x, y)
            for trace in chart(found[name]).data
            if trace.mode and "markers" in trace.mode
            for x, y in zip(trace.x, trace.y, strict=True)
            if x is not None
        ]
        assert len(places) > len(trials) / 3
        assert len(set(places)) == len(places), name
    best = [
        (trace.xaxis, trace.yaxis, trace.x[0], trace.y[0])
        for trace in chart(found["learning_curves"]).data
        if trace.mode == "lines+markers"
    ]
    assert len(best) == len(set(best)) == 6 * len(plan) / 3
    traces = chart(found["training_time"]).data
    dots = next(trace for trace in traces if trace.type == "scatter" and len(trace.x) == len(plan))
    assert len({*zip(dots.x, dots.y, strict=True)}) == len(plan)
